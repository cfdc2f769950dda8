"""crelu: the concatenated relu keeps both signs, each in channels of its own.

Forward   y = (max(x, 0), max(-x, 0)) along the axis, twice as many entries
Gradient  dx = dy_1 where x > 0, -dy_2 where x < 0, 0 at the kink
Shapes: x any, of one axis or more, any axis, negative ones counted from the end; an axis out of range is a ShapeError.
float32 and float64. In memory x is (outer, L) and y (outer, 2, L), both contiguous, whatever the axis.
NaN stays NaN in both halves.
"""

import numpy as np

from normcore import Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.gated import CHUNK, inlined
from normcore_activation.over_axis import logical_axis, physical_axis, split
from normcore_activation.relu import relu

_scalars = relu.scalars[""]
_value, _slope = inlined(_scalars.forward), inlined(_scalars.derivatives[0])


@inline
def gradient(x, positive, negative):
    return positive * _slope(x, _value(x)) - negative * _slope(-x, _value(-x))


@inline
def forward_run(x, positive, negative):
    for i in range(x.size):
        positive[i] = _value(x[i])
        negative[i] = _value(-x[i])


@inline
def backward_run(x, positive, negative, dx):
    for i in range(dx.size):
        dx[i] = gradient(x[i], positive[i], negative[i])


@cpu
def _forward(x, y):
    length = x.shape[1]
    pieces = (length + CHUNK - 1) // CHUNK
    group = max(1, CHUNK // length)  # short runs share a task
    for task in prange((x.shape[0] + group - 1) // group * pieces):
        first = task // pieces * group
        lo = task % pieces * CHUNK
        hi = min(length, lo + CHUNK)
        for o in range(first, min(x.shape[0], first + group)):
            forward_run(x[o, lo:hi], y[o, 0, lo:hi], y[o, 1, lo:hi])


@cpu
def _backward(x, dy, dx):
    length = x.shape[1]
    pieces = (length + CHUNK - 1) // CHUNK
    group = max(1, CHUNK // length)
    for task in prange((x.shape[0] + group - 1) // group * pieces):
        first = task // pieces * group
        lo = task % pieces * CHUNK
        hi = min(length, lo + CHUNK)
        for o in range(first, min(x.shape[0], first + group)):
            backward_run(x[o, lo:hi], dy[o, 0, lo:hi], dy[o, 1, lo:hi], dx[o, lo:hi])


@cuda
def _forward_cuda(x, y):
    length = x.shape[1]
    for k in range(cu.grid(1), x.size, cu.gridsize(1)):
        o = k // length
        i = k - o * length
        y[o, 0, i] = _value(x[o, i])
        y[o, 1, i] = _value(-x[o, i])


@cuda
def _backward_cuda(x, dy, dx):
    length = x.shape[1]
    for k in range(cu.grid(1), x.size, cu.gridsize(1)):
        o = k // length
        i = k - o * length
        dx[o, i] = gradient(x[o, i], dy[o, 0, i], dy[o, 1, i])


class Crelu(Op, name="crelu", source="Shang, Sohn, Almeida and Lee 2016, arXiv:1603.05201"):
    """y = relu(x) and relu(-x) one behind the other along `axis` (1: channels)."""

    axis: int = 1

    formats = ("channels_first", "channels_last")

    samples = (
        Sample("channels of a feature map", shape=(2, 3, 3, 7)),
        Sample("features", shape=(5, 7)),
        Sample("the last axis of a sequence", shape=(2, 3, 5), params={"axis": -1}),
        Sample("a vector", shape=(17,), params={"axis": 0}),
        Sample("an inner axis of a volume", shape=(2, 3, 2, 4, 3), params={"axis": 3}),
    )
    benchmarks = (
        Sample("channels of large maps", shape=(32, 96, 55, 55)),
        Sample("channels of small maps", shape=(32, 256, 14, 14)),
        Sample("features", shape=(128, 1000)),
    )
    error_samples = (
        ErrorSample("no such axis", {"axis": 3}, (2, 4, 4), "axis 3"),
        ErrorSample("no whole number", {"axis": 0.5}, None, "axis"),
    )

    def check(self):
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise ParameterError("axis", "a whole number, negative ones counted from the end", self.axis)

    def plan(self, x: Tensor) -> Plan:
        axis = logical_axis(self.name, self.axis, x.shape)
        return Plan(y=(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :]), flops=2 * x.size)

    def forward_cpu(self, t):
        if t.x.size:
            _forward[t](*self._runs(t, t.x), *self._pairs(t, t.y))

    def backward_cpu(self, t):
        if t.dx is not None and t.dx.size:
            x, dx = self._runs(t, t.x, t.dx)
            _backward[t](x, *self._pairs(t, t.dy), dx)

    def forward_cuda(self, t):
        if t.x.size:
            _forward_cuda[t, t.x.size](*self._runs(t, t.x), *self._pairs(t, t.y))

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            x, dx = self._runs(t, t.x, t.dx)
            _backward_cuda[t, x.size](x, *self._pairs(t, t.dy), dx)

    def _shape(self, t):
        outer, size, inner = split(t.x.shape, physical_axis(self.axis % t.x.ndim, t.x.ndim, t.format))
        return outer, size * inner

    def _runs(self, t, *arrays):
        return tuple(a.reshape(self._shape(t)) for a in arrays)

    def _pairs(self, t, y):
        outer, length = self._shape(t)
        return (y.reshape(outer, 2, length),)

    def reference(self, x, **arrays):
        x = np.asarray(x, np.float64)
        return np.concatenate([(np.abs(x) + x) / 2, (np.abs(x) - x) / 2], axis=self.axis)

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.cat([torch.relu(x), torch.relu(-x)], self.axis)
