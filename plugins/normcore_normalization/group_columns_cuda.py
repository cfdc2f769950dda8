"""Groups of channels on CUDA, channels last; the formulas are in group_planes.

x, y, dy, dx are flat arrays (N, S, C). A block takes a chunk of one sample's positions: `width` threads stand side by
side over neighbouring channels, LANES each (16 bytes where they are aligned, lanes.py), the others over positions.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, epilogue, inline, real, wide
from normcore.kernels.lanes import (
    clear,
    clear_sums,
    column_sums,
    give_columns,
    take_columns,
    whole_rows,
    widen,
)
from normcore.kernels.packs import load_one
from normcore_normalization.channel_rows_cuda import WARPS, stand
from normcore_normalization.channel_scalars import affine, centered, trusted
from normcore_normalization.group_lines import bounds
from normcore_normalization.group_planes_cuda import element_gradient, input_slope, row_of


@inline
def own_positions(positions, chunks, k, row, count):
    """(sample, first row of the flat (N * S, C) array that the thread takes, the one behind its last)."""
    n = k // chunks
    lo, hi = bounds(positions, chunks, k - n * chunks)
    return n, n * positions + lo + row, n * positions + (hi if count > 0 else lo)


@inline
def column_wide(x, channels, c, lo, hi):
    """Mean and squares about it of a column's rows lo..hi, in float64."""
    first = wide(load_one(x, lo * channels + c))
    total = wide(0)
    for r in range(lo, hi):
        total += wide(load_one(x, r * channels + c)) - first
    mean = first + total / wide(hi - lo)
    squares = wide(0)
    for r in range(lo, hi):
        u = wide(load_one(x, r * channels + c)) - mean
        squares += u * u
    return mean, squares


