"""maxout: the largest of each group of neighbouring channels.

Forward   y_j = max over p of x_(j pieces + p), p = 0 .. pieces - 1
Gradient  dx_(j pieces + p) = dy_j for the FIRST p that reaches the maximum, 0 for the others
Forward keeps which p it was, a byte for up to 256 pieces, so that backward reads neither x nor y.
Numerics  NaN wins over every number. Two pieces x and 0 are relu.
Shapes: x any, of one axis or more; pieces must divide the axis' entries, else a ShapeError; y has
entries / pieces of them. float32 and float64. In memory x is (R, pieces, inner), y (R, inner).
"""

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange
from normcore.kernels.select import select
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.gated import CHUNK
from normcore_activation.over_axis import logical_axis, physical_axis, split

PIECES = 2  # set for each op, so that loops over the pieces are unrolled
ARG = np.uint8


@inline
def wins(v, best):
    """Whether v is above best, or NaN where best is not: the first maximum stays."""
    return (v > best) | ((v != v) & (best == best))


@inline
def first_piece(x, y, arg):
    for i in range(y.size):
        y[i] = x[i]
        arg[i] = ARG(0)


@inline
def next_piece(x, y, arg, p):
    for i in range(y.size):
        better = wins(x[i], y[i])
        y[i] = select(better, x[i], y[i])
        arg[i] = select(better, p, arg[i])


@inline
def gradient_piece(dy, arg, dx, p):
    for i in range(dx.size):
        dx[i] = dy[i] if arg[i] == p else 0.0


@inline
def interleaved(x, y, arg):
    """Pieces side by side in memory: x (PIECES y.size)."""
    for i in range(y.size):
        best = x[PIECES * i]
        at = ARG(0)
        for p in range(1, PIECES):
            v = x[PIECES * i + p]
            better = wins(v, best)
            best = v if better else best
            at = ARG(p) if better else at
        y[i] = best
        arg[i] = at


@inline
def interleaved_gradient(dy, arg, dx):
    for i in range(dy.size):
        for p in range(PIECES):
            dx[PIECES * i + p] = dy[i] if arg[i] == ARG(p) else 0.0


