"""Kernels of dynamic_tanh on CUDA. x, y, dy, dx are flat arrays of rows, a gamma and a beta for each column or none.

`width` threads stand side by side over neighbouring columns, LANES each (16 bytes where they are aligned, lanes.py),
the block's others over a chunk of rows: one pass over memory each way.
"""

import math

import numpy as np

from normcore.kernels import LANES, cu, cuda, real, wide
from normcore.kernels.lanes import (
    clear,
    clear_sums,
    column_sums,
    give_columns,
    take_columns,
    take_real,
    whole_rows,
    widen,
)
from normcore.kernels.warps import block_sum
from normcore_normalization.channel_cuda import Extent
from normcore_normalization.channel_rows_cuda import FOLD, WARPS, rows_of, stand
from normcore_normalization.channel_scalars import THREADS
from normcore_normalization.dynamic_tanh_kernels import column_total, parameter_total


@cuda
def forward_cuda(x, y, columns, width, chunks, alpha, gamma, beta):
    v = cu.local.array(LANES, real)
    g = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    k, _, c, row = stand(columns, width)
    count = columns - c
    whole = whole_rows(x, columns) & whole_rows(y, columns)
    for j in range(LANES):
        g[j] = 1
        b[j] = 0
    take_real(gamma, c, g)
    take_real(beta, c, b)
    a = alpha[0]
    begin, last = rows_of(x.size // columns, chunks, k, count)
    for r in range(begin + row, last, cu.blockDim.x // width):
        i = r * columns + c
        take_columns(x, i, count, whole, v)
        for j in range(LANES):
            v[j] = g[j] * math.tanh(a * v[j]) + b[j]
        give_columns(y, i, count, whole, v)


@cuda
def backward_cuda(x, dy, dx, width, alpha, gamma, sums, wanted):
    """sums (K, 3, columns): of dy tanh, of dy, and of what alpha's gradient consists of."""
    chunks, columns = sums.shape[0], sums.shape[2]
    along = cu.shared.array((WARPS, LANES, 32), np.float64)
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    slope = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    g = cu.local.array(LANES, real)
    product_sum = cu.local.array(LANES, real)
    dy_sum = cu.local.array(LANES, real)
    slope_sum = cu.local.array(LANES, real)
    k, first, c, row = stand(columns, width)
    count = columns - c
    whole = whole_rows(x, columns) & whole_rows(dy, columns) & whole_rows(dx, columns)
    for j in range(LANES):
        g[j] = 1
    take_real(gamma, c, g)
    clear_sums(along)
    clear_sums(total)
    clear_sums(slope)
    clear(product_sum)
    clear(dy_sum)
    clear(slope_sum)
    a = alpha[0]
    begin, last = rows_of(x.size // columns, chunks, k, count)
    down = cu.blockDim.x // width
    for block in range(begin + row, last, down * FOLD):
        for r in range(block, min(last, block + down * FOLD), down):
            i = r * columns + c
            take_columns(x, i, count, whole, v)
            take_columns(dy, i, count, whole, dv)
            for j in range(LANES):
                t = math.tanh(a * v[j])
                inner = dv[j] * g[j] * (1.0 - t * t)
                product_sum[j] += dv[j] * t
                dy_sum[j] += dv[j]
                slope_sum[j] += inner * v[j]
                dv[j] = a * inner
            if wanted:
                give_columns(dx, i, count, whole, dv)
        widen(product_sum, along)
        widen(dy_sum, total)
        widen(slope_sum, slope)
    column_sums(along, width, sums[k, 0], first)
    column_sums(total, width, sums[k, 1], first)
    column_sums(slope, width, sums[k, 2], first)


@cuda
def spread_cuda(gamma, beta, by_column, beta_by_column, positions, channels, spans):
    for column in range(cu.grid(1), by_column.size, cu.gridsize(1)):
        s = column // channels
        i = (column - s * channels) * positions + s if spans else s
        by_column[column] = gamma[i]
        beta_by_column[column] = beta[i]


@cuda
def collect_cuda(sums, dalpha, dgamma, dbeta, positions, channels, spans):
    """Block 0 adds up alpha's gradient, the others take a parameter a thread."""
    scratch = cu.shared.array(WARPS, np.float64)
    if cu.blockIdx.x == 0:
        slope = wide(0)
        columns = positions * channels
        for column in range(cu.threadIdx.x, columns, cu.blockDim.x):
            slope += column_total(sums, 2, column, columns)
        slope = block_sum(slope, scratch)
        if cu.threadIdx.x == 0:
            dalpha[0] = real(slope)
    else:
        first = (cu.blockIdx.x - 1) * cu.blockDim.x + cu.threadIdx.x
        for i in range(first, dgamma.size, (cu.gridDim.x - 1) * cu.blockDim.x):
            dgamma[i] = real(parameter_total(sums, 0, i, positions, channels, spans))
            dbeta[i] = real(parameter_total(sums, 1, i, positions, channels, spans))


def forward(t, x, y, gamma, beta):
    """x, y (rows, columns)."""
    at = Extent(x, True)
    grid = (at.chunks * at.tiles, THREADS)
    arrays = (x.reshape(-1), y.reshape(-1))
    forward_cuda[t, grid](*arrays, at.channels, at.width, at.chunks, t.alpha, gamma, beta)


def backward(t, x, dy, dx, gamma, sums, wanted):
    at, arrays = Extent(x, True), (x.reshape(-1), dy.reshape(-1), dx.reshape(-1))
    backward_cuda[t, (sums.shape[0] * at.tiles, THREADS)](*arrays, at.width, t.alpha, gamma, sums, wanted)
