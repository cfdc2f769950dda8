"""Gated units: the first half of an axis times an activation of the second half.

An axis of 2 H entries in memory is (outer, 2 H, inner), so the halves of each outer part are two contiguous runs of
L = H inner numbers, whatever the axis and the memory format: y (O, L) from x (O, 2, L), with vectors all along.
`gated_kernels` writes the four kernels of one op from the gate's scalar functions, which are those of the elementwise
op of that name.
"""

from typing import NamedTuple

from normcore import Op, ParameterError, Plan, ShapeError, Tensor
from normcore.elementwise_kernels import Scalars
from normcore.kernels import CudaKernel, Kernel, cpu, cu, cuda, inline, prange
from normcore.kernels.function import Function, read
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import AHEAD, SHORT, prefetch_lines
from normcore.kernels.streaming import STREAM_BLOCK, either_way, leaves_cache
from normcore.kernels.window import window
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.over_axis import logical_axis, physical_axis, split

CHUNK = 16384  # outputs a task takes: 64 KB of float32

SAMPLES = (
    Sample("channels of a feature map", shape=(2, 6, 3, 7)),
    Sample("features", shape=(5, 14)),
    Sample("the last axis of a sequence", shape=(2, 3, 10), params={"axis": -1}),
    Sample("the batch axis", shape=(4, 3), params={"axis": 0}),
    Sample("a vector", shape=(34,), params={"axis": 0}),
    Sample("an inner axis of a volume", shape=(2, 3, 2, 4, 3), params={"axis": 3}),
    Sample("gates far out", shape=(3, 12), low=-30.0, high=30.0),
)
BENCHMARKS = (
    Sample("a transformer's features", shape=(8192, 2048), params={"axis": -1}),
    Sample("channels of large maps", shape=(32, 96, 55, 55)),
    Sample("channels of small maps", shape=(32, 256, 14, 14)),
    Sample("features", shape=(128, 1000)),
)
ERRORS = (
    ErrorSample("an odd number of channels has no halves", {}, (2, 5, 3), "even"),
    ErrorSample("no such axis", {"axis": 3}, (2, 4, 4), "axis 3"),
    ErrorSample("no whole number", {"axis": 0.5}, None, "axis"),
)


class GatedKernels(NamedTuple):
    forward: Kernel
    backward: Kernel
    forward_cuda: CudaKernel
    backward_cuda: CudaKernel


