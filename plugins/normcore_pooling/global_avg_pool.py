"""Global average pooling: the mean of each channel's whole map.

Forward:  y = 1/L * sum of the L positions of a channel
Backward: dx_i = dy / L at every position

Numerics: positions are summed in blocks of 4096, blocks are added in float64, so that the rounding error
does not grow with the map. Channels last sums 256 positions at a time for all channels at once. The order
depends on the shape alone.

Shapes: x (N, C, *spatial); y (N, C, 1, ...) with keepdims, else (N, C). float32 and float64. A map without
elements is a ShapeError.

Source: Lin, Chen and Yan 2014, "Network in network", arXiv:1312.4400, section 3.2.
"""

import math

import numpy as np

from normcore import Array, Op, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.prefetch import AHEAD, prefetch_once
from normcore.testing.samples import ErrorSample, Sample

BLOCK = 4096  # values summed in the kernel's own precision before float64 takes over
ROWS = 256  # the same for channels last, where each row adds one value to every channel
WARPS = 8  # of a CUDA block


# -- CPU, channels first: x (P, L), one row a channel of a sample ------------------------------------------


@inline(reassociate=True)
def block_sum(x):
    total = real(0)
    for i in range(x.size):
        total += x[i]
    return total


@inline
def fill(x, value):
    for i in range(x.size):
        x[i] = value


@cpu
def _forward_planes(x, y):
    """x (P, L), y (P,)."""
    length = x.shape[1]
    for p in prange(x.shape[0]):
        total = wide(0)
        for lo in range(0, length, BLOCK):
            total += wide(block_sum(x[p, lo : min(length, lo + BLOCK)]))
        y[p] = real(total / wide(length))


@cpu
def _backward_planes(dy, dx):
    length = dx.shape[1]
    for p in prange(dx.shape[0]):
        fill(dx[p], real(wide(dy[p]) / wide(length)))


# -- CPU, channels last: x (N, L, C) -----------------------------------------------------------------------


@inline
def add_row(x, total):
    for c in range(x.size):
        total[c] += x[c]


@inline
def add_wide(x, total):
    for c in range(x.size):
        total[c] += wide(x[c])


@inline
def mean_of(total, y, length):
    for c in range(y.size):
        y[c] = real(total[c] / wide(length))


@inline
def spread_row(dy, dx, length):
    for c in range(dx.size):
        dx[c] = real(wide(dy[c]) / wide(length))


@inline
def copy_row(source, target):
    for c in range(target.size):
        target[c] = source[c]


@cpu
def _forward_positions(x, y, total):
    """x (N, L, C), y (N, C), total (N, C) float64 scratch; y holds the running block until the mean is
    known."""
    length = x.shape[1]
    for n in prange(x.shape[0]):
        fill(total[n], wide(0))
        for lo in range(0, length, ROWS):
            fill(y[n], real(0))
            for i in range(lo, min(length, lo + ROWS)):
                prefetch_once(x, (n * length + i) * y.shape[1] + AHEAD, y.shape[1])
                add_row(x[n, i], y[n])
            add_wide(y[n], total[n])
        mean_of(total[n], y[n], length)


@cpu
def _backward_positions(dy, dx):
    length = dx.shape[1]
    for n in prange(dx.shape[0]):
        spread_row(dy[n], dx[n, 0], length)
        for i in range(1, length):
            copy_row(dx[n, 0], dx[n, i])


# -- CUDA --------------------------------------------------------------------------------------------------


