"""A normcore op as a torch.nn.Module: the same kernels, run on PyTorch's tensors, with PyTorch's autograd.

Nothing is copied: kernels read the tensors' own memory and write to tensors that PyTorch allocates. Only an input in a
memory format that the op's kernels do not take is converted, by PyTorch. On a GPU kernels run on PyTorch's current
stream.

Every call keeps what its backward reads (inputs, outputs, the op's saved arrays) with autograd, as PyTorch's own
functions do: any number of calls may come before a backward, the memory goes when the graph goes, a tensor changed in
place in between is an error, and hooks on saved tensors see all of it.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

from normcore.binding import Binding
from normcore.bound_layer import input_shapes_of, resolve
from normcore.devices import device as devices
from normcore.errors import DeviceError, ParameterError, ShapeError
from normcore.initializers import initial_values
from normcore.op import FORMATS, Op, Shape, Tensor, Tensors

try:
    import torch
except ImportError as fault:
    raise ImportError(
        f'normcore.interop.torch needs PyTorch, which cannot be imported ({fault}): pip install "normcore[peers]"'
    ) from fault

DTYPES = {torch.float32: "float32", torch.float64: "float64"}
BINDINGS_KEPT = 32  # shapes whose plans are kept


class Module(torch.nn.Module):  # type: ignore[misc]
    """A registered op, or an instance of an op's class, as a layer of a PyTorch model.

    op: the op's name, or the op itself. input_shape: logical shape with the batch, (N, C, *spatial), or a list of
    shapes for several inputs; later inputs may have any shape that fits the parameters made for this one.
    dtype: torch.float32 or torch.float64 (default: PyTorch's). device: the CPU (default) or a CUDA device; `.to(...)`
    moves both. seed: of initial values and random ops; by default drawn from PyTorch's generator. parameters: the op's
    own and `<array>_init`, as for normcore.layer.

    Parameters are torch.nn.Parameter under the op's names, running statistics buffers; train() and eval() choose
    training or inference. A random op draws with call_number, which counts its training calls; another number may be
    written there. Of several outputs the first has a gradient. A channels-last input is computed and
    given back channels last where the op's kernels can. Gradients of gradients are not there (PyTorch says so).

    Raises PluginError, ParameterError and ShapeError as normcore.layer does, DeviceError where CUDA is not there.
    """

    def __init__(
        self,
        op: str | Op,
        input_shape: Any,
        dtype: Any = None,
        device: Any = "cpu",
        seed: int | None = None,
        **parameters: Any,
    ):
        super().__init__()
        inits: dict[str, Any] = {}
        if isinstance(op, Op):
            if parameters:
                raise ParameterError("op", "a name when parameters are given beside it", op.name)
            self.op = op
        else:
            self.op, inits = resolve(op, parameters)
        self.seed = int(torch.randint(2**31, ())) if seed is None else seed
        self.call_number = 0
        # An empty tensor that .to() and its kin convert like all others: the module's dtype and device.
        like = torch.empty(0, dtype=_torch_dtype(dtype), device=device)
        self.register_buffer("_like", like, persistent=False)
        self._bindings: dict[Any, Binding] = {}
        kind = self._dtype()
        dtypes = getattr(self.op, "input_dtypes", None)
        shapes = input_shapes_of(self.op, input_shape)
        tensors = tuple(
            Tensor(s, (dtypes[k] if dtypes is not None else None) or kind) for k, s in enumerate(shapes)
        )
        plan = self._binding(tensors, self.op.formats_on(self._like.device.type)[0]).plan
        self._parameter_names, self._state_names = tuple(plan.parameters), tuple(plan.state)
        for name, array in plan.parameters.items():
            values = initial_values(array, inits.get(name), self.seed, name).astype(array.dtype or kind)
            self.register_parameter(name, torch.nn.Parameter(torch.tensor(values, device=device)))
        for name, array in plan.state.items():
            values = initial_values(array, None, self.seed, name).astype(array.dtype or kind)
            self.register_buffer(name, torch.tensor(values, device=device))

    def extra_repr(self) -> str:
        given = (f"{k}={v!r}" for k, v in self.op.hyperparameters().items())
        return ", ".join((self.op.name, *given))

    def __getstate__(self) -> dict[str, Any]:  # copies and pickles plan anew
        return {**self.__dict__, "_bindings": {}}

    # -- plans ------------------------------------------------------------------------------------------------

    def _dtype(self) -> str:
        if self._like.dtype not in DTYPES:
            raise ParameterError(
                "dtype", f"torch.float32 or torch.float64 for {self.op.name}", self._like.dtype
            )
        return DTYPES[self._like.dtype]

    def _binding(self, tensors: tuple[Tensor, ...], format: str) -> Binding:
        key = (tensors, format, self._like.dtype, self._like.device)
        found = self._bindings.get(key)
        if found is None:
            found = Binding(
                self.op,
                tensors,
                path=self.op.name,
                dtype=self._dtype(),
                format=format,
                device=_device(self._like.device),
                seed=self.seed,
                constants=getattr(self.op, "constants", ()),
            )
            found.t.shape = tensors[0].shape
            for name, array in found.plan.parameters.items():
                own = getattr(self, name, None)
                if own is not None and tuple(own.shape) != tuple(array.shape):
                    raise ShapeError(
                        f"{self.op.name}: inputs {' and '.join(str(x.shape) for x in tensors)} need {name} of shape "
                        f"{tuple(array.shape)}, the module has {tuple(own.shape)}; make one with this input_shape"
                    )
            if len(self._bindings) >= BINDINGS_KEPT:
                self._bindings.clear()
            self._bindings[key] = found
        return found

    # -- running ----------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any) -> Any:
        """The op's output for tensors of the module's dtype and device; a tuple for several outputs."""
        inputs = self._checked(inputs)
        format = _format(self.op, inputs[0])
        tensors = tuple(Tensor(tuple(x.shape), str(x.dtype).removeprefix("torch.")) for x in inputs)
        binding = self._binding(tensors, format)
        if self.op.is_view:
            return inputs[0].reshape(next(iter(binding.outputs.values())).shape)
        call = self.call_number
        self.call_number += self.training
        parameters = (getattr(self, name) for name in self._parameter_names)
        state = tuple(getattr(self, name) for name in self._state_names)
        outputs = _Run.apply(binding, self.training, call, state, len(inputs), *inputs, *parameters)
        return outputs[0] if len(outputs) == 1 else outputs

    def _checked(self, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        op, like = self.op, self._like
        if not inputs or (not op.inputs[0].startswith("*") and len(inputs) != len(op.inputs)):
            raise ShapeError(
                f"{op.name}: expected {len(op.inputs)} inputs ({', '.join(op.inputs)}), got {len(inputs)}"
            )
        dtypes = getattr(op, "input_dtypes", None) or (None,) * len(inputs)
        found = []
        for x, dtype in zip(inputs, dtypes, strict=False):
            if not isinstance(x, torch.Tensor):
                raise ParameterError("input", "a torch.Tensor", type(x).__name__)
            if x.device != like.device:
                raise DeviceError(
                    f"{op.name}: expected an input on {like.device}, where the module is, got one on {x.device}; "
                    "move one of them with .to(device)"
                )
            wanted = like.dtype if dtype is None else getattr(torch, dtype)
            if x.dtype != wanted and (wanted.is_floating_point or x.dtype.is_floating_point):
                raise ParameterError("input", f"a tensor of {wanted}, as the module; convert one", x.dtype)
            found.append(x.to(wanted))  # integers may be of any width
        return tuple(found)


class _Run(torch.autograd.Function):  # type: ignore[misc]
    """One call of an op: forward on the kernels, and backward on what autograd kept."""

    @staticmethod
    def forward(
        ctx: Any, binding: Binding, training: bool, call: int, state: Any, count: int, *given: Any
    ) -> Any:
        plan, needs, format = binding.plan, binding.op.backward_needs, binding.format
        inputs = tuple(_ordered(x, format) for x in given[:count])
        parameters = dict(zip(plan.parameters, (p.contiguous() for p in given[count:]), strict=True))
        running = dict(zip(plan.state, state, strict=True))
        saved = {k: _new(a.shape, a.dtype or binding.dtype, inputs[0]) for k, a in plan.saved.items()}
        outputs = {k: _new(y.shape, y.dtype, inputs[0], format) for k, y in binding.outputs.items()}
        t = copy.copy(binding.t)  # a call's own names: nothing that an op keeps there meets another call
        t.training, t.call = training, call
        physical = {k: _permuted(y, format) for k, y in outputs.items()}
        with _arrays(binding, inputs[0]) as array:
            named = {**parameters, **running, **saved, **physical, **_workspace(binding, inputs[0])}
            _attach(binding, t, array, named, inputs)
            binding.run_forward(t)
        _strip(binding, t)
        kept = {**parameters, **saved, **(outputs if "y" in needs else {})}
        if not training:
            kept.update(running)  # read by backward; in training they move with every call
        elif state:
            torch.autograd.graph.increment_version(state)
            ctx.running = running
        reads = inputs if "x" in needs else ()
        ctx.save_for_backward(*reads, *kept.values())
        ctx.reads, ctx.names = len(reads), tuple(kept)
        ctx.binding, ctx.t, ctx.shapes = binding, t, tuple(tuple(x.shape) for x in given[:count])
        ctx.set_materialize_grads(False)
        found = tuple(outputs.values())
        ctx.mark_non_differentiable(*(found[1:] if binding.differentiable else found))
        return found

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Any, *others: Any) -> Any:
        binding: Binding = ctx.binding
        op, plan, format = binding.op, binding.plan, binding.format
        before = (None,) * 5  # of forward's arguments
        inputs_wanted = ctx.needs_input_grad[5 : 5 + len(ctx.shapes)]
        parameters_wanted = ctx.needs_input_grad[5 + len(ctx.shapes) :]
        if dy is None:
            return (None,) * len(ctx.needs_input_grad)
        if op.shares_gradient:
            return (*before, *(dy if w else None for w in inputs_wanted))
        tensors = ctx.saved_tensors  # raises when one was changed in place
        reads, named = tensors[: ctx.reads], dict(zip(ctx.names, tensors[ctx.reads :], strict=True))
        named.update(getattr(ctx, "running", {}))
        dy = _ordered(dy, format)
        every = op.is_elementwise and any(inputs_wanted)  # such kernels give all gradients or none
        dx = tuple(
            _new(shape, x.dtype, dy, format) if (w or every) and x.dtype.startswith("float") else None
            for shape, x, w in zip(ctx.shapes, binding.inputs, inputs_wanted, strict=True)
        )
        gradients = {f"d{k}": torch.empty_like(named[k]) for k in plan.parameters}
        # Arrays that backward does not read still have a shape: any memory will do.
        for name, y in binding.outputs.items():
            named[name] = (
                _permuted(named[name], format) if name in named else _new(binding.physical(y), y.dtype, dy)
            )
        reads = reads or tuple(
            _new(binding.physical(x), x.dtype, dy) if d is None else _permuted(d, format)
            for d, x in zip(dx, binding.inputs, strict=True)
        )
        t = copy.copy(ctx.t)
        with _arrays(binding, dy) as array:
            _attach(binding, t, array, {**named, **gradients, "dy": dy, **_workspace(binding, dy)}, reads)
            arrays = tuple(None if d is None else array(_permuted(d, format)) for d in dx)
            _attach_inputs(binding, t, arrays, "d")
            binding.run_backward(t)
        of_inputs = (d if w else None for d, w in zip(dx, inputs_wanted, strict=True))
        of_parameters = (g if w else None for g, w in zip(gradients.values(), parameters_wanted, strict=True))
        return (*before, *of_inputs, *of_parameters)


# -- tensors as the kernels' arrays ------------------------------------------------------------------------------


@contextlib.contextmanager
def _arrays(binding: Binding, like: Any) -> Iterator[Callable[[Any], Any]]:
    """The function from a contiguous tensor to the device's array of the same memory, inside the right stream."""
    if binding.device.name == "cpu":
        yield lambda tensor: tensor.detach().numpy()
        return
    with binding.device.on_stream(torch.cuda.current_stream(like.device).cuda_stream):
        yield binding.device.adopt


def _attach(
    binding: Binding,
    t: Tensors,
    array: Callable[[Any], Any],
    named: dict[str, Any],
    inputs: tuple[Any, ...],
) -> None:
    for name, tensor in named.items():
        setattr(t, name, array(tensor))
    _attach_inputs(binding, t, tuple(map(array, inputs)), "")


def _attach_inputs(binding: Binding, t: Tensors, arrays: tuple[Any, ...], prefix: str) -> None:
    if binding.variadic:
        setattr(t, prefix + binding.input_names[0], arrays)
    else:
        for name, value in zip(binding.input_names, arrays, strict=True):
            setattr(t, prefix + name, value)


def _strip(binding: Binding, t: Tensors) -> None:
    """Let go of a call's arrays; autograd keeps those that backward reads."""
    plan = binding.plan
    groups = (plan.parameters, plan.state, plan.saved, plan.workspace, binding.outputs, binding.input_names)
    for name in {name for group in groups for name in group}:
        delattr(t, name)


def _workspace(binding: Binding, like: Any) -> dict[str, Any]:
    return {k: _new(a.shape, a.dtype or binding.dtype, like) for k, a in binding.plan.workspace.items()}


def _new(shape: Shape, dtype: str, like: Any, format: str = FORMATS[0]) -> Any:
    """An empty tensor of a logical shape whose memory has the format; no view of another, so that users may write to it."""
    order = _order(len(shape), format)
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(1, shape[axis])
    return torch.empty_strided(tuple(shape), strides, dtype=getattr(torch, dtype), device=like.device)


def _order(rank: int, format: str) -> tuple[int, ...]:
    """The logical axes in physical order."""
    return (0, *range(2, rank), 1) if format == FORMATS[1] and rank > 2 else tuple(range(rank))


def _permuted(x: Any, format: str) -> Any:
    """A logical tensor seen in physical order."""
    return x if format == FORMATS[0] or x.ndim < 3 else x.permute(_order(x.ndim, format))


def _ordered(x: Any, format: str) -> Any:
    """A logical tensor in physical order, contiguous: a view where its memory is so, else a copy."""
    return _permuted(x.resolve_conj().resolve_neg(), format).contiguous()


def _format(op: Op, x: Any) -> str:
    """The memory format to run in: the input's own where the kernels take it, else the op's favourite."""
    own = FORMATS[1] if not x.is_contiguous() and _permuted(x, FORMATS[1]).is_contiguous() else FORMATS[0]
    formats = op.formats_on(x.device.type)
    return own if own in formats else formats[0]


def _device(device: Any) -> devices.Device:
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"expected a tensor on the CPU or on CUDA, got device {str(device)!r}")
    found = devices.get(device.type)
    index = getattr(found, "index", 0)
    if device.type == "cuda" and device.index not in (None, index):
        raise DeviceError(f"kernels run on cuda:{index} in this process, got {device}; move the module there")
    return found


def _torch_dtype(dtype: Any) -> Any:
    if dtype is None:
        return torch.get_default_dtype()
    found = {name: kind for kind, name in DTYPES.items()}.get(dtype, dtype)
    if found not in DTYPES:
        raise ParameterError("dtype", "torch.float32 or torch.float64", dtype)
    return found
