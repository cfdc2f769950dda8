"""What an op declares: the contract between a layer plugin and the engine.

An op is a frozen description. Its dataclass fields are its hyperparameters; its methods say which arrays it
needs and run its kernels on arrays that the engine allocated. It holds no arrays and allocates none.

Life of an op, and who calls what:
    check()         at construction, once. Raises ParameterError.
    plan(*inputs)   when a layer or network is built, and again for each batch size. Raises ShapeError.
                    Must depend on nothing but the hyperparameters and the given shapes.
    forward_cpu(t)  every forward. `t` (class Tensors) carries the bound arrays by name. Writes every element
    forward_cuda(t) of its outputs, never its inputs, and keeps no state outside `t`.
    backward_cpu(t) after a forward, zero or more times. Overwrites t.dx and the parameter gradients
    backward_cuda(t)(d + name); skips an input gradient that is None.
    reference(...)  by the conformance suite only: plain NumPy in float64, by different algebra.
"""

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from normcore.component import Component
from normcore.errors import PluginError, nearest

INTERFACE_VERSION = 1
FORMATS = ("channels_first", "channels_last")
# Keys that the engine reads beside an op's own parameters, so no op may use them for a parameter.
RESERVED_NAMES = frozenset(
    {"name", "inputs", "input", "x", "y", "t", "g", "seed", "device", "dtype", "memory_format"}
)

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Tensor:
    """An activation as ops see it when they plan: the logical shape (N, C, *spatial) and the dtype's name."""

    shape: Shape
    dtype: str = "float32"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class Array:
    """An array that an op asks the engine for.

    dtype None means the layer's own. init names an initializer (with its parameters as a mapping) and fan is
    (fan_in, fan_out) for those that scale by it; both matter for parameters and state only.
    """

    shape: Shape
    dtype: str | None = None
    init: str | Mapping[str, Any] = "zeros"
    fan: tuple[int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """What one op needs for given input shapes.

    y: the output's logical shape, or several outputs by name.
    parameters, state: learnable and running arrays; their shapes do not depend on the batch size.
    saved: written by forward, read by backward. workspace: scratch, free between any two calls.
    flops: floating-point operations of one forward, for `summary` and `time`.
    """

    y: Shape | Mapping[str, Tensor]
    parameters: Mapping[str, Array] = field(default_factory=dict)
    state: Mapping[str, Array] = field(default_factory=dict)
    saved: Mapping[str, Array] = field(default_factory=dict)
    workspace: Mapping[str, Array] = field(default_factory=dict)
    flops: int = 0

    def outputs(self, dtype: str) -> dict[str, Tensor]:
        if isinstance(self.y, Mapping):
            return dict(self.y)
        return {"y": Tensor(tuple(self.y), dtype)}


class Tensors:
    """The arrays of one bound layer, by name, in physical memory order. Filled by the engine.

    Always: x (or the op's own input names, or xs), y (or output names), dy, dx (None: not wanted), parameters
    with their gradients (gamma, dgamma), state, saved and workspace arrays, and
    training: bool; dtype: str; format: "channels_first" (N, C, *S) or "channels_last" (N, *S, C); batch: N;
    key: uint64 Philox key; call: the call number; e: constants of the fused epilogue; variant: selects kernels;
    with epilogue = "output" also z: None, or where forward keeps the value before the epilogue for backward.
    """

    variant: Any
    training: bool
    calibrating: int  # 0, or the number of this batch in a pass that gathers population statistics
    path: str
    dtype: str
    format: str
    batch: int
    key: Any  # numpy.uint64
    call: int
    e: tuple[Any, ...]
    z: Any
    device: Any
    dy: Any
    shape: Shape  # of the first input, logical

    def __getattr__(
        self, name: str
    ) -> Any:  # only reached for names never bound: say so in the op's own words
        raise AttributeError(f"no array {name!r} was planned; bound: {', '.join(sorted(vars(self)))}")


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Op(Component):
    """Base class of every op; see the module's docstring for who calls what.

    Class keywords: name (the registry's name), aliases, learnable (names of the learnable arrays, which brings
    the YAML keys `<array>_init`), source (paper). Class attributes below may be overridden.
    """

    kind: ClassVar[str] = "op"
    learnable: ClassVar[tuple[str, ...]] = ()
    source: ClassVar[str] = ""
    interface: ClassVar[int] = INTERFACE_VERSION
    inputs: ClassVar[tuple[str, ...]] = ("x",)  # ("*xs",) takes any number
    formats: ClassVar[tuple[str, ...]] = ("channels_first",)  # memory formats its kernels take, best first
    cuda_formats: ClassVar[tuple[str, ...]] = ()  # the same of its CUDA kernels, where they take others
    backward_needs: ClassVar[tuple[str, ...]] = ("x",)  # which of x, y backward reads
    stochastic: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True
    needs_batch: ClassVar[bool] = False  # training statistics over the batch: more than one value per channel
    calibrates: ClassVar[tuple[str, ...]] = ()  # state that a pass with t.calibrating gathers anew, from zero
    # Takes a fused elementwise chain: y = epilogue(z), dz = epilogue_gradient(z, y, dy). With "input" backward knows z, by
    # computing it again. With "output" it knows y; where the chain's derivative does not follow from y, t.z is an array
    # like y, into which forward writes z and from which backward takes it instead of y. Otherwise t.z is None.
    epilogue: ClassVar[str | None] = None
    picks_extremes: ClassVar[bool] = (
        False  # each y is the largest, or each the smallest, of some of x's elements
    )
    commutes_with_max: ClassVar[bool] = (
        False  # elementwise, non-decreasing; where it makes ties its derivative is 0
    )
    is_elementwise: ClassVar[bool] = False  # reads and writes one element at a time, in any memory order
    stores_16_bits: ClassVar[bool] = False  # its CUDA kernels take float16 and bfloat16 arrays (storage.py)
    shares_gradient: ClassVar[bool] = (
        False  # dx of every input is dy itself: the engine passes it on, no kernel
    )
    role: ClassVar[str] = ""  # "add", "concat" or "scale": what residual and branches are built from
    is_view: ClassVar[bool] = False  # y is x's memory under another shape: the engine makes no copy
    samples: ClassVar[tuple[Any, ...]] = ()
    error_samples: ClassVar[tuple[Any, ...]] = ()
    benchmarks: ClassVar[tuple[Any, ...]] = ()  # Samples at the sizes users meet, for `normcore bench`

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        aliases: tuple[str, ...] = (),
        learnable: tuple[str, ...] | None = None,
        source: str | None = None,
        **kwargs: Any,
    ):
        super().__init_subclass__(name=name, aliases=aliases, **kwargs)
        if learnable is not None:
            cls.learnable = tuple(learnable)
        if source is not None:
            cls.source = source
        for f in dataclasses.fields(cls):  # type: ignore[arg-type]
            if f.name in RESERVED_NAMES:
                raise PluginError(f"op {name!r}: parameter {f.name!r} is a name the engine uses; rename it")

    def plan(self, *inputs: Tensor) -> Plan:
        raise PluginError(f"op {self.name!r} declares no plan(); see plugins/README.md")

    def reference(self, *inputs: Any, **arrays: Any) -> Any:
        raise PluginError(f"op {self.name!r} has no float64 reference; `normcore check` needs one")

    def in_torch(self, torch: Any, *inputs: Any, training: bool, **arrays: Any) -> Any:
        """The same op in PyTorch, for the peer tests and `normcore bench --against torch`.

        torch: the module. inputs: logical torch tensors of any device, dtype and memory format. arrays: parameters
        and state by name, as torch tensors; state may be written. Returns the output, or a tuple of outputs.
        An op that PyTorch does not have leaves this out; for parameters that PyTorch lacks it raises
        NotImplementedError with the reason.
        """
        raise PluginError(f"op {self.name!r} names no counterpart in PyTorch (method in_torch)")

    def refused(self, x: Any) -> tuple[Any, str] | None:
        """What of the data no forward would take, for an op that reads samples as they come: asked at a run's start.

        x: a batch of its first input (N, ...) on the host, in the net's dtype. Returns (bool (N,), True for each sample
        that forward would refuse; what is wrong with one, as "holds only padding"), or None when it takes all there are.
        """
        return None

    @classmethod
    def formats_on(cls, device: str) -> tuple[str, ...]:
        """The memory formats that its kernels for "cpu" or "cuda" take, best first."""
        return cls.cuda_formats or cls.formats if device == "cuda" else cls.formats

    @classmethod
    def has_torch(cls) -> bool:
        return cls.in_torch is not Op.in_torch

    @classmethod
    def has_cuda(cls) -> bool:
        return hasattr(cls, "forward_cuda")


def check_attributes(op: str, base: type, attributes: Iterable[str], options: Iterable[str]) -> None:
    """Raises PluginError for a keyword of a decorator (elementwise, normalization, pooling) that is neither one of its
    options nor a class attribute of the ops that it makes."""
    known = {name for cls in base.__mro__ for name in (*vars(cls), *vars(cls).get("__annotations__", ()))}
    for key in attributes:
        if key not in known:
            names = [name for name in (*known, *options) if not name.startswith("_")]
            raise PluginError(f"{op}: no option is called {key!r}{nearest(key, names)}")
