"""Concatenation: the inputs one behind the other along an axis; the gradient is cut apart at the same places.

Inputs agree in every other axis. In memory each input is a sequence of runs (all axes from the concatenated
one on), which go to every run of the output side by side, so one copy kernel serves every axis and memory
format.

It joins the paths of an inception block (Szegedy et al. 2015, "Going deeper with convolutions",
arXiv:1409.4842). Shapes: two or more axes, axis >= 1 (the batch cannot be joined). float32 and float64.
"""

import math

import numpy as np

from normcore import Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, prange
from normcore.kernels.lowered import LINE_BYTES
from normcore.kernels.prefetch import AHEAD, SHORT, prefetch_lines
from normcore.kernels.streaming import leaves_cache, stream_run
from normcore.kernels.vector_moves import copy_run
from normcore.kernels.window import window
from normcore.testing.samples import ErrorSample, Sample

PIECE = 16384  # numbers a parallel task copies: 64 KB of float32


@cpu
def _place(x, y, offset, rows, width, y_width):
    """x (rows, width) into columns offset .. offset + width of y (rows, y_width), both flat."""
    together = max(1, PIECE // max(1, width))  # short runs: several to a task
    pieces = (width + PIECE - 1) // PIECE  # long runs: several tasks each
    line = LINE_BYTES // y.itemsize
    far = leaves_cache(y) and width % line == 0 and offset % line == 0 and y_width % line == 0
    for j in prange((rows + together - 1) // together * pieces):
        block = np.int64(j) // pieces
        lo = (np.int64(j) - block * pieces) * PIECE
        hi = min(width, lo + PIECE)
        for r in range(block * together, min(rows, block * together + together)):
            if far:
                stream_run(y, r * y_width + offset + lo, window(x, r * width + lo, r * width + hi), hi - lo)
            else:
                copy_run(y, r * y_width + offset + lo, x, r * width + lo, hi - lo)


@cpu
def _cut(y, x, offset, rows, width, y_width):
    """The way back."""
    together = max(1, PIECE // max(1, width))
    pieces = (width + PIECE - 1) // PIECE
    for j in prange((rows + together - 1) // together * pieces):
        block = np.int64(j) // pieces
        lo = (np.int64(j) - block * pieces) * PIECE
        hi = min(width, lo + PIECE)
        for r in range(block * together, min(rows, block * together + together)):
            if width <= SHORT:
                prefetch_lines(y, (r + AHEAD // width) * y_width + offset, width)
            copy_run(x, r * width + lo, y, r * y_width + offset + lo, hi - lo)


@cuda
def _place_cuda(x, y, offset):
    width = x.shape[1]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        r = i // width
        y[r, offset + i - r * width] = x[r, i - r * width]


@cuda
def _cut_cuda(y, x, offset):
    width = x.shape[1]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        r = i // width
        x[r, i - r * width] = y[r, offset + i - r * width]


class Concat(Op, name="concat", source="Szegedy et al. 2015, arXiv:1409.4842"):
    """The inputs side by side along `axis` (1: channels); they agree in every other axis."""

    axis: int = 1

    inputs = ("*xs",)
    role = "concat"
    formats = ("channels_last", "channels_first")
    backward_needs = ()

    samples = (
        Sample("channels of three paths", shapes=((2, 3, 4, 5), (2, 1, 4, 5), (2, 4, 4, 5))),
        Sample("a spatial axis", shapes=((2, 3, 4, 5), (2, 3, 2, 5)), params={"axis": 2}),
        Sample("the last axis, counted from the end", shapes=((2, 3, 4), (2, 3, 2)), params={"axis": -1}),
    )
    benchmarks = (
        Sample(
            "an inception block's four paths",
            shapes=((32, 64, 28, 28), (32, 128, 28, 28), (32, 32, 28, 28), (32, 32, 28, 28)),
        ),
    )
    error_samples = (
        ErrorSample("other axes differ", shape=((2, 3, 4), (2, 3, 5)), message_contains="axis 2"),
        ErrorSample("the batch", {"axis": 0}, None, "axis"),
    )

    def check(self):
        if not isinstance(self.axis, int) or isinstance(self.axis, bool) or self.axis == 0:
            raise ParameterError("axis", "a whole number other than 0, which is the batch", self.axis)

    def plan(self, *xs: Tensor) -> Plan:
        if not xs:
            raise ShapeError("concat: expected at least one input, got none")
        first = xs[0].shape
        axis = self.axis % len(first) if -len(first) < self.axis < len(first) else 0
        if axis == 0:
            raise ShapeError(f"concat: axis {self.axis} is none of the axes of {first}, or the batch")
        for x in xs[1:]:
            differing = [
                k for k in range(min(len(first), len(x.shape))) if k != axis and first[k] != x.shape[k]
            ]
            if len(x.shape) != len(first) or differing:
                where = f"differ in axis {differing[0]}" if differing else "have different numbers of axes"
                raise ShapeError(f"concat: along axis {axis}, the inputs {first} and {x.shape} {where}")
        total = sum(x.shape[axis] for x in xs)
        return Plan(y=(*first[:axis], total, *first[axis + 1 :]))

    def forward_cpu(self, t):
        self._each(
            t,
            t.xs,
            t.y,
            lambda x, y, offset: _place[t](x.reshape(-1), y.reshape(-1), offset, *x.shape, y.shape[1]),
        )

    def backward_cpu(self, t):
        self._each(
            t,
            t.dxs,
            t.dy,
            lambda x, y, offset: _cut[t](y.reshape(-1), x.reshape(-1), offset, *x.shape, y.shape[1]),
        )

    def forward_cuda(self, t):
        self._each(t, t.xs, t.y, lambda x, y, offset: _place_cuda[t, x.size](x, y, offset))

    def backward_cuda(self, t):
        self._each(t, t.dxs, t.dy, lambda x, y, offset: _cut_cuda[t, x.size](y, x, offset))

    def _each(self, t, xs, y, copy):
        """copy(x, y, offset) for each input, as arrays of runs (R, W) and (R, V)."""
        axis = self.axis % y.ndim
        if t.format == "channels_last" and y.ndim > 2:
            axis = y.ndim - 1 if axis == 1 else axis - 1
        rows, inner = math.prod(y.shape[:axis]), math.prod(y.shape[axis + 1 :])
        runs = y.reshape(rows, y.shape[axis] * inner)
        offset = 0
        for k, x in enumerate(xs):
            width = t.xs[k].shape[axis] * inner
            if x is not None and x.size:
                copy(x.reshape(rows, width), runs, offset)
            offset += width

    def reference(self, *xs, **arrays):
        return np.concatenate(xs, axis=self.axis)

    def in_torch(self, torch, *xs, training, **arrays):
        return torch.cat(xs, self.axis)
