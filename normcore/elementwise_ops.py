"""Elementwise ops: two scalar functions become a CPU kernel, a CUDA kernel and a stage of any fused kernel.

A class decorated with @elementwise holds, besides its docstring and its parameters,
    forward(x, *parameters)         the value of one element
    derivative(x, y, *parameters)   dy/dx; it may use the input x, the output y, or both; left out, it is derived
Two inputs are declared by naming them, forward(a, b), with derivative_a(a, b, y) and derivative_b(a, b, y).
Beside them may stand reference(x, *parameters) in NumPy and in_torch(torch, x, *parameters), for tests and benches.
A parameter of a Literal type selects functions instead of being passed: forward_<value>, derivative_<value>.
"""

import difflib
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

from normcore.elementwise_kernels import Chain, ChainKernels, Scalars, kernels
from normcore.errors import PluginError, ShapeError, nearest
from normcore.kernels.function import Function, read
from normcore.kernels.packs import PACK_BYTES
from normcore.op import Op, Plan, Tensor, check_attributes


class ElementwiseOp(Op):
    """Base of the ops that @elementwise makes, and of fused chains of them (FusedChain)."""

    formats: ClassVar[tuple[str, ...]] = ("channels_last", "channels_first")
    scalars: ClassVar[Mapping[str, Scalars]]  # by the value of `choice`, or "" when there is none
    is_elementwise: ClassVar[bool] = True
    stores_16_bits: ClassVar[bool] = True
    choice: ClassVar[str] = ""
    reference_function: ClassVar[Callable[..., Any] | None] = None
    torch_function: ClassVar[Callable[..., Any] | None] = None

    def stages(self) -> tuple[tuple[Scalars, tuple[float, ...]], ...]:
        """Scalar functions with the values of their parameters."""
        chosen = self.scalars[getattr(self, self.choice) if self.choice else ""]
        return ((chosen, tuple(float(getattr(self, name)) for name in chosen.parameters)),)

    @cached_property
    def chain(self) -> Chain:
        return Chain(tuple(stage for stage, _ in self.stages()))

    @cached_property
    def kernels(self) -> "ChainKernels":
        return kernels(self.chain)

    @property
    def constants(self) -> tuple[float, ...]:
        return tuple(value for _, values in self.stages() for value in values)

    @property
    def backward_needs(self) -> tuple[str, ...]:  # type: ignore[override]
        return tuple(sorted(self.chain.uses))

    def plan(self, *inputs: Tensor) -> Plan:
        if len({tensor.shape for tensor in inputs}) > 1:
            shapes = " and ".join(str(tensor.shape) for tensor in inputs)
            raise ShapeError(f"{self.name}: all inputs need one shape, got {shapes}")
        return Plan(y=inputs[0].shape, flops=inputs[0].size * len(self.stages()))

    def forward_cpu(self, t: Any) -> None:
        self.kernels.forward[t](*self._inputs(t), t.y.reshape(-1), t.e)

    def backward_cpu(self, t: Any) -> None:
        self.kernels.backward[t](*self._backward_arrays(t), t.e)

    def forward_cuda(self, t: Any) -> None:
        self.kernels.forward_cuda[t, _packs(t.y)](*self._inputs(t), t.y.reshape(-1), t.e)

    def backward_cuda(self, t: Any) -> None:
        self.kernels.backward_cuda[t, _packs(t.y)](*self._backward_arrays(t), t.e)

    def _inputs(self, t: Any) -> list[Any]:
        return [getattr(t, name).reshape(-1) for name in self.inputs]

    def _backward_arrays(self, t: Any) -> list[Any]:
        uses = self.chain.uses
        arrays = self._inputs(t) if "x" in uses else []
        if "y" in uses:
            arrays.append(t.y.reshape(-1))
        arrays.append(t.dy.reshape(-1))
        # The engine wants the gradients of all inputs of an elementwise op or of none.
        return [*arrays, *(getattr(t, "d" + name).reshape(-1) for name in self.inputs)]

    def reference(self, *inputs: Any, **arrays: Any) -> Any:
        if self.reference_function is None:
            return super().reference(*inputs, **arrays)
        return self.reference_function(*inputs, **self.hyperparameters())

    def in_torch(self, torch: Any, *inputs: Any, training: bool, **arrays: Any) -> Any:
        if self.torch_function is None:
            return super().in_torch(torch, *inputs, training=training, **arrays)
        return self.torch_function(torch, *inputs, **self.hyperparameters())

    @classmethod
    def has_torch(cls) -> bool:
        return cls.torch_function is not None