@cuda
def column_statistics_cuda(x, positions, width, part, eps):
    """part (N, K, C, 2): mean and sum of squares about it of each channel in each chunk."""
    chunks, channels = part.shape[1], part.shape[2]
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    squares = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    u_sum = cu.local.array(LANES, real)
    square_sum = cu.local.array(LANES, real)
    k, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels)
    n, begin, last = own_positions(positions, chunks, k, row, count)
    clear_sums(total)
    clear_sums(squares)
    clear(u_sum)
    clear(square_sum)
    if count > 0 and begin - row < last:
        take_columns(x, (begin - row) * channels + c, count, whole, s)
    for r in range(begin, last, cu.blockDim.x // width):
        take_columns(x, r * channels + c, count, whole, v)
        for j in range(LANES):
            u = v[j] - s[j]
            u_sum[j] += u
            square_sum[j] += u * u
    widen(u_sum, total)
    widen(square_sum, squares)
    own = part[n, k - n * chunks]
    column_sums(total, width, own[:, 0], first)
    column_sums(squares, width, own[:, 1], first)
    _, lo, hi = own_positions(positions, chunks, k, 0, 1)
    for c in range(first + cu.threadIdx.x, min(channels, first + width * LANES), cu.blockDim.x):
        if lo < hi:  # the thread's own sums, see column_sums
            t, q, m = own[c, 0], own[c, 1], wide(hi - lo)
            mean, spread = wide(load_one(x, lo * channels + c)) + t / m, q - t * t / m
            if not trusted(t, q, m, eps):
                mean, spread = column_wide(x, channels, c, lo, hi)
            own[c, 0] = mean
            own[c, 1] = spread


@inline
def hold_rows(array, n, c, channels, groups, per_sample, v):
    """v = what the groups of the thread's channels have of a statistic."""
    for j in range(LANES):
        if c + j < channels:
            v[j] = array[row_of(n, c + j, channels // groups, groups, per_sample)]


@inline
def hold_parameter(array, c, default, v):
    for j in range(LANES):
        v[j] = array[c + j] if c + j < array.size else real(default)


@cuda
def normalize_columns_cuda(
    x, y, positions, channels, width, gamma, beta, shift, rest, scale, chunks, per_sample, groups, e
):
    v = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    d = cu.local.array(LANES, real)
    a = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    k, _, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(y, channels)
    n, begin, last = own_positions(positions, chunks, k, row, count)
    hold_rows(shift, n, c, channels, groups, per_sample, s)
    hold_rows(rest, n, c, channels, groups, per_sample, d)
    hold_rows(scale, n, c, channels, groups, per_sample, v)
    hold_parameter(gamma, c, 1, a)
    hold_parameter(beta, c, 0, b)
    for j in range(LANES):
        a[j] *= v[j]
    for r in range(begin, last, cu.blockDim.x // width):
        i = r * channels + c
        take_columns(x, i, count, whole, v)
        for j in range(LANES):
            v[j] = epilogue(affine(v[j], s[j], d[j], a[j], b[j]), e)
        give_columns(y, i, count, whole, v)


@cuda
def column_gradient_sums_cuda(
    x, dy, positions, width, gamma, beta, shift, rest, scale, part, per_sample, groups, e
):
    chunks, channels = part.shape[1], part.shape[2]
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    along = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    d = cu.local.array(LANES, real)
    inverse = cu.local.array(LANES, real)
    factor = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    g_sum = cu.local.array(LANES, real)
    product_sum = cu.local.array(LANES, real)
    k, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(dy, channels)
    n, begin, last = own_positions(positions, chunks, k, row, count)
    hold_rows(shift, n, c, channels, groups, per_sample, s)
    hold_rows(rest, n, c, channels, groups, per_sample, d)
    hold_rows(scale, n, c, channels, groups, per_sample, inverse)
    hold_parameter(gamma, c, 1, factor)
    hold_parameter(beta, c, 0, b)
    clear_sums(total)
    clear_sums(along)
    clear(g_sum)
    clear(product_sum)
    for r in range(begin, last, cu.blockDim.x // width):
        i = r * channels + c
        take_columns(x, i, count, whole, v)
        take_columns(dy, i, count, whole, dv)
        for j in range(LANES):
            g = element_gradient(v[j], dv[j], s[j], d[j], inverse[j], factor[j], b[j], e)
            g_sum[j] += g
            product_sum[j] += g * centered(v[j], s[j], d[j])
    for j in range(LANES):
        product_sum[j] *= inverse[j]
    widen(g_sum, total)
    widen(product_sum, along)
    own = part[n, k - n * chunks]
    column_sums(total, width, own[:, 0], first)
    column_sums(along, width, own[:, 1], first)


@cuda
def column_gradient_cuda(
    x,
    dy,
    dx,
    positions,
    channels,
    width,
    gamma,
    beta,
    shift,
    rest,
    scale,
    means,
    chunks,
    per_sample,
    groups,
    e,
):
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    s = cu.local.array(LANES, real)
    d = cu.local.array(LANES, real)
    inverse = cu.local.array(LANES, real)
    factor = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    mean_h = cu.local.array(LANES, real)
    slope = cu.local.array(LANES, real)
    k, _, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(dy, channels) & whole_rows(dx, channels)
    n, begin, last = own_positions(positions, chunks, k, row, count)
    hold_rows(shift, n, c, channels, groups, per_sample, s)
    hold_rows(rest, n, c, channels, groups, per_sample, d)
    hold_rows(scale, n, c, channels, groups, per_sample, inverse)
    hold_rows(means[:, 0], n, c, channels, groups, per_sample, mean_h)
    hold_rows(means[:, 1], n, c, channels, groups, per_sample, slope)
    hold_parameter(gamma, c, 1, factor)
    hold_parameter(beta, c, 0, b)
    for r in range(begin, last, cu.blockDim.x // width):
        i = r * channels + c
        take_columns(x, i, count, whole, v)
        take_columns(dy, i, count, whole, dv)
        for j in range(LANES):
            g = element_gradient(v[j], dv[j], s[j], d[j], inverse[j], factor[j], b[j], e)
            v[j] = input_slope(v[j], g, s[j], d[j], inverse[j], factor[j], mean_h[j], slope[j])
        give_columns(dx, i, count, whole, v)
