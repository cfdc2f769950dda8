"""Statistics of one contiguous row on the CPU, and what is kept of them; shared by all norms of one sample.

A row is any stretch of memory that shares one mean and one variance: a token's features, an image's group of
channels. Sums run in blocks that fit the L1 cache, relative to the mean of the first values, and are added in
float64; where the outcome cannot be trusted (values near 1e30, first values unlike the rest) the row is summed
once more in float64.
"""

import math

from normcore.kernels import inline, real, wide
from normcore_normalization.channel_scalars import INFINITY, centered, trusted

FIRST = 128  # values whose mean is the shift; more would cost short rows a whole pass
BLOCK = 4096  # values summed in the kernel's own precision before float64 takes over; 16 KB fit the L1 cache


@inline(reassociate=True, force=True)
def shifted_sums(x, s):
    """Sums of u and u^2 for u = x - s, in the kernel's precision."""
    total = real(0)
    squares = real(0)
    for i in range(x.size):
        u = centered(x[i], s, real(0))
        total += u
        squares += u * u
    return total, squares


@inline(reassociate=True, force=True)
def shifted_sum(x, s):
    total = real(0)
    for i in range(x.size):
        total += centered(x[i], s, real(0))
    return total


@inline(reassociate=True, force=True)
def square_sum(x):
    squares = real(0)
    for i in range(x.size):
        squares += x[i] * x[i]
    return squares


@inline(reassociate=True, force=True)
def shifted_sum_wide(x, s):
    total = wide(0)
    for i in range(x.size):
        total += wide(x[i]) - s
    return total


@inline(reassociate=True, force=True)
def square_sum_wide(x, mean):
    squares = wide(0)
    for i in range(x.size):
        u = wide(x[i]) - mean
        squares += u * u
    return squares


@inline
def row_statistics(x, eps):
    """Mean and biased variance of the row x, in float64. eps: what will be added to the variance."""
    count = wide(x.size)
    first = x[: min(x.size, FIRST)]
    s = first[0] + shifted_sum(first, first[0]) / real(first.size)
    total = wide(0)
    squares = wide(0)
    for lo in range(0, x.size, BLOCK):
        u, uu = shifted_sums(x[lo : min(x.size, lo + BLOCK)], s)
        total += wide(u)
        squares += wide(uu)
    if trusted(total, squares, count, eps):
        return wide(s) + total / count, (squares - total * total / count) / count
    mean = wide(x[0]) + shifted_sum_wide(x, wide(x[0])) / count
    return mean, square_sum_wide(x, mean) / count


@inline
def row_mean_square(x, eps):
    """The mean of x^2, in float64."""
    count = wide(x.size)
    squares = wide(0)
    for lo in range(0, x.size, BLOCK):
        squares += wide(square_sum(x[lo : min(x.size, lo + BLOCK)]))
    if squares < INFINITY and (squares > count * wide(1e-30) or eps > wide(1e-20)):
        return squares / count
    return square_sum_wide(x, wide(0)) / count


@inline
def row_scalars(mean, var, eps, bend):
    """The mean as s + d, and the factor, in the kernel's precision; see keep_row."""
    s = real(mean)
    factor = wide(1)
    if bend.size == 0:
        factor = wide(1) / math.sqrt(var + eps)
    elif eps >= wide(0):
        factor = wide(1) / (math.sqrt(var) + eps)
    return s, real(mean - wide(s)), real(factor)


@inline
def keep_row(r, mean, var, eps, shift, rest, scale, bend):
    """What normalizing and backward need of row r: the mean as s + d, the factor, and its slope.

    bend (size 0: the factor is 1 / sqrt(var + eps)) stands for the form 1 / (sigma + eps): the slope of
    that is scale^2 * bend with bend = (sigma + eps) / sigma, 0 for a constant row. eps < 0: the factor is 1.
    """
    shift[r], rest[r], scale[r] = row_scalars(mean, var, eps, bend)
    if bend.size > 0:
        sigma = math.sqrt(var)
        bend[r] = real((sigma + eps) / sigma) if sigma > wide(0) and eps >= wide(0) else real(0)