@cuda
def _forward_planes_cuda(x, y):
    """A warp takes a row of x (P, L): lanes add every 32nd number, then fold in half five times."""
    length = x.shape[1]
    lane = cu.threadIdx.x % 32
    warps = cu.blockDim.x // 32
    for p in range(cu.blockIdx.x * warps + cu.threadIdx.x // 32, x.shape[0], cu.gridDim.x * warps):
        total = wide(0)
        for i in range(lane, length, 32):
            total += wide(x[p, i])
        offset = 16
        while offset > 0:
            total += cu.shfl_down_sync(0xFFFFFFFF, total, offset)
            offset //= 2
        if lane == 0:
            y[p] = real(total / wide(length))


@cuda
def _forward_positions_cuda(x, y):
    """A thread takes a channel of x (N, L, C)."""
    length, channels = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        n = i // channels
        c = i - n * channels
        total = wide(0)
        for k in range(length):
            total += wide(x[n, k, c])
        y[n, c] = real(total / wide(length))


@cuda
def _backward_planes_cuda(dy, dx):
    length = dx.shape[1]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        p = i // length
        dx[p, i - p * length] = real(wide(dy[p]) / wide(length))


@cuda
def _backward_positions_cuda(dy, dx):
    length, channels = dx.shape[1], dx.shape[2]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        row = i // channels
        n = row // length
        c = i - row * channels
        dx[n, row - n * length, c] = real(wide(dy[n, c]) / wide(length))


# -- the op ------------------------------------------------------------------------------------------------


class GlobalAvgPool(
    Op, name="global_avg_pool", source="Lin, Chen and Yan 2014, arXiv:1312.4400, section 3.2"
):
    """The mean of each channel's map. keepdims: keep the spatial dimensions, each of size 1."""

    keepdims: bool = True

    formats = ("channels_last", "channels_first")
    backward_needs = ()

    samples = (
        Sample("a map", shape=(2, 5, 3, 7)),
        Sample("a sequence, flattened", shape=(3, 4, 9), params={"keepdims": False}),
        Sample("a volume", shape=(2, 3, 2, 3, 4)),
    )
    error_samples = (ErrorSample("no map", {}, (2, 3), "spatial"),)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 3 or 0 in x.shape[2:]:
            raise ShapeError(
                f"{self.name}: expected (N, C, *spatial) with at least one position to average, got {x.shape}"
            )
        shape = (*x.shape[:2], *(1,) * (len(x.shape) - 2)) if self.keepdims else x.shape[:2]
        return Plan(y=shape, workspace={"total": Array(x.shape[:2], "float64")}, flops=x.size)

    def forward_cpu(self, t):
        shape = _flat(t.x.shape, t.format)
        if t.format == "channels_first":
            _forward_planes[t](t.x.reshape(shape), t.y.reshape(-1))
        else:
            _forward_positions[t](t.x.reshape(shape), t.y.reshape(t.total.shape), t.total)

    def backward_cpu(self, t):
        if t.dx is None:
            return
        shape = _flat(t.dx.shape, t.format)
        if t.format == "channels_first":
            _backward_planes[t](t.dy.reshape(-1), t.dx.reshape(shape))
        else:
            _backward_positions[t](t.dy.reshape(t.total.shape), t.dx.reshape(shape))

    def forward_cuda(self, t):
        shape = _flat(t.x.shape, t.format)
        if t.y.size and t.format == "channels_first":
            grid = min(65535, -(-shape[0] // WARPS))
            _forward_planes_cuda[t, (grid, 32 * WARPS)](t.x.reshape(shape), t.y.reshape(-1))
        elif t.y.size:
            _forward_positions_cuda[t, t.y.size](t.x.reshape(shape), t.y.reshape(t.total.shape))

    def backward_cuda(self, t):
        if t.dx is None or not t.dx.size:
            return
        shape = _flat(t.dx.shape, t.format)
        if t.format == "channels_first":
            _backward_planes_cuda[t, t.dx.size](t.dy.reshape(-1), t.dx.reshape(shape))
        else:
            _backward_positions_cuda[t, t.dx.size](t.dy.reshape(t.total.shape), t.dx.reshape(shape))

    def reference(self, x, **arrays):
        axes = tuple(range(2, np.ndim(x)))
        return np.average(np.asarray(x, np.float64), axis=axes, keepdims=self.keepdims)

    def in_torch(self, torch, x, *, training, **arrays):
        return x.mean(tuple(range(2, x.dim())), self.keepdims)


def _flat(shape, format):
    """(P, L) channels first, (N, L, C) channels last."""
    if format == "channels_first":
        return shape[0] * shape[1], math.prod(shape[2:])
    return shape[0], math.prod(shape[1:-1]), shape[-1]
