"""Axes in another order: y[i_0, i_1, ...] = x with axis k of y taken from axis dims[k] of x.

The gradient is permuted back. Axes that stay neighbours are merged first, so that (N, C, H, W) to (N, H, W,
C) is the transposition of C and H * W, done in tiles. Sequences use it between (N, C, T) and (N, T, C).
Shapes: any; in a network axis 0, the batch, stays in its place. float32 and float64.
"""

import math

import numpy as np

from normcore import Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange
from normcore.kernels.lowered import LINE_BYTES
from normcore.kernels.prefetch import SHORT, prefetch_lines
from normcore.kernels.streaming import leaves_cache, stream_run
from normcore.kernels.transpose import tiles_of, turn_tile
from normcore.kernels.vector_moves import copy_run
from normcore.kernels.window import window
from normcore.testing.samples import ErrorSample, Sample

RANK = 6  # axes the kernels take, after neighbours are merged; more has never been asked for
PIECE = 16384  # numbers a task copies where rows stay whole: 64 KB of float32
AHEAD = 8  # rows: how far ahead short ones are asked for


@inline
def offset_of(j, shape, strides):
    """Where the j-th combination of axes starts."""
    at = 0
    for k in range(len(shape) - 1, -1, -1):
        at += j % shape[k] * strides[k]
        j //= shape[k]
    return at


@cpu
def _turn(x, y, shape, x_strides, y_strides):
    """x, y flat. The last two axes are that of which y, and that of which x has its elements side by side."""
    rows, columns = shape[4], shape[5]
    tiles = tiles_of(rows, columns)
    outer = shape[0] * shape[1] * shape[2] * shape[3]
    for j in prange(outer * tiles):
        n = np.int64(j) // tiles
        at, to = offset_of(n, shape[:4], x_strides[:4]), offset_of(n, shape[:4], y_strides[:4])
        tile = np.int64(j) - n * tiles
        turn_tile(tile, x, at, x_strides[4], y, to, y_strides[5], rows, columns)


