"""Channel statistics on CUDA, channels last and dense: x, y, dy, dx are flat arrays of rows of all channels.

`width` threads stand side by side over neighbouring channels, LANES each (16 bytes where they are aligned, lanes.py),
and the block's other threads over the rows of its chunk. What belongs to a channel stays in registers on the way down.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, epilogue, inline, real
from normcore.kernels.lanes import (
    clear,
    clear_sums,
    column_sums,
    give_columns,
    take_columns,
    whole_rows,
    widen,
)
from normcore_normalization.channel_planes_cuda import gradient_terms
from normcore_normalization.channel_scalars import THREADS, affine, weights

FOLD = 32  # rows that a thread sums in the kernel's precision before float64 takes over
WARPS = THREADS // 32


@inline
def stand(channels, width):
    """(chunk, first channel of the block, first channel of the thread, row of the thread in a step)."""
    columns = width * LANES
    tiles = (channels + columns - 1) // columns
    k = cu.blockIdx.x // tiles
    first = (cu.blockIdx.x - k * tiles) * columns
    row = cu.threadIdx.x // width
    return k, first, first + (cu.threadIdx.x - row * width) * LANES, row


@inline
def rows_of(rows, chunks, k, count):
    """The first and last row of chunk k; none for a thread beyond the channels."""
    step = (rows + chunks - 1) // chunks
    return k * step, min(rows, k * step + step) if count > 0 else k * step


@inline
def hold(array, c, v):
    """v = what the thread's channels have of a statistic."""
    for j in range(LANES):
        v[j] = array[c + j] if c + j < array.size else real(0)


@inline
def hold_weights(gamma, beta, scale, change, c, a, b):
    for j in range(LANES):
        if c + j < scale.size:
            a[j], b[j] = weights(c + j, gamma, beta, scale, change)


@cuda
def rows_sums_cuda(x, width, shift, sums):
    """Block (k, tile) sums chunk k of the rows, relative to the first row."""
    channels, chunks = shift.size, sums.shape[0]
    rows = x.size // channels
    v = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    u_sum = cu.local.array(LANES, real)
    square_sum = cu.local.array(LANES, real)
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    squares = cu.shared.array((WARPS, LANES, 32), np.float64)
    k, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels)
    clear_sums(total)
    clear_sums(squares)
    clear(u_sum)
    clear(square_sum)
    if count > 0:
        take_columns(x, c, count, whole, s)
    down = cu.blockDim.x // width
    begin, last = rows_of(rows, chunks, k, count)
    for block in range(begin + row, last, down * FOLD):
        for r in range(block, min(last, block + down * FOLD), down):
            take_columns(x, r * channels + c, count, whole, v)
            for j in range(LANES):
                u = v[j] - s[j]
                u_sum[j] += u
                square_sum[j] += u * u
        widen(u_sum, total)
        widen(square_sum, squares)
    column_sums(total, width, sums[k, 0], first)
    column_sums(squares, width, sums[k, 1], first)
    if k == 0 and row == 0:
        for j in range(LANES):
            if c + j < channels:
                shift[c + j] = s[j]


@cuda
def rows_normalize_cuda(x, y, width, chunks, gamma, beta, shift, rest, scale, change, e):
    channels = shift.size
    rows = x.size // channels
    v = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    d = cu.local.array(LANES, real)
    a = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    k, _, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(y, channels)
    hold(shift, c, s)
    hold(rest, c, d)
    hold_weights(gamma, beta, scale, change, c, a, b)
    begin, last = rows_of(rows, chunks, k, count)
    for r in range(begin + row, last, cu.blockDim.x // width):
        i = r * channels + c
        take_columns(x, i, count, whole, v)
        for j in range(LANES):
            v[j] = epilogue(affine(v[j], s[j], d[j], a[j], b[j]), e)
        give_columns(y, i, count, whole, v)


@cuda
def rows_gradient_sums_cuda(x, dy, width, gamma, beta, shift, rest, scale, change, sums, e):
    channels, chunks = shift.size, sums.shape[0]
    rows = x.size // channels
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    d = cu.local.array(LANES, real)
    a = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    g_sum = cu.local.array(LANES, real)
    product_sum = cu.local.array(LANES, real)
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    products = cu.shared.array((WARPS, LANES, 32), np.float64)
    k, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(dy, channels)
    hold(shift, c, s)
    hold(rest, c, d)
    hold_weights(gamma, beta, scale, change, c, a, b)
    clear_sums(total)
    clear_sums(products)
    clear(g_sum)
    clear(product_sum)
    down = cu.blockDim.x // width
    begin, last = rows_of(rows, chunks, k, count)
    for block in range(begin + row, last, down * FOLD):
        for r in range(block, min(last, block + down * FOLD), down):
            i = r * channels + c
            take_columns(x, i, count, whole, v)
            take_columns(dy, i, count, whole, dv)
            for j in range(LANES):
                g, u = gradient_terms(v[j], dv[j], s[j], d[j], a[j], b[j], e)
                g_sum[j] += g
                product_sum[j] += g * u
        widen(g_sum, total)
        widen(product_sum, products)
    column_sums(total, width, sums[k, 0], first)
    column_sums(products, width, sums[k, 1], first)


@cuda
def rows_input_gradient_cuda(
    x, dy, dx, width, chunks, gamma, beta, shift, rest, scale, change, mean_g, slope, e
):
    """mean_g, slope: what is taken out of g, from parameter_gradients_cuda."""
    channels = shift.size
    rows = x.size // channels
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    d = cu.local.array(LANES, real)
    a = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    mean = cu.local.array(LANES, real)
    along = cu.local.array(LANES, real)
    k, _, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(dy, channels) & whole_rows(dx, channels)
    hold(shift, c, s)
    hold(rest, c, d)
    hold(mean_g, c, mean)
    hold(slope, c, along)
    hold_weights(gamma, beta, scale, change, c, a, b)
    begin, last = rows_of(rows, chunks, k, count)
    for r in range(begin + row, last, cu.blockDim.x // width):
        i = r * channels + c
        take_columns(x, i, count, whole, v)
        take_columns(dy, i, count, whole, dv)
        for j in range(LANES):
            g, u = gradient_terms(v[j], dv[j], s[j], d[j], a[j], b[j], e)
            v[j] = a[j] * (g - mean[j] - u * along[j])
        give_columns(dx, i, count, whole, v)
