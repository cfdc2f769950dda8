"""normcore.layer: one op by itself, with its arrays, for Python users, tests and benchmarks."""

import math
from typing import Any

import numpy as np

from normcore import storage
from normcore.binding import Binding
from normcore.devices import device as devices
from normcore.errors import ParameterError, ShapeError
from normcore.initializers import initial_values
from normcore.kernels.transpose import convert
from normcore.layout import logical_view, physical_shape, physical_view, same_memory
from normcore.op import FORMATS, Op, Shape, Tensor


def layer(
    name: str,
    input_shape: Any,
    device: str = "cpu",
    dtype: str = "float32",
    memory_format: str = "channels_first",
    seed: int = 0,
    **parameters: Any,
) -> "Layer":
    """A layer of the registered op `name`, with arrays allocated for `input_shape`.

    input_shape: logical shape with the batch, (N, C, *spatial); a list of shapes for several inputs.
    device: "cpu", "cuda" or "auto". dtype: "float32" or "float64"; for elementwise ops and most normalizations on CUDA also
    "float16" and "bfloat16", which are stored so and computed in float32 (see normcore/storage.py).
    memory_format: "channels_first" or "channels_last" (same logical arrays, memory in the other order).
    seed: of parameters and random ops.
    parameters: the op's own, and `<array>_init` for its learnable arrays.

    Raises PluginError for an unknown op, ParameterError and ShapeError for what does not fit.
    """
    op, inits = resolve(name, parameters)
    return Layer(op, input_shape, device, dtype, memory_format, seed, inits)


def resolve(name: str, parameters: dict[str, Any]) -> tuple[Op, dict[str, Any]]:
    """The registered op `name` with these parameters, and the initializers that stand among them as `<array>_init`.

    Raises PluginError for an unknown op and ParameterError.
    """
    from normcore.registry import default

    cls: type[Op] = default().get("op", name).component  # type: ignore[assignment]
    own = dict(parameters)
    inits = {
        key[:-5]: own.pop(key) for key in parameters if key.endswith("_init") and key[:-5] in cls.learnable
    }
    return cls.make(**own), inits