def gated_kernels(scalars: Scalars, *parameters: float) -> GatedKernels:
    """Kernels of y = a gate(b) with da = dy gate(b), db = dy a slope(b, gate(b)).

    scalars: the gate, an elementwise op's; parameters: their values, in its order.
    """
    value, derivative = inlined(scalars.forward), inlined(scalars.derivatives[0])
    given = "".join(f", {p!r}" for p in parameters)
    gate = Function("gate", f"def gate(b):\n    return value(b{given})\n", {"value": value}, force=True)
    slope = Function(
        "slope", f"def slope(b, v):\n    return of(b, v{given})\n", {"of": derivative}, force=True
    )

    @inline
    def forward_run(a, b, y):
        for i in range(y.size):
            y[i] = a[i] * gate(b[i])
            line_by_line()

    @inline
    def backward_run(a, b, dy, da, db):
        for i in range(dy.size):
            v = gate(b[i])
            da[i] = dy[i] * v
            db[i] = dy[i] * a[i] * slope(b[i], v)
            line_by_line()

    forward_part = either_way(forward_run, read=["a", "b"], written=["y"])
    backward_part = either_way(backward_run, read=["a", "b", "dy"], written=["da", "db"])

    @cpu
    def gated_forward(x, y, length):
        pieces = (length + CHUNK - 1) // CHUNK
        group = max(1, CHUNK // length)  # short runs share a task
        outer = y.size // length
        far = length >= STREAM_BLOCK and leaves_cache(y)
        for task in prange((outer + group - 1) // group * pieces):
            first = task // pieces * group
            lo = task % pieces * CHUNK
            hi = min(length, lo + CHUNK)
            for o in range(first, min(outer, first + group)):
                at, beside = 2 * o * length, (2 * o + 1) * length
                if length <= SHORT:  # the halves are read a line of each in turn
                    prefetch_lines(x, at + AHEAD, 2 * length)
                a, b = window(x, at + lo, at + hi), window(x, beside + lo, beside + hi)
                forward_part(a, b, window(y, o * length + lo, o * length + hi), far)

    @cpu
    def gated_backward(x, dy, dx, length):
        pieces = (length + CHUNK - 1) // CHUNK
        group = max(1, CHUNK // length)
        outer = dy.size // length
        far = length >= STREAM_BLOCK and leaves_cache(dx)
        for task in prange((outer + group - 1) // group * pieces):
            first = task // pieces * group
            lo = task % pieces * CHUNK
            hi = min(length, lo + CHUNK)
            for o in range(first, min(outer, first + group)):
                at, beside = 2 * o * length, (2 * o + 1) * length
                if length <= SHORT:
                    prefetch_lines(x, at + AHEAD, 2 * length)
                    prefetch_lines(dy, o * length + AHEAD // 2, length)
                a, b = window(x, at + lo, at + hi), window(x, beside + lo, beside + hi)
                da, db = window(dx, at + lo, at + hi), window(dx, beside + lo, beside + hi)
                backward_part(a, b, window(dy, o * length + lo, o * length + hi), da, db, far)

    @cuda
    def gated_forward_cuda(x, y):
        length = y.shape[1]
        for k in range(cu.grid(1), y.size, cu.gridsize(1)):
            o = k // length
            i = k - o * length
            y[o, i] = x[o, 0, i] * gate(x[o, 1, i])

    @cuda
    def gated_backward_cuda(x, dy, dx):
        length = dy.shape[1]
        for k in range(cu.grid(1), dy.size, cu.gridsize(1)):
            o = k // length
            i = k - o * length
            b = x[o, 1, i]
            v = gate(b)
            g = dy[o, i]
            dx[o, 0, i] = g * v
            dx[o, 1, i] = g * x[o, 0, i] * slope(b, v)

    return GatedKernels(gated_forward, gated_backward, gated_forward_cuda, gated_backward_cuda)


def inlined(function: Function) -> Function:
    """An elementwise op's scalar function, inlined whatever its size: a call left in a loop keeps it from vectorizing."""
    assert function.python is not None
    return read(function.python, function.name, scalar=True, force=True)


class Gated(Op):
    """Base of the gated units; a subclass names its `kernels` and what the gate is to NumPy and torch."""

    axis: int = 1

    formats = ("channels_first", "channels_last")
    samples, error_samples, benchmarks = SAMPLES, ERRORS, BENCHMARKS
    cost = 32  # floating-point operations per output, about

    def check(self):
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise ParameterError("axis", "a whole number, negative ones counted from the end", self.axis)

    def plan(self, x: Tensor) -> Plan:
        axis = logical_axis(self.name, self.axis, x.shape)
        if x.shape[axis] % 2:
            raise ShapeError(
                f"{self.name}: axis {self.axis} of {x.shape} has {x.shape[axis]} entries; an even number is needed, "
                "since one half is multiplied with the activation of the other"
            )
        y = (*x.shape[:axis], x.shape[axis] // 2, *x.shape[axis + 1 :])
        return Plan(y=y, flops=self.cost * x.size // 2)

    def forward_cpu(self, t):
        if t.y.size:
            length = self._length(t, t.y)
            self.kernels.forward[t](t.x.reshape(-1), t.y.reshape(-1), length)

    def backward_cpu(self, t):
        if t.dx is not None and t.dx.size:
            length = self._length(t, t.dy)
            self.kernels.backward[t](t.x.reshape(-1), t.dy.reshape(-1), t.dx.reshape(-1), length)

    def forward_cuda(self, t):
        if t.y.size:
            x, y = self._halves(t, t.x, t.y)
            self.kernels.forward_cuda[t, y.size](x, y)

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            x, dy, dx = self._halves(t, t.x, t.dy, t.dx)
            self.kernels.backward_cuda[t, dy.size](x, dy, dx)

    def _length(self, t, y):
        """L: how many numbers of y lie together."""
        _, size, inner = split(y.shape, physical_axis(self.axis % y.ndim, y.ndim, t.format))
        return size * inner

    def _halves(self, t, x, y, *more):
        """Arrays like x as (O, 2, L), the one like y as (O, L)."""
        length = self._length(t, y)
        return x.reshape(-1, 2, length), y.reshape(-1, length), *(a.reshape(-1, 2, length) for a in more)

    def reference(self, x, **arrays):
        a, b = np_halves(x, self.axis)
        return a * self.gate_reference(b)

    def in_torch(self, torch, x, *, training, **arrays):
        a, b = x.chunk(2, self.axis)
        return a * self.gate_torch(torch, b)


def np_halves(x, axis):
    half = x.shape[axis] // 2
    first = tuple(slice(0, half) if k == axis % x.ndim else slice(None) for k in range(x.ndim))
    second = tuple(slice(half, None) if k == axis % x.ndim else slice(None) for k in range(x.ndim))
    return x[first], x[second]
