"""Channel statistics on the CPU for few rows of many channels, x (M, C): a task takes some columns.

A task's columns of all rows fit the L2 cache, so it sums and normalizes them without reading memory twice, shares
nothing with other tasks, and there is nothing to merge.
"""

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.streaming import leaves_cache
from normcore_normalization.channel_lines import finish_channels
from normcore_normalization.channel_rows import (
    gradient_rows,
    move_wide,
    normalize_rows,
    set_zero,
    sum_gradient_rows,
    sum_short_rows,
)
from normcore_normalization.channel_scalars import weight_gradient, weights

ROWS = 128  # summed in the kernel's own precision before float64 takes over


@inline
def first_shift_of(x, lo, hi, shift, total, squares):
    """A shift for each column: the mean of its first few values."""
    rows = min(4, x.shape[0])
    for c in range(shift.size):
        shift[c] = x[0, lo + c]
        total[c] = real(0)
        squares[c] = real(0)
    sum_short_rows(x, 0, rows, lo, hi, shift, total, squares)
    for c in range(shift.size):
        shift[c] += total[c] / real(rows)
        total[c] = real(0)
        squares[c] = real(0)


@inline
def coefficients(lo, hi, gamma, beta, scale, change, line):
    """Rows 2 and 3 of line: the a and b of each channel."""
    for c in range(lo, hi):
        line[2, c], line[3, c] = weights(c, gamma, beta, scale, change)


@cpu
def forward_columns(
    x,
    y,
    gamma,
    beta,
    running_mean,
    running_var,
    shift,
    rest,
    scale,
    change,
    line,
    partial,
    sums,
    width,
    eps,
    momentum,
    e,
):
    """width: columns of a task. line (6, >= C), partial (.., 2, >= C), sums (.., 2, C) float64 are scratch."""
    rows, channels = x.shape
    for j in prange((channels + width - 1) // width):
        lo, hi = j * width, min(channels, j * width + width)
        s, total, squares = shift[lo:hi], partial[0, 0, lo:hi], partial[0, 1, lo:hi]
        first_shift_of(x, lo, hi, s, total, squares)
        set_zero(sums[0, 0, lo:hi])
        set_zero(sums[0, 1, lo:hi])
        for first in range(0, rows, ROWS):
            sum_short_rows(x, first, min(rows, first + ROWS), lo, hi, s, total, squares)
            move_wide(total, sums[0, 0, lo:hi])
            move_wide(squares, sums[0, 1, lo:hi])
        done, spread = sums[0, 0, lo:hi], sums[0, 1, lo:hi]
        moving = (momentum, running_mean, running_var)
        finish_channels(x, x[0, :0], lo, hi, done, spread, eps, *moving, shift, rest, scale, change)
        coefficients(lo, hi, gamma, beta, scale, change, line)
        a, b = line[2, lo:hi], line[3, lo:hi]
        normalize_rows(x, y, 0, rows, lo, hi, s, rest[lo:hi], a, b, leaves_cache(y), e)


@cpu
def backward_columns(
    x,
    dy,
    dx,
    gamma,
    beta,
    dgamma,
    dbeta,
    shift,
    rest,
    scale,
    change,
    line,
    partial,
    sums,
    width,
    share,
    wanted,
    e,
):
    rows, channels = x.shape
    for j in prange((channels + width - 1) // width):
        lo, hi = j * width, min(channels, j * width + width)
        s, d, total, along = shift[lo:hi], rest[lo:hi], partial[0, 0, lo:hi], partial[0, 1, lo:hi]
        a, b = line[2, lo:hi], line[3, lo:hi]
        coefficients(lo, hi, gamma, beta, scale, change, line)
        set_zero(total)
        set_zero(along)
        set_zero(sums[0, 0, lo:hi])
        set_zero(sums[0, 1, lo:hi])
        for first in range(0, rows, ROWS):
            sum_gradient_rows(x, dy, first, min(rows, first + ROWS), lo, hi, s, d, a, b, total, along, e)
            move_wide(total, sums[0, 0, lo:hi])
            move_wide(along, sums[0, 1, lo:hi])
        for c in range(lo, hi):
            g, gx = sums[0, 0, c], sums[0, 1, c] * wide(scale[c])
            if dgamma.size > 0:
                dgamma[c] = real(weight_gradient(c, g, gx, change))
                dbeta[c] = real(g)
            line[4, c] = real(g * share)
            line[5, c] = real(gx * share * wide(scale[c]))
        if wanted:
            gradient_rows(x, dy, dx, 0, rows, lo, hi, s, d, a, b, line[4, lo:hi], line[5, lo:hi], e)