@cpu
def _move_rows(x, y, shape, x_strides):
    """The last axis lies side by side in both: rows are copied as they are."""
    height, width = shape[4], shape[5]
    together = max(1, min(height, PIECE // max(1, width)))
    pieces = (height + together - 1) // together
    outer = shape[0] * shape[1] * shape[2] * shape[3]
    far = leaves_cache(y) and width * y.itemsize % LINE_BYTES == 0
    for j in prange(outer * pieces):
        n = np.int64(j) // pieces
        low = (np.int64(j) - n * pieces) * together
        at = offset_of(n, shape[:4], x_strides[:4])
        for r in range(low, min(height, low + together)):
            of = at + r * x_strides[4]
            if width <= SHORT:
                prefetch_lines(x, of + AHEAD * x_strides[4], width)
            if far:
                stream_run(y, (n * height + r) * width, window(x, of, of + width), width)
            else:
                copy_run(y, (n * height + r) * width, x, of, width)


@cuda
def _permute_cuda(x, y, shape, strides):
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        rest = i
        at = 0
        for k in range(5, -1, -1):
            at += rest % shape[k] * strides[k]
            rest //= shape[k]
        y[i] = x[at]


class Permute(Op, name="permute"):
    """Axes in another order; dims: for each axis of the output, the axis of the input (as
    numpy.transpose)."""

    dims: tuple[int, ...]

    formats = ("channels_first",)
    backward_needs = ()

    samples = (
        Sample("channels to the end", shape=(2, 3, 5, 4), params={"dims": (0, 2, 3, 1)}),
        Sample("a sequence, larger than a tile", shape=(2, 37, 41), params={"dims": (0, 2, 1)}),
        Sample("rows stay whole", shape=(2, 3, 4, 5), params={"dims": (0, 2, 1, 3)}),
        Sample("everything turned round", shape=(2, 3, 4, 2, 3), params={"dims": (0, 4, 3, 2, 1)}),
    )
    benchmarks = (
        Sample("feature maps to channels last", shape=(32, 96, 55, 55), params={"dims": (0, 2, 3, 1)}),
        Sample("the heads of attention", shape=(32, 512, 8, 64), params={"dims": (0, 2, 1, 3)}),
    )
    error_samples = (
        ErrorSample("an axis twice", {"dims": (0, 1, 1)}, None, "each axis once"),
        ErrorSample("wrong number of axes", {"dims": (0, 2, 1)}, (2, 3, 4, 5), "4 axes"),
    )

    def check(self):
        dims = tuple(self.dims) if isinstance(self.dims, tuple | list) else ()
        if not dims or sorted(dims) != list(range(len(dims))):
            raise ParameterError("dims", "each axis once, such as [0, 2, 1]", self.dims)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) != len(self.dims):
            raise ShapeError(
                f"permute: dims {tuple(self.dims)} do not fit the {len(x.shape)} axes of {x.shape}"
            )
        merged = _merge(x.shape, self.dims)[0]
        if len(merged) > RANK:
            raise ShapeError(
                f"permute: {len(merged)} axes move apart in dims {tuple(self.dims)}; at most {RANK} may"
            )
        return Plan(y=tuple(x.shape[d] for d in self.dims))

    def forward_cpu(self, t):
        _permute(t, t.x, t.y, tuple(self.dims))

    def backward_cpu(self, t):
        if t.dx is not None:
            _permute(t, t.dy, t.dx, self._inverse())

    def forward_cuda(self, t):
        shape, strides = _geometry(t.x.shape, tuple(self.dims))
        _permute_cuda[t, t.y.size](t.x.reshape(-1), t.y.reshape(-1), shape, strides)

    def backward_cuda(self, t):
        if t.dx is not None:
            shape, strides = _geometry(t.dy.shape, self._inverse())
            _permute_cuda[t, t.dx.size](t.dy.reshape(-1), t.dx.reshape(-1), shape, strides)

    def _inverse(self):
        return tuple(self.dims.index(k) for k in range(len(self.dims)))

    def reference(self, x, **arrays):
        x = np.asarray(x, np.float64)
        y = np.empty(tuple(x.shape[d] for d in self.dims))
        for place in np.ndindex(*x.shape):
            y[tuple(place[d] for d in self.dims)] = x[place]
        return y

    def in_torch(self, torch, x, *, training, **arrays):
        return x.permute(*self.dims).clone(
            memory_format=torch.contiguous_format
        )  # even where a view would do


def _permute(t, x, y, dims):
    """y = x with its axes in the order dims, on the CPU."""
    shape, x_strides = _geometry(x.shape, dims)
    if x_strides[5] == 1 or x.size < 2:
        _move_rows[t](x.reshape(-1), y.reshape(-1), shape, x_strides)
        return
    y_strides = tuple(math.prod(shape[k + 1 :]) for k in range(RANK))
    inner = max(k for k in range(RANK) if x_strides[k] == 1 and shape[k] > 1)
    order = [k for k in range(5) if k != inner] + [5, inner]
    turned = (tuple(values[k] for k in order) for values in (shape, x_strides, y_strides))
    _turn[t](x.reshape(-1), y.reshape(-1), *turned)


def _merge(shape, dims):
    """Output sizes and input strides with axes merged that are neighbours in both, and axes of size 1 left
    out."""
    strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    sizes, steps = [], []
    for d in dims:
        if shape[d] == 1:
            continue
        if sizes and steps[-1] == strides[d] * shape[d]:
            sizes[-1] *= shape[d]
            steps[-1] = strides[d]
        else:
            sizes.append(shape[d])
            steps.append(strides[d])
    return sizes, steps


def _geometry(shape, dims):
    sizes, steps = _merge(shape, dims)
    lead = RANK - len(sizes)
    return (1,) * lead + tuple(sizes), (0,) * lead + tuple(steps)
