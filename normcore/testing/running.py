"""Running one op on one sample: what every check does before it looks at something.

Kernels are compiled as rarely as the checks allow, because compiling is nearly all of the suite's time:
float64 runs serial variants (values and gradients), float32 parallel ones at any size (everything else). The
loops of elementwise ops are the engine's and the same for all of them: those run serial variants only.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from normcore import binding, storage
from normcore.bound_layer import Layer
from normcore.devices.cpu import Cpu
from normcore.elementwise_ops import ElementwiseOp
from normcore.op import Op, Shape
from normcore.testing.derive import gradient_of, inputs_of, parameter_values
from normcore.testing.samples import Sample

GUARD = 4096  # bytes before and behind every array of a guarded run
POISON = 0xFF  # NaN in both float types, -1 or 255 in integers


@dataclass(frozen=True)
class Case:
    """One op on one sample with one seed. shapes: the sample's, or smaller ones to narrow a failure."""

    op: Op
    sample: Sample
    shapes: tuple[Shape, ...]
    seed: int = 0
    device: str = "cpu"

    @classmethod
    def of(cls, op_class: type[Op], sample: Sample, seed: int = 0, device: str = "cpu") -> "Case":
        return cls(op_class.make(**sample.params), sample, sample.input_shapes, seed, device)

    def with_shapes(self, shapes: tuple[Shape, ...]) -> "Case":
        return replace(self, shapes=shapes)

    def with_batch(self, batch: int) -> "Case":
        """The same case with another batch size."""
        return self.with_shapes(tuple((batch, *s[1:]) for s in self.shapes))

    def inputs(self) -> tuple[np.ndarray, ...]:
        return inputs_of(self.op, self.sample, self.shapes, self.seed)

    def layer(
        self,
        dtype: str,
        format: str = "channels_first",
        device: Any = None,
        make: Callable[..., Layer] = Layer,
    ) -> Layer:
        """A layer with moved parameters, with kernels of the variant this suite compiles."""
        with parallel_from(self.threshold(dtype)):
            layer = make(self.op, list(self.shapes), device or self.device, dtype, format, seed=self.seed)
        for arrays, spread in ((layer.parameters, 0.4), (layer.state, 0.2)):
            for name, array in arrays.items():
                values = parameter_values(name, layer.device.to_host(array), self.seed, spread)
                array[...] = layer.device.array(values, str(array.dtype))
        return layer

    def threshold(self, dtype: str) -> int:
        """Elements from which on the op runs parallel kernels here."""
        return 1 << 62 if dtype == "float64" or isinstance(self.op, ElementwiseOp) else 0

    @property
    def differentiable(self) -> bool:
        return self.op.differentiable


@contextlib.contextmanager
def parallel_from(elements: int) -> Iterator[None]:
    """Layers bound inside run parallel kernels from this many elements on."""
    before = binding.PARALLEL_ELEMENTS
    binding.PARALLEL_ELEMENTS = elements
    try:
        yield
    finally:
        binding.PARALLEL_ELEMENTS = before


@dataclass(frozen=True)
class Run:
    """Copies, on the host, of everything that one forward and backward gave."""

    y: tuple[np.ndarray, ...]
    dx: tuple[np.ndarray | None, ...] = ()
    gradients: dict[str, np.ndarray] | None = None
    state: dict[str, np.ndarray] | None = None

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """Every array with the words for a message."""
        for k, y in enumerate(self.y):
            yield ("output" if len(self.y) == 1 else f"output {k}"), y
        for k, dx in enumerate(self.dx):
            if dx is not None:
                yield ("gradient of the input" if len(self.dx) == 1 else f"gradient of input {k}"), dx
        for name, array in (self.gradients or {}).items():
            yield f"gradient of {name}", array
        for name, array in (self.state or {}).items():
            yield f"state {name}", array


