"""Kernels of dynamic_tanh. x (rows, columns); gamma and beta come column by column, or empty.

Columns are in memory order. Where that is not the parameters' order (channels last), `spread` lays the parameters
out by columns and `collect` brings gradients back: column s * channels + c belongs to parameter c * positions + s
if the parameters span channels, else to parameter s for every c.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import block_sum

BLOCK = 64  # rows summed in the kernel's own precision before float64 takes over
PART = 4096  # columns that forward takes at once
THREADS = 256
WARPS = THREADS // 32


@inline
def tanh_row(x, y, alpha):
    for i in range(x.size):
        y[i] = math.tanh(alpha * x[i])


@inline
def tanh_row_affine(x, y, alpha, gamma, beta):
    for i in range(x.size):
        y[i] = gamma[i] * math.tanh(alpha * x[i]) + beta[i]


@cpu
def forward_rows(x, y, alpha, gamma, beta):
    columns = x.shape[1]
    parts = (columns + PART - 1) // PART
    rows = max(1, PART // columns)
    for task in prange((x.shape[0] + rows - 1) // rows * parts):
        block = task // parts
        lo = (task - block * parts) * PART
        hi = min(columns, lo + PART)
        for n in range(block * rows, min(x.shape[0], block * rows + rows)):
            if gamma.size > 0:
                tanh_row_affine(x[n, lo:hi], y[n, lo:hi], alpha[0], gamma[lo:hi], beta[lo:hi])
            else:
                tanh_row(x[n, lo:hi], y[n, lo:hi], alpha[0])


@inline
def gradient_row(x, dy, dx, alpha, gamma, along, total, slope):
    """Adds to the columns' sums: along dy * tanh, total dy, slope g * x."""
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        g = dy[i] * gamma[i] * (1.0 - t * t)
        dx[i] = alpha * g
        along[i] += dy[i] * t
        total[i] += dy[i]
        slope[i] += g * x[i]


@inline
def sums_row(x, dy, alpha, gamma, along, total, slope):
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        along[i] += dy[i] * t
        total[i] += dy[i]
        slope[i] += dy[i] * gamma[i] * (1.0 - t * t) * x[i]


@inline
def plain_gradient_row(x, dy, dx, alpha, slope):
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        g = dy[i] * (1.0 - t * t)
        dx[i] = alpha * g
        slope[i] += g * x[i]


@inline
def plain_sums_row(x, dy, alpha, slope):
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        slope[i] += dy[i] * (1.0 - t * t) * x[i]


@inline
def fold(line, target):
    """Add a line to float64 sums and clear it."""
    for i in range(target.size):
        target[i] += wide(line[i])
        line[i] = real(0)


@inline
def clear(a, value):
    for i in range(a.size):
        a[i] = value


@cpu
def backward_rows(x, dy, dx, alpha, gamma, lines, sums, wanted):
    """lines (chunks * strips, 3, width), sums (chunks, 3, columns) float64: of dy * tanh, dy and g * x."""
    rows, columns = x.shape
    chunks = sums.shape[0]
    strips = lines.shape[0] // chunks
    step = (rows + chunks - 1) // chunks
    width = (columns + strips - 1) // strips
    for task in prange(chunks * strips):
        k = task // strips
        lo = min(columns, (task - k * strips) * width)
        hi = min(columns, lo + width)
        along, total, slope = lines[task, 0, : hi - lo], lines[task, 1, : hi - lo], lines[task, 2, : hi - lo]
        for j in range(3):
            clear(lines[task, j, : hi - lo], real(0))
            clear(sums[k, j, lo:hi], wide(0))
        last = min(rows, k * step + step)
        for first in range(k * step, last, BLOCK):
            for n in range(first, min(last, first + BLOCK)):
                p, g = x[n, lo:hi], dy[n, lo:hi]
                if gamma.size > 0 and wanted:
                    gradient_row(p, g, dx[n, lo:hi], alpha[0], gamma[lo:hi], along, total, slope)
                elif gamma.size > 0:
                    sums_row(p, g, alpha[0], gamma[lo:hi], along, total, slope)
                elif wanted:
                    plain_gradient_row(p, g, dx[n, lo:hi], alpha[0], slope)
                else:
                    plain_sums_row(p, g, alpha[0], slope)
            fold(along, sums[k, 0, lo:hi])
            fold(total, sums[k, 1, lo:hi])
            fold(slope, sums[k, 2, lo:hi])


