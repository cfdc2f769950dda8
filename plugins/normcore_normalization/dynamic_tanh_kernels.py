"""Kernels of dynamic_tanh. x (rows, columns); gamma and beta come column by column, or empty.

Columns are in memory order. Where that is not the parameters' order (channels last), or where a row of x is several
short ones, `spread` lays the parameters out by columns and `collect` brings gradients back: of each of the short rows,
column s * channels + c belongs to parameter c * positions + s if the parameters span channels, else to parameter s
for every c.
"""

import math

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.streaming import either_way, leaves_cache

BLOCK = 64  # rows summed in the kernel's own precision before float64 takes over
PART = 4096  # columns that forward takes at once


@inline
def tanh_row(x, y, alpha):
    for i in range(x.size):
        y[i] = math.tanh(alpha * x[i])
        line_by_line()


@inline
def tanh_row_affine(x, y, alpha, gamma, beta):
    for i in range(x.size):
        y[i] = gamma[i] * math.tanh(alpha * x[i]) + beta[i]
        line_by_line()


tanh_either_way = either_way(tanh_row, read=["x"], written=["y"])
affine_either_way = either_way(tanh_row_affine, read=["x", "gamma", "beta"], written=["y"], asked=["x"])


@cpu
def forward_rows(x, y, alpha, gamma, beta):
    columns = x.shape[1]
    parts = (columns + PART - 1) // PART
    rows = max(1, PART // columns)
    far = leaves_cache(y)
    for task in prange((x.shape[0] + rows - 1) // rows * parts):
        block = task // parts
        lo = (task - block * parts) * PART
        hi = min(columns, lo + PART)
        for n in range(block * rows, min(x.shape[0], block * rows + rows)):
            if gamma.size > 0:
                affine_either_way(x[n, lo:hi], y[n, lo:hi], alpha[0], gamma[lo:hi], beta[lo:hi], far)
            else:
                tanh_either_way(x[n, lo:hi], y[n, lo:hi], alpha[0], far)


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
        line_by_line()


@inline
def sums_row(x, dy, alpha, gamma, along, total, slope):
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        along[i] += dy[i] * t
        total[i] += dy[i]
        slope[i] += dy[i] * gamma[i] * (1.0 - t * t) * x[i]
        line_by_line()


@inline
def plain_gradient_row(x, dy, dx, alpha, slope):
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        g = dy[i] * (1.0 - t * t)
        dx[i] = alpha * g
        slope[i] += g * x[i]
        line_by_line()


# The sums change where they lie.
gradient_either_way = either_way(
    gradient_row,
    read=["x", "dy", "gamma", "along", "total", "slope"],
    written=["dx"],
    asked=["x", "dy"],
)
plain_gradient_either_way = either_way(
    plain_gradient_row, read=["x", "dy", "slope"], written=["dx"], asked=["x", "dy"]
)


@inline
def plain_sums_row(x, dy, alpha, slope):
    for i in range(x.size):
        t = math.tanh(alpha * x[i])
        slope[i] += dy[i] * (1.0 - t * t) * x[i]
        line_by_line()


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
    far = leaves_cache(dx)
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
                    gradient_either_way(p, g, dx[n, lo:hi], alpha[0], gamma[lo:hi], along, total, slope, far)
                elif gamma.size > 0:
                    sums_row(p, g, alpha[0], gamma[lo:hi], along, total, slope)
                elif wanted:
                    plain_gradient_either_way(p, g, dx[n, lo:hi], alpha[0], slope, far)
                else:
                    plain_sums_row(p, g, alpha[0], slope)
            fold(along, sums[k, 0, lo:hi])
            fold(total, sums[k, 1, lo:hi])
            fold(slope, sums[k, 2, lo:hi])


@cpu
def spread(gamma, beta, by_column, beta_by_column, positions, channels, spans):
    columns = positions * channels
    for start in range(0, by_column.size, columns):
        for s in range(positions):
            for c in range(channels):
                i = c * positions + s if spans else s
                by_column[start + s * channels + c] = gamma[i]
                beta_by_column[start + s * channels + c] = beta[i]


@inline
def column_total(sums, j, column, columns):
    total = wide(0)
    for k in range(sums.shape[0]):
        for i in range(column, sums.shape[2], columns):
            total += sums[k, j, i]
    return total


@inline
def parameter_total(sums, j, i, positions, channels, spans):
    """The sum of all that belongs to parameter i."""
    columns = positions * channels
    if spans:
        c = i // positions
        return column_total(sums, j, (i - c * positions) * channels + c, columns)
    total = wide(0)
    for c in range(channels):
        total += column_total(sums, j, i * channels + c, columns)
    return total


@cpu
def collect(sums, dalpha, dgamma, dbeta, positions, channels, spans):
    slope = wide(0)
    for column in range(positions * channels):
        slope += column_total(sums, 2, column, positions * channels)
    dalpha[0] = real(slope)
    for i in range(dgamma.size):
        dgamma[i] = real(parameter_total(sums, 0, i, positions, channels, spans))
        dbeta[i] = real(parameter_total(sums, 1, i, positions, channels, spans))