class Runner:
    """A layer that can be run again and again from the same state."""

    def __init__(
        self,
        case: Case,
        dtype: str,
        format: str = "channels_first",
        device: Any = None,
        make: Callable[..., Layer] = Layer,
    ):
        self.case, self.dtype = case, dtype
        self.threshold = case.threshold(dtype)
        # Guard zones keep a kernel that writes outside its arrays from taking the process down.
        self.guard = Guarded() if device is None and case.device == "cpu" else None
        self.layer = case.layer(dtype, format, device or self.guard, make)
        self.keep_state()

    def keep_state(self) -> None:
        """Let all runs from now on begin from the running state as it is."""
        self.state = {name: array.copy() for name, array in self.layer.state.items()}

    def own(self) -> dict[str, Any]:
        """Parameters and state together: what a weights file holds."""
        return {**self.layer.parameters, **self.layer.state}

    def cast(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """The inputs in the layer's dtype; integers stay."""
        return tuple(storage.hold(a, self.dtype) if a.dtype.kind == "f" else a for a in inputs)

    def forward(self, inputs: tuple[Any, ...], training: bool | None = None) -> tuple[np.ndarray, ...]:
        """Forward from the initial state with call number 0; copies of the outputs."""
        for name, array in self.state.items():
            self.layer.state[name][...] = array
        self.layer.call_number = 0
        with parallel_from(self.threshold):
            y = self.layer.forward(
                *inputs, training=self.case.sample.training if training is None else training
            )
        return tuple(self.host(a) for a in (y if isinstance(y, tuple) else (y,)))

    def backward(self, dy: Any = None) -> tuple[np.ndarray | None, ...]:
        """Backward with the case's gradient; copies of the input gradients."""
        shape = self.layer.output_shape
        shape = shape if isinstance(shape[0], int) else shape[0]
        dy = self.dy(shape) if dy is None else dy
        dx = self.layer.backward(dy)
        return tuple(None if a is None else self.host(a) for a in (dx if isinstance(dx, tuple) else (dx,)))

    def dy(self, shape: Shape) -> np.ndarray:
        return np.asarray(storage.hold(gradient_of(shape, self.case.seed), self.dtype))

    def run(
        self,
        inputs: tuple[Any, ...],
        training: bool | None = None,
        between: Callable[[], None] | None = None,
        dy: Any = None,
    ) -> Run:
        """Forward and, where the op has one, backward. between: called before backward."""
        y = self.forward(inputs, training)
        state = {name: self.host(a) for name, a in self.layer.state.items()}
        if not self.case.differentiable or (not y[0].size and not self.case.shapes[0][0]):
            return Run(y, state=state)
        if between is not None:
            between()
        dx = self.backward(dy)
        return Run(y, dx, {name: self.host(a) for name, a in self.layer.gradients.items()}, state)

    def host(self, array: Any) -> np.ndarray:
        return np.array(storage.values_of(self.layer.device.to_host(array), self.dtype))

    # -- memory --

    def spoil(self, forward: bool, value: int = POISON) -> None:
        """Fill with NaN (or a byte) what the next forward (or backward) has to overwrite before it reads."""
        plan = self.layer._binding.plan
        for key, memory in self.layer._memory.items():
            gradient = key.startswith("d") and key[1:2].isdigit()
            if forward or gradient or key in plan.workspace:
                memory[...] = value
        if not forward:
            for array in self.layer.gradients.values():
                array.view(np.uint8)[...] = value


class Guarded(Cpu):
    """The CPU with a guard zone around every array that it gives out, and NaN in fresh memory."""

    def __init__(self) -> None:
        self.blocks: list[tuple[np.ndarray, int, int]] = []  # (memory, first byte of the array, its length)
        self.filled = POISON

    def empty(self, nbytes: int) -> np.ndarray:
        raw = np.full(nbytes + 2 * GUARD + 64, self.filled, np.uint8)
        start = GUARD + -(raw.ctypes.data + GUARD) % 64
        raw[start : start + nbytes] = POISON
        self.blocks.append((raw, start, nbytes))
        return raw[start : start + nbytes]

    def array(self, values: Any, dtype: str) -> np.ndarray:
        values = np.asarray(values, dtype)
        out = self.empty(values.nbytes).view(dtype).reshape(values.shape)
        out[...] = values
        return out

    def fill(self, value: int) -> None:
        """Put another byte into every guard zone."""
        self.filled = value
        for raw, start, nbytes in self.blocks:
            raw[:start] = value
            raw[start + nbytes :] = value

    def damage(self) -> str:
        """Where a guard zone was written to, or ""."""
        for raw, start, nbytes in self.blocks:
            before = np.flatnonzero(raw[:start] != self.filled)
            behind = np.flatnonzero(raw[start + nbytes :] != self.filled)
            if before.size:
                return f"{start - int(before[-1])} bytes before an array of {nbytes} bytes"
            if behind.size:
                return f"{int(behind[0])} bytes behind the end of an array of {nbytes} bytes"
        return ""