@cpu
def spread(gamma, beta, by_column, beta_by_column, positions, channels, spans):
    for s in range(positions):
        for c in range(channels):
            i = c * positions + s if spans else s
            by_column[s * channels + c] = gamma[i]
            beta_by_column[s * channels + c] = beta[i]


@inline
def column_total(sums, j, column):
    total = wide(0)
    for k in range(sums.shape[0]):
        total += sums[k, j, column]
    return total


@inline
def parameter_total(sums, j, i, positions, channels, spans):
    """The sum of all that belongs to parameter i."""
    if spans:
        c = i // positions
        return column_total(sums, j, (i - c * positions) * channels + c)
    total = wide(0)
    for c in range(channels):
        total += column_total(sums, j, i * channels + c)
    return total


@cpu
def collect(sums, dalpha, dgamma, dbeta, positions, channels, spans):
    slope = wide(0)
    for column in range(sums.shape[2]):
        slope += column_total(sums, 2, column)
    dalpha[0] = real(slope)
    for i in range(dgamma.size):
        dgamma[i] = real(parameter_total(sums, 0, i, positions, channels, spans))
        dbeta[i] = real(parameter_total(sums, 1, i, positions, channels, spans))


# -- CUDA --------------------------------------------------------------------------------------------------


@cuda
def forward_cuda(x, y, alpha, gamma, beta):
    """x, y flat."""
    columns = gamma.size
    a = alpha[0]
    if columns == 0:
        for i in range(cu.grid(1), x.size, cu.gridsize(1)):
            y[i] = math.tanh(a * x[i])
    else:
        step = cu.gridsize(1)
        i = cu.grid(1)
        c = i % columns
        along = step % columns
        while i < x.size:
            y[i] = gamma[c] * math.tanh(a * x[i]) + beta[c]
            i += step
            c += along
            if c >= columns:
                c -= columns


@cuda
def backward_cuda(x, dy, dx, alpha, gamma, sums, wanted):
    """A block takes 32 columns of a chunk of rows, a warp a row, a thread a column."""
    rows, columns = x.shape
    tiles = (columns + 31) // 32
    k = cu.blockIdx.x // tiles
    c = (cu.blockIdx.x - k * tiles) * 32 + cu.threadIdx.x % 32
    scratch = cu.shared.array((3, THREADS), np.float64)
    step = (rows + sums.shape[0] - 1) // sums.shape[0]
    warps = cu.blockDim.x // 32
    a = alpha[0]
    along = wide(0)
    total = wide(0)
    slope = wide(0)
    if c < columns:
        scale = gamma[c] if gamma.size > 0 else real(1)
        for n in range(k * step + cu.threadIdx.x // 32, min(rows, k * step + step), warps):
            v = x[n, c]
            t = math.tanh(a * v)
            g = dy[n, c] * scale * (1.0 - t * t)
            if wanted:
                dx[n, c] = a * g
            along += wide(dy[n, c] * t)
            total += wide(dy[n, c])
            slope += wide(g * v)
    scratch[0, cu.threadIdx.x] = along
    scratch[1, cu.threadIdx.x] = total
    scratch[2, cu.threadIdx.x] = slope
    cu.syncthreads()
    if cu.threadIdx.x < 32 and c < columns:
        for w in range(1, warps):
            along += scratch[0, cu.threadIdx.x + 32 * w]
            total += scratch[1, cu.threadIdx.x + 32 * w]
            slope += scratch[2, cu.threadIdx.x + 32 * w]
        sums[k, 0, c] = along
        sums[k, 1, c] = total
        sums[k, 2, c] = slope


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
        for column in range(cu.threadIdx.x, sums.shape[2], cu.blockDim.x):
            slope += column_total(sums, 2, column)
        slope = block_sum(slope, scratch)
        if cu.threadIdx.x == 0:
            dalpha[0] = real(slope)
    else:
        first = (cu.blockIdx.x - 1) * cu.blockDim.x + cu.threadIdx.x
        for i in range(first, dgamma.size, (cu.gridDim.x - 1) * cu.blockDim.x):
            dgamma[i] = real(parameter_total(sums, 0, i, positions, channels, spans))
            dbeta[i] = real(parameter_total(sums, 1, i, positions, channels, spans))