@cpu
def _forward_rows(x, y, arg):
    """x (R PIECES), y and arg (R)."""
    for task in prange((y.size + CHUNK - 1) // CHUNK):
        lo = task * CHUNK
        hi = min(y.size, lo + CHUNK)
        interleaved(x[PIECES * lo : PIECES * hi], y[lo:hi], arg[lo:hi])


@cpu
def _backward_rows(dy, arg, dx):
    for task in prange((dy.size + CHUNK - 1) // CHUNK):
        lo = task * CHUNK
        hi = min(dy.size, lo + CHUNK)
        interleaved_gradient(dy[lo:hi], arg[lo:hi], dx[PIECES * lo : PIECES * hi])


@cpu
def _forward_planes(x, y, arg):
    """x (R, PIECES, L), y and arg (R, L)."""
    for r in prange(y.shape[0]):
        for lo in range(0, y.shape[1], CHUNK):
            hi = min(y.shape[1], lo + CHUNK)
            first_piece(x[r, 0, lo:hi], y[r, lo:hi], arg[r, lo:hi])
            for p in range(1, PIECES):
                next_piece(x[r, p, lo:hi], y[r, lo:hi], arg[r, lo:hi], ARG(p))


@cpu
def _backward_planes(dy, arg, dx):
    for r in prange(dy.shape[0]):
        for p in range(PIECES):
            gradient_piece(dy[r], arg[r], dx[r, p], ARG(p))


@cuda
def _forward_cuda(x, y, arg):
    inner = y.shape[1]
    for k in range(cu.grid(1), y.size, cu.gridsize(1)):
        r = k // inner
        i = k - r * inner
        best = x[r, 0, i]
        at = 0
        for p in range(1, PIECES):
            v = x[r, p, i]
            if wins(v, best):
                best = v
                at = p
        y[r, i] = best
        arg[r, i] = ARG(at)


@cuda
def _backward_cuda(dy, arg, dx):
    inner = dy.shape[1]
    for k in range(cu.grid(1), dx.size, cu.gridsize(1)):
        i = k % inner
        p = k // inner % PIECES
        r = k // inner // PIECES
        dx[r, p, i] = dy[r, i] if arg[r, i] == ARG(p) else 0.0


class Maxout(Op, name="maxout", source="Goodfellow et al. 2013, arXiv:1302.4389"):
    """The largest of each `pieces` neighbours along `axis` (1: channels); the first maximum takes the gradient."""

    pieces: int = 2
    axis: int = 1

    formats = ("channels_first", "channels_last")
    backward_needs = ()

    samples = (
        Sample("pairs of channels", shape=(2, 6, 3, 7)),
        Sample("pairs of features", shape=(5, 74)),
        Sample("threes along the last axis", shape=(2, 3, 9), params={"pieces": 3, "axis": -1}),
        Sample("all channels in one group", shape=(2, 5, 6), params={"pieces": 5}),
        Sample("a vector", shape=(34,), params={"axis": 0}),
        Sample("an inner axis of a volume", shape=(2, 3, 2, 4, 3), params={"axis": 3}),
    )
    benchmarks = (
        Sample("channels of large maps", shape=(32, 96, 55, 55)),
        Sample("channels of small maps", shape=(32, 256, 14, 14)),
        Sample("features", shape=(128, 1000)),
    )
    error_samples = (
        ErrorSample("a group would be cut", {"pieces": 3}, (2, 4, 3), "multiple of 3"),
        ErrorSample("no such axis", {"axis": 3}, (2, 4, 4), "axis 3"),
        ErrorSample("no pieces", {"pieces": 0}, None, "pieces"),
        ErrorSample("no whole number", {"axis": 0.5}, None, "axis"),
    )

    def check(self):
        if isinstance(self.pieces, bool) or not isinstance(self.pieces, int) or self.pieces < 1:
            raise ParameterError("pieces", "a whole number, at least 1", self.pieces)
        if isinstance(self.axis, bool) or not isinstance(self.axis, int):
            raise ParameterError("axis", "a whole number, negative ones counted from the end", self.axis)

    def plan(self, x: Tensor) -> Plan:
        axis = logical_axis(self.name, self.axis, x.shape)
        if x.shape[axis] % self.pieces:
            raise ShapeError(
                f"maxout: axis {self.axis} of {x.shape} has {x.shape[axis]} entries; expected a multiple of "
                f"{self.pieces} (pieces), so that no group is cut"
            )
        y = (*x.shape[:axis], x.shape[axis] // self.pieces, *x.shape[axis + 1 :])
        size = x.size // self.pieces
        return Plan(y=y, saved={"arg": Array((size,), self._kind().__name__)}, flops=x.size)

    def _kind(self):
        return np.uint8 if self.pieces <= 256 else np.uint32

    def forward_cpu(self, t):
        if t.y.size:
            rows, inner = self._shape(t, t.y)
            kernel = _forward_rows if inner == 1 else _forward_planes
            x = t.x.reshape(-1) if inner == 1 else t.x.reshape(rows, self.pieces, inner)
            shape = (rows,) if inner == 1 else (rows, inner)
            self._made(kernel)[t](x, t.y.reshape(shape), t.arg.reshape(shape))

    def backward_cpu(self, t):
        if t.dx is not None and t.dx.size:
            rows, inner = self._shape(t, t.dy)
            kernel = _backward_rows if inner == 1 else _backward_planes
            dx = t.dx.reshape(-1) if inner == 1 else t.dx.reshape(rows, self.pieces, inner)
            shape = (rows,) if inner == 1 else (rows, inner)
            self._made(kernel)[t](t.dy.reshape(shape), t.arg.reshape(shape), dx)

    def forward_cuda(self, t):
        if t.y.size:
            rows, inner = self._shape(t, t.y)
            x, shape = t.x.reshape(rows, self.pieces, inner), (rows, inner)
            self._made(_forward_cuda)[t, t.y.size](x, t.y.reshape(shape), t.arg.reshape(shape))

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            rows, inner = self._shape(t, t.dy)
            dx, shape = t.dx.reshape(rows, self.pieces, inner), (rows, inner)
            self._made(_backward_cuda)[t, t.dx.size](t.dy.reshape(shape), t.arg.reshape(shape), dx)

    def _made(self, kernel):
        return kernel.with_constants(PIECES=self.pieces, ARG=self._kind())

    def _shape(self, t, y):
        """Groups, and the numbers that lie between two pieces of one group; y: an array of the output's shape."""
        outer, size, inner = split(y.shape, physical_axis(self.axis % y.ndim, y.ndim, t.format))
        return outer * size, inner

    def reference(self, x, **arrays):
        x = np.asarray(x, np.float64)
        axis = self.axis % x.ndim
        shape = (*x.shape[:axis], x.shape[axis] // self.pieces, self.pieces, *x.shape[axis + 1 :])
        return x.reshape(shape).max(axis=axis + 1)

    def in_torch(self, torch, x, *, training, **arrays):
        return x.unflatten(self.axis, (-1, self.pieces)).max(dim=self.axis % x.ndim + 1).values