class Layer:
    """A bound op. Arrays that a method returns belong to the layer and live until that method's next call.

    parameters, gradients, state: dicts name -> array; writing into the arrays is allowed.
    call_number: the number that the next training forward of a random op draws with; counts up by itself.
    """

    def __init__(
        self,
        op: Op,
        input_shape: Any,
        device: "str | devices.Device" = "cpu",
        dtype: str = "float32",
        memory_format: str = "channels_first",
        seed: int = 0,
        inits: dict[str, Any] | None = None,
    ):
        if memory_format not in FORMATS:
            raise ParameterError("memory_format", f"one of {', '.join(FORMATS)}", memory_format)
        self.op, self.dtype, self.memory_format, self.seed = op, dtype, memory_format, seed
        self.device = devices.get(device)
        storage.check(dtype, op, self.device.name)
        self.input_shapes = input_shapes_of(op, input_shape)
        formats = op.formats_on(self.device.name)
        self.format = memory_format if memory_format in formats else formats[0]
        self.call_number = 0
        self.parameters: dict[str, Any] = {}
        self.gradients: dict[str, Any] = {}
        self.state: dict[str, Any] = {}
        self._memory: dict[str, Any] = {}
        self._bindings: dict[int, Binding] = {}
        self._exact: tuple[str, Shape, np.dtype[Any]] | None = None
        binding = self._bind(self.input_shapes)
        own = storage.computed(dtype)
        for name, array in binding.plan.parameters.items():
            values = initial_values(array, (inits or {}).get(name), seed, name)
            self.parameters[name] = self.device.array(values, array.dtype or own)
            self.gradients[name] = self.device.array(np.zeros(array.shape), array.dtype or own)
        for name, array in binding.plan.state.items():
            self.state[name] = self.device.array(initial_values(array, None, seed, name), array.dtype or own)
        self._attach_parameters(binding)
        self._use(binding)

    # -- shapes -----------------------------------------------------------------------------------------------

    @property
    def output_shape(self) -> Any:
        """The logical output shape; for several outputs a tuple of shapes."""
        shapes = tuple(y.shape for y in self._binding.outputs.values())
        return shapes[0] if len(shapes) == 1 else shapes

    def _bind(self, shapes: tuple[Shape, ...]) -> Binding:
        op = self.op
        # The output and its gradient, the input gradients and scratch are carved from memory that is kept by name,
        # so that a smaller batch is a view and only a larger one allocates.
        dtypes = getattr(op, "input_dtypes", None) or (self.dtype,) * len(shapes)
        # An op names the dtypes of its inputs where they are not the layer's own (None).
        tensors = tuple(Tensor(tuple(s), d or self.dtype) for s, d in zip(shapes, dtypes, strict=False))
        binding = Binding(
            op,
            tensors,
            path=op.name,
            dtype=self.dtype,
            format=self.format,
            device=self.device,
            seed=self.seed,
            **self._epilogue(),
        )
        for name, tensor in binding.outputs.items():
            binding.attach(name, self._carve(name, binding.physical(tensor), tensor.dtype))
        binding.attach_inputs(
            tuple(
                self._carve(f"d{k}", binding.physical(x), x.dtype) if storage.is_float(x.dtype) else None
                for k, x in enumerate(tensors)
            ),
            prefix="d",
        )
        for name, (shape, dtype) in binding.arrays().items():
            binding.attach(name, self._carve(name, shape, dtype))
        self._attach_parameters(binding)
        return binding

    def _epilogue(self) -> dict[str, Any]:
        """What a Binding is told of the elementwise ops behind this one: a layer by itself has none."""
        return {"constants": getattr(self.op, "constants", ())}

    def _attach_parameters(self, binding: Binding) -> None:
        for name, array in self.parameters.items():
            binding.attach(name, array)
            binding.attach("d" + name, self.gradients[name])
        for name, array in self.state.items():
            binding.attach(name, array)

    def _carve(self, key: str, shape: Shape, dtype: str) -> Any:
        kind = storage.array_dtype(dtype)
        nbytes = math.prod(shape) * kind.itemsize
        if key not in self._memory or self._memory[key].nbytes < nbytes:
            self._memory[key] = self.device.empty(nbytes)
            self._bindings.clear()  # bindings of other batch sizes point at the memory that was replaced
        return self._memory[key][:nbytes].view(kind).reshape(shape)

    def _use(self, binding: Binding) -> None:
        self._binding = binding
        self._bindings[binding.t.batch] = binding
        t = self._t = binding.t
        self._run = binding.run_forward
        self._y = tuple(
            self._given_out(name, binding.outputs[name].shape, getattr(t, name)) for name in binding.outputs
        )
        self._single = self._y[0] if len(self._y) == 1 else None
        self._direct = self.format == self.memory_format or all(
            same_memory(x.shape) for x in (*binding.inputs, *binding.outputs.values())
        )
        self._exact = None
        if (
            len(binding.inputs) == 1
            and not binding.variadic
            and self._single is not None
            and not self.op.is_view
        ):
            x = binding.inputs[0]
            first = self.format == "channels_first" or len(x.shape) < 3
            if first and self._direct and self.device.name == "cpu":
                self._exact = (binding.input_names[0], x.shape, storage.array_dtype(x.dtype))

    def _given_out(self, key: str, shape: Shape, array: Any) -> Any:
        """The logical view that callers get: of the kernel's own array, or of a copy in the format asked for."""
        if self.format == self.memory_format or same_memory(shape):
            return logical_view(array, self.format)
        copy = self._carve(f"{key} converted", physical_shape(shape, self.memory_format), str(array.dtype))
        return logical_view(copy, self.memory_format)

    # -- running ----------------------------------------------------------------------------------------------

    def forward(self, *inputs: Any, training: bool = True) -> Any:
        """The op's output for logical inputs of the declared shapes (any batch size); a tuple for several outputs.

        Inputs may be anything that speaks DLPack or an array interface; they are kept by reference until backward.
        Raises ShapeError when they do not fit.
        """
        if len(inputs) == 1 and self._exact is not None:
            # An array just as declared, the usual case: nothing to adopt, cast, stage or convert.
            name, shape, dtype = self._exact
            x = inputs[0]
            if type(x) is np.ndarray and x.shape == shape and x.dtype == dtype and x.flags.c_contiguous:
                t = self._t
                setattr(t, name, x)
                t.call, t.training = self.call_number, training
                self.call_number += training
                self._run(t)
                return self._single
        binding = self._binding
        if len(inputs) != len(binding.inputs):
            raise ShapeError(f"{self.op.name}: expected {len(binding.inputs)} inputs, got {len(inputs)}")
        adopted = [self.device.adopt(x) for x in inputs]
        if tuple(adopted[0].shape) != binding.inputs[0].shape or len(adopted) > 1:
            binding = self._fit(adopted)
        t = binding.t
        physical = tuple(
            self._physical(x, tensor, f"x{k}")
            for k, (x, tensor) in enumerate(zip(adopted, binding.inputs, strict=True))
        )
        binding.attach_inputs(physical)
        t.call = self.call_number
        self.call_number += training
        if self.op.is_view:
            t.y[...] = physical[0].reshape(t.y.shape)
        else:
            binding.forward(training)
        if not self._direct:
            self._convert_outputs(binding)
        return self._y if self._single is None else self._single

    def backward(self, *gradients: Any) -> Any:
        """The gradient of the loss to the inputs, from its gradient to the output; a tuple for several inputs.

        Overwrites the parameter gradients. May be called again after one forward. Raises ShapeError when the
        gradient's shape is not the output's, ParameterError when the op has no gradient.
        """
        binding = self._binding
        t = binding.t
        if not binding.differentiable:
            raise ParameterError("backward", f"an op with a gradient ({self.op.name} has none)", self.op.name)
        if not gradients or not hasattr(t, binding.input_names[0]):
            raise ShapeError(f"{self.op.name}: backward needs the output's gradient, after a forward")
        tensor = next(iter(binding.outputs.values()))
        dy = self.device.adopt(gradients[0])
        if tuple(dy.shape) != tensor.shape:
            raise ShapeError(
                f"{self.op.name}: expected a gradient of the output's shape {tensor.shape}, got {tuple(dy.shape)}"
            )
        t.dy = self._physical(dy, tensor, "dy")
        if self.op.is_view:
            t.dx[...] = t.dy.reshape(t.dx.shape)
        else:
            binding.backward()
        found = getattr(t, "d" + binding.input_names[0]) if binding.variadic else None
        arrays = found if found is not None else tuple(getattr(t, "d" + n) for n in binding.input_names)
        out = tuple(
            None if a is None else self._converted(f"d{k}", x.shape, a, binding)
            for k, (a, x) in enumerate(zip(arrays, binding.inputs, strict=True))
        )
        return out[0] if len(out) == 1 else out

    def _fit(self, arrays: list[Any]) -> Binding:
        """The binding for arrays of these shapes: only the batch may differ from what was declared."""
        for declared, array in zip(self.input_shapes, arrays, strict=True):
            if array.ndim != len(declared) or tuple(array.shape[1:]) != tuple(declared[1:]):
                raise ShapeError(
                    f"{self.op.name}: expected an input of shape (N, {', '.join(map(str, declared[1:]))}), "
                    f"got {tuple(array.shape)}; only the batch size may differ from input_shape"
                )
        shapes = tuple(tuple(a.shape) for a in arrays)
        found = self._bindings.get(shapes[0][0])
        if found is None or any(x.shape != s for x, s in zip(found.inputs, shapes, strict=True)):
            found = self._bind(shapes)
        if found is not self._binding:
            self._use(found)
        return found

    def _physical(self, array: Any, tensor: Tensor, key: str) -> Any:
        """The array in the kernel's memory order and dtype: itself where it fits, else a copy."""
        view = physical_view(array, self.format)
        kind = storage.array_dtype(tensor.dtype)
        if array.dtype == kind and view.flags.c_contiguous:
            return view
        bits = tensor.dtype == "bfloat16" and array.dtype != kind  # floats, to be rounded to bfloat16's bits
        target = np.dtype(np.float32) if bits else kind
        if not np.can_cast(np.dtype(str(array.dtype)), target, "same_kind"):
            raise ParameterError("dtype", f"an array that casts to {tensor.dtype}", str(array.dtype))
        copy = self._carve(f"{key} staged", physical_shape(tensor.shape, self.format), tensor.dtype)
        other = FORMATS[self.format == FORMATS[0]]
        whole = tensor.dtype not in storage.STORED and array.dtype == kind
        if whole and array.ndim > 2 and physical_view(array, other).flags.c_contiguous:
            convert(self._binding.t, physical_view(array, other), copy, tensor.shape, other)
        else:
            copy[...] = storage.to_bits(view) if bits else view
        return copy

    def _convert_outputs(self, binding: Binding) -> None:
        for (name, tensor), out in zip(binding.outputs.items(), self._y, strict=True):
            if not same_memory(tensor.shape):
                convert(
                    binding.t,
                    getattr(binding.t, name),
                    physical_view(out, self.memory_format),
                    tensor.shape,
                    self.format,
                )

    def _converted(self, key: str, shape: Shape, array: Any, binding: Binding) -> Any:
        out = self._given_out(key, shape, array)
        if self.format != self.memory_format and not same_memory(shape):
            convert(binding.t, array, physical_view(out, self.memory_format), shape, self.format)
        return out


def input_shapes_of(op: Op, input_shape: Any) -> tuple[Shape, ...]:
    """One shape for each input, from a shape or a list of them. Raises ShapeError."""
    given = list(input_shape)
    several = bool(given) and not isinstance(given[0], int | np.integer)
    shapes = tuple(tuple(int(n) for n in s) for s in (given if several else [given]))
    expected = None if op.inputs and op.inputs[0].startswith("*") else len(op.inputs)
    if expected is not None and len(shapes) != expected:
        raise ShapeError(
            f"{op.name}: expected {expected} input shapes ({', '.join(op.inputs)}), got {len(shapes)}"
        )
    for shape in shapes:
        if not shape or any(n < 0 for n in shape):
            raise ShapeError(
                f"{op.name}: expected a shape (N, C, *spatial) of whole numbers >= 0, got {shape}"
            )
    return shapes