class FusedChain(ElementwiseOp, name="fused_chain"):
    """Several elementwise ops in one pass; made by the graph's fusion, not by users."""

    ops: tuple[Any, ...] = ()

    def stages(self) -> tuple[tuple[Scalars, tuple[float, ...]], ...]:
        return tuple(stage for op in self.ops for stage in op.stages())

    @property
    def inputs(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.ops[0].inputs  # type: ignore[no-any-return]

    @property
    def shares_gradient(self) -> bool:  # type: ignore[override]
        return False

    def reference(self, *inputs: Any, **arrays: Any) -> Any:
        for op in self.ops:
            inputs = (op.reference(*inputs),)
        return inputs[0]


def elementwise(
    definition: type | None = None,
    *,
    name: str = "",
    aliases: tuple[str, ...] = (),
    source: str = "",
    learnable: tuple[str, ...] = (),
    **attributes: Any,
) -> Any:
    """Make an elementwise op from a class of scalar functions; see the module's docstring.

    name: the registry's name (default: the class's). source: the paper. learnable: parameters that are learned,
    each one number for the whole layer; their fields give the first values (elementwise_learnable.py). Further
    keywords set class attributes of the op (shares_gradient=True, commutes_with_max=True). Raises PluginError when
    functions are missing.
    """
    if definition is None:
        return lambda d: elementwise(
            d, name=name, aliases=aliases, source=source, learnable=learnable, **attributes
        )
    op_name = name or definition.__name__
    members = vars(definition)
    hints = typing.get_type_hints(definition)
    choice = next((key for key, hint in hints.items() if typing.get_origin(hint) is typing.Literal), "")
    values = typing.get_args(hints[choice]) if choice else ("",)
    _check_fields(op_name, members, hints)
    passed = tuple(key for key in hints if key != choice)
    scalars = {value: _scalars(op_name, members, passed, str(value), learnable) for value in values}
    _known_functions(op_name, members, next(iter(scalars.values())), values)
    first = next(iter(scalars.values()))
    namespace: dict[str, Any] = {
        "__doc__": inspect.cleandoc(definition.__doc__ or ""),
        "__module__": definition.__module__,
        "__annotations__": hints,
        "scalars": scalars,
        "choice": choice,
        "inputs": first.inputs,
        "definition": definition,
        **{key: members[key] for key in hints if key in members},
        **{
            key: members[key] for key in ("samples", "error_samples", "benchmarks", "check") if key in members
        },
        **attributes,
    }
    if "reference" in members:
        namespace["reference_function"] = staticmethod(members["reference"])
    if "in_torch" in members:
        namespace["torch_function"] = staticmethod(members["in_torch"])
    base: type = ElementwiseOp
    extra: dict[str, Any] = {"name": op_name, "aliases": aliases, "source": source}
    if learnable:
        from normcore.elementwise_learnable import LearnableElementwise as base

        extra["learnable"] = learnable
    check_attributes(op_name, base, attributes, ("name", "aliases", "source", "learnable"))
    return type(definition.__name__, (base,), namespace, **extra)


def _scalars(
    op: str,
    members: Mapping[str, Any],
    parameters: tuple[str, ...],
    choice: str,
    learnable: tuple[str, ...],
) -> Scalars:
    def function(stem: str) -> Callable[..., Any] | None:
        found = members.get(f"{stem}_{choice}") if choice else None
        return inspect.unwrap(found) if found else members.get(stem)

    forward = function("forward")
    if forward is None:
        raise PluginError(
            f"elementwise op {op!r} needs a function forward(x{''.join(', ' + p for p in parameters)})"
        )
    arguments = _arguments(forward)
    inputs = tuple(a for a in arguments if a not in parameters)
    used = tuple(a for a in arguments if a in parameters)
    if "self" in arguments:
        raise PluginError(
            f"elementwise op {op!r}: forward takes no self, but x and the fields that it uses by name"
        )
    close = difflib.get_close_matches(inputs[-1], parameters, n=1, cutoff=0.75) if len(inputs) > 1 else []
    if close:
        raise PluginError(
            f"elementwise op {op!r}: {inputs[-1]!r} is no field of it; did you mean {close[0]!r}?"
        )
    if not inputs or arguments != inputs + used:
        raise PluginError(
            f"elementwise op {op!r}: forward takes its inputs first, then parameters; got {arguments}"
        )
    stems = ["derivative"] if len(inputs) == 1 else [f"derivative_{name}" for name in inputs]
    wanted = dict(zip(inputs, stems, strict=True)) | {name: f"derivative_{name}" for name in learnable}
    if not set(learnable) <= set(used):
        raise PluginError(
            f"elementwise op {op!r}: learnable names {learnable}, forward's parameters are {used}"
        )
    source = read(forward, f"{op}_forward", scalar=True)
    derivatives: dict[str, Function] = {}
    for by, stem in wanted.items():
        derivative = function(stem)
        if derivative is None:
            from normcore.derivation import Derived  # only authors who leave a derivative out wait for it

            derivatives[by] = Derived(source, by, f"{op}_{stem}", stem, inputs, (*inputs, "y", *used))
            continue
        if _arguments(derivative) != (*inputs, "y", *used):
            raise PluginError(
                f"elementwise op {op!r}: {stem} must take {(*inputs, 'y', *used)}, got {_arguments(derivative)}"
            )
        derivatives[by] = read(derivative, f"{op}_{stem}", scalar=True)
    learned = tuple((name, derivatives[name]) for name in learnable)
    return Scalars(op, inputs, used, source, tuple(derivatives[name] for name in inputs), learned)


def _check_fields(op: str, members: Mapping[str, Any], hints: Mapping[str, Any]) -> None:
    """A field without a type would be taken for an input, and a default of another type fail in a kernel."""
    for name, value in members.items():
        number = isinstance(value, int | float)
        if number and name not in hints and not name.startswith("__"):
            kind = type(value).__name__
            raise PluginError(
                f"elementwise op {op!r}: {name} = {value} needs a type to be a field: {name}: {kind} = {value}"
            )
        if hints.get(name) in (int, float) and not number:
            raise PluginError(f"elementwise op {op!r}: {name} must default to a number, got {value!r}")


def _known_functions(op: str, members: Mapping[str, Any], first: Scalars, values: Sequence[Any]) -> None:
    """A misspelt derivative would be derived in silence."""
    stems = [
        "forward",
        *(["derivative"] if len(first.inputs) == 1 else [f"derivative_{i}" for i in first.inputs]),
    ]
    stems += [f"derivative_{name}" for name, _ in first.learned]
    known = {f"{stem}_{value}" for stem in stems for value in values if value} | {*stems, "reference"}
    known |= {"in_torch", "check"}
    for name, member in members.items():
        if inspect.isfunction(member) and not name.startswith("__") and name not in known:
            raise PluginError(
                f"elementwise op {op!r}: it has no use for a function {name!r}{nearest(name, known)}; "
                "move helpers out of the class"
            )


def _arguments(python: Callable[..., Any]) -> tuple[str, ...]:
    return python.__code__.co_varnames[: python.__code__.co_argcount]


def _packs(array: Any) -> int:
    """The threads that a chain's CUDA kernel wants: one for each 16 bytes of an array."""
    return int(-(-array.nbytes // PACK_BYTES))
