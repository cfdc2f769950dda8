"""Passes of decorrelated_batch_norm over x, y, dy and dx on CUDA, channels last: rows of all channels, flat.

The centered data between them, z, are (C, rows) float64, flat too. A thread takes LANES neighbouring channels of one row,
16 bytes where they are aligned; a warp takes 32 rows, so that its float64 numbers are neighbours in z, and the warps of a
block take neighbouring channels, so that what the caches read of x is used.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, inline, real, wide
from normcore.kernels.lanes import (
    clear,
    column_sums,
    give_columns,
    put_columns,
    take_columns,
    take_columns_padded,
    tiles_of,
    whole_rows,
)
from normcore.kernels.packs import PACK_BYTES
from normcore_normalization.channel_rows_cuda import WARPS, rows_of, stand
from normcore_normalization.channel_scalars import THREADS
from normcore_normalization.whitening_planes_cuda import factors, merge_chunks_cuda


@cuda
def sum_rows_cuda(x, width, sums, mean, averaging):
    """Block (k, tile): sums[k] = chunk k of the rows; where `averaging`, relative to the first row, kept in mean."""
    shared = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    total = cu.local.array(LANES, np.float64)
    chunks, channels = sums.shape
    k, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels)
    clear(s)
    clear(total)
    if averaging and count > 0:
        take_columns(x, c, count, whole, s)
    begin, last = rows_of(x.size // channels, chunks, k, count)
    for r in range(begin + row, last, cu.blockDim.x // width):
        take_columns_padded(x, r * channels + c, count, whole, v)
        for j in range(LANES):
            total[j] += wide(v[j]) - wide(s[j])
    put_columns(total, shared)
    column_sums(shared, width, sums[k], first)
    if averaging and k == 0 and row == 0:
        for j in range(LANES):
            if j < count:
                mean[c + j] = wide(s[j])


@inline
def place(tile, channels, rows):
    """The row and the first channel that a thread takes in a tile of 32 rows; a warp takes LANES channels."""
    across = (rows + 31) // 32
    high = tile // across
    row = (tile - high * across) * 32 + cu.threadIdx.x % 32
    return row, (high * (cu.blockDim.x // 32) + cu.threadIdx.x // 32) * LANES


@inline
def tiles(channels, rows):
    beside = cu.blockDim.x // 32 * LANES
    return (rows + 31) // 32 * ((channels + beside - 1) // beside)


@cuda
def center_rows_cuda(x, z, mean, centering):
    """z = x, minus the means where `centering`."""
    v = cu.local.array(LANES, real)
    channels = mean.size
    rows = x.size // channels
    whole = whole_rows(x, channels)
    for tile in range(cu.blockIdx.x, tiles(channels, rows), cu.gridDim.x):
        row, c = place(tile, channels, rows)
        if row < rows and c < channels:
            take_columns_padded(x, row * channels + c, channels - c, whole, v)
            for j in range(LANES):
                if c + j < channels:
                    z[(c + j) * rows + row] = wide(v[j]) - (mean[c + j] if centering else wide(0))


@cuda
def store_rows_cuda(z, more, y, channels, gamma, beta):
    """y = gamma z + beta, and `more`, as z, is added where it is not empty."""
    v = cu.local.array(LANES, real)
    rows = y.size // channels
    whole = whole_rows(y, channels)
    for tile in range(cu.blockIdx.x, tiles(channels, rows), cu.gridDim.x):
        row, c = place(tile, channels, rows)
        if row < rows and c < channels:
            clear(v)
            for j in range(LANES):
                if c + j < channels:
                    at = (c + j) * rows + row
                    a, b = factors(c + j, gamma, beta)
                    v[j] = real(a * (z[at] + more[at] if more.size > 0 else z[at]) + b)
            give_columns(y, row * channels + c, channels - c, whole, v)


# -- launching ---------------------------------------------------------------------------------------------


def sum_channels(t, shape, x, averaging):
    """t.sums[0] = the sums of x's channels; where `averaging`, t.mean = their means. shape: (A, L, C)."""
    width, columns = tiles_of(shape[2], x.itemsize)
    sum_rows_cuda[t, (t.sums.shape[0] * columns, THREADS)](x, width, t.sums, t.mean, averaging)
    merge_chunks_cuda[t, shape[2]](t.sums, t.mean, shape[0] * shape[1], averaging)


def _extent(shape, itemsize):
    high = -(-shape[2] * itemsize // (PACK_BYTES * WARPS))
    return min(65535, -(-shape[0] * shape[1] // 32) * high), THREADS


def center(t, shape, x, z, centering):
    """z (G, d, A L) float64 = x, minus t.mean where `centering`."""
    center_rows_cuda[t, _extent(shape, x.itemsize)](x, z.reshape(-1), t.mean, centering)


def store(t, shape, z, more, y, gamma, beta):
    """y = gamma z + beta, plus `more`; what is empty is left out."""
    kernel = store_rows_cuda[t, _extent(shape, y.itemsize)]
    kernel(z.reshape(-1), more.reshape(-1), y, shape[2], gamma, beta)
