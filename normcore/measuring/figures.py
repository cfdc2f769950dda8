"""The figures of a row beside its time: calls to time, bytes that must move, extra memory, dispatch, transfers.

How bytes are counted stands in bench.py.
"""

import math
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from normcore.bound_layer import Layer
from normcore.layout import logical_view, physical_shape, physical_view
from normcore.measuring.cases import BenchCase, scale
from normcore.measuring.timer import interleave

TINY = 64  # elements of the input that shows what a call costs by itself
DISPATCHES = 200


def placed(layer: Layer, array: np.ndarray) -> Any:
    """The logical array on the layer's device, in the layer's memory format."""
    if layer.memory_format == "channels_last" and array.ndim > 2:
        physical = np.ascontiguousarray(physical_view(array, "channels_last"))
        return logical_view(layer.device.array(physical, str(array.dtype)), "channels_last")
    return layer.device.array(array, str(array.dtype))


def calls(
    case: BenchCase, direction: str, layers: list[Layer], inputs: list[tuple[Any, ...]]
) -> list[Callable[[], object]]:
    """A call for each set of inputs. All write their results to the same memory, as PyTorch's do, whose allocator
    hands out again what the call before gave back."""
    if direction == "forward":
        return [forward(layers[0], given, case.training) for given in inputs]
    for layer, given in zip(layers, inputs, strict=True):
        _share_gradients(layer, layers[0])
        forward(layer, given, case.training)()  # backward reads what forward saved
    values = output_gradient(layers[0])
    return [backward(layer, values) for layer in layers]


def _share_gradients(layer: Layer, first: Layer) -> None:
    """Let the layer write its inputs' gradients where the first one does."""
    binding = first._binding
    names = binding.input_names
    found = (
        getattr(binding.t, f"d{names[0]}")
        if binding.variadic
        else tuple(getattr(binding.t, f"d{name}") for name in names)
    )
    layer._binding.attach_inputs(found, prefix="d")


def forward(layer: Layer, inputs: tuple[Any, ...], training: bool) -> Callable[[], object]:
    forward = layer.forward
    if len(inputs) == 1:
        x = inputs[0]
        return lambda: forward(x, training=training)
    return lambda: forward(*inputs, training=training)


def output_gradient(layer: Layer) -> np.ndarray:
    """Random values for the gradient of the layer's output, in the order of its memory format."""
    tensor = next(iter(layer._binding.outputs.values()))
    shape = physical_shape(tensor.shape, layer.memory_format)
    return np.random.default_rng(7).standard_normal(shape, np.float32)


def backward(layer: Layer, values: np.ndarray) -> Callable[[], object]:
    """A call with an array of its own that holds these values, from output_gradient."""
    tensor = next(iter(layer._binding.outputs.values()))
    dy = logical_view(layer.device.array(values, tensor.dtype), layer.memory_format)
    backward = layer.backward
    return lambda: backward(dy)


def moved_bytes(layer: Layer, inputs: Iterable[Any], direction: str) -> int:
    """Bytes that the direction must move, counted as the module's docstring says."""
    op, binding = layer.op, layer._binding
    xs = sum(int(x.nbytes) for x in inputs)
    gradients = sum(int(x.nbytes) for x in inputs if x.dtype.kind == "f")
    ys = sum(y.size * np.dtype(y.dtype).itemsize for y in binding.outputs.values())
    first = next(iter(binding.outputs.values()))
    dy = first.size * np.dtype(first.dtype).itemsize
    parameters = sum(int(p.nbytes) for p in layer.parameters.values())
    if direction == "forward":
        return xs + ys + parameters + sum(int(s.nbytes) for s in layer.state.values())
    needed = ("x" in op.backward_needs) * xs + ("y" in op.backward_needs) * ys
    return dy + gradients + needed + 2 * parameters


def extra_bytes(layer: Layer, call: Callable[[], object]) -> int:
    """The most memory that a call has beyond its inputs, outputs and parameters.

    What the op declares (saved and scratch arrays), copies in another memory format, and on the CPU whatever the
    call allocates by itself (in steady state nothing).
    """
    declared = sum(
        math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in layer._binding.arrays().values()
    )
    staged = sum(int(m.nbytes) for key, m in layer._memory.items() if key.endswith((" staged", " converted")))
    if layer.device.name != "cpu":
        return declared + staged
    call()
    tracemalloc.start(1)
    try:
        held, _ = tracemalloc.get_traced_memory()
        call()
        _, highest = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    allocated = max(0, highest - held)
    return declared + staged + (allocated if allocated > 4096 else 0)  # views and tuples are not memory use


def dispatch_seconds(case: BenchCase) -> dict[str, float]:
    """Seconds of a call on a tiny input, by direction: what is left when there is nothing to compute."""
    cls = type(case.op)
    tiny = scale(cls, case.sample, TINY) or (cls.samples[0] if cls.samples else None)
    if tiny is None or tiny.make is not None:
        return {}
    shapes = [(max(2, s[0]), *s[1:]) for s in tiny.input_shapes]  # one value per channel has no variance
    small = BenchCase(
        cls.make(**tiny.params), tiny, tuple(shapes), case.dtype, case.memory_format, case.device
    )
    layer = Layer(small.op, shapes, case.device, case.dtype, case.memory_format)
    given = tuple(placed(layer, a) for a in small.host_inputs(0))
    calls = {"forward": forward(layer, given, case.training)}
    calls["forward"]()
    if layer._binding.differentiable:
        calls["backward"] = backward(layer, output_gradient(layer))
    return {name: host_seconds(layer.device, call) for name, call in calls.items()}


def host_seconds(device: Any, call: Callable[[], object]) -> float:
    """The host's seconds per call, the median of rounds."""
    call()
    device.synchronize()
    repeats = DISPATCHES if device.name == "cpu" or getattr(device, "title", "") != "simulator" else 3
    rounds = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        rounds.append((time.perf_counter() - started) / repeats)
        device.synchronize()
    return statistics.median(rounds)


def transfer_seconds(layer: Layer, arrays: tuple[np.ndarray, ...]) -> dict[str, float]:
    """Seconds to bring the inputs to the device, and the output back."""
    device = layer.device
    y = next(iter(layer._binding.outputs))
    out = getattr(layer._t, y)

    def to_device() -> None:
        for a in arrays:
            device.array(a, str(a.dtype))
        device.synchronize()

    def to_host() -> None:
        device.to_host(out)

    timing = interleave({"to": to_device, "from": to_host}, rounds=7, seconds=0.5)
    return {"to_device_s": timing.median("to"), "to_host_s": timing.median("from")}
