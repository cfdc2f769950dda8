"""Channel statistics on the CPU, channels first: a channel's planes stay in the L2 cache while it is summed and
normalized, so that memory is read once."""

import math

from normcore.kernels import cpu, epilogue, epilogue_gradient, inline, prange, real, wide
from normcore.kernels.prefetch import asks_for_next, prefetch_lines
from normcore.kernels.streaming import either_way, leaves_cache
from normcore_normalization.channel_scalars import (
    affine,
    centered,
    keep_change,
    parameter,
    trusted,
    weight_gradient,
    weights,
)

BLOCK = 4096  # values summed in the kernel's own precision before float64 takes over; 16 KB fit the L1 cache


@inline(reassociate=True, force=True)
def block_sums(x, s):
    total = real(0)
    squares = real(0)
    for i in range(x.size):
        u = centered(x[i], s, real(0))
        total += u
        squares += u * u
    return total, squares


@inline(reassociate=True, force=True)
def block_sum_wide(x, s):
    total = wide(0)
    for i in range(x.size):
        total += wide(x[i]) - s
    return total


@inline(reassociate=True, force=True)
def block_squares_wide(x, mean):
    squares = wide(0)
    for i in range(x.size):
        u = wide(x[i]) - mean
        squares += u * u
    return squares


@inline
def plane_statistics(x, c, eps):
    """Mean and biased variance of channel c of x (N, C, L), in float64."""
    length = x.shape[2]
    count = wide(x.shape[0] * length)
    first = x[0, c, : min(length, BLOCK)]
    s = first[0] + block_sums(first, first[0])[0] / real(first.size)
    total = wide(0)
    squares = wide(0)
    for n in range(x.shape[0]):
        for lo in range(0, length, BLOCK):
            u, uu = block_sums(x[n, c, lo : min(length, lo + BLOCK)], s)
            total += wide(u)
            squares += wide(uu)
    if trusted(total, squares, count, eps):
        return wide(s) + total / count, (squares - total * total / count) / count
    total = wide(0)
    for n in range(x.shape[0]):
        total += block_sum_wide(x[n, c], wide(first[0]))
    mean = wide(first[0]) + total / count
    squares = wide(0)
    for n in range(x.shape[0]):
        squares += block_squares_wide(x[n, c], mean)
    return mean, squares / count


@inline
def keep_statistics(c, mean, var, eps, shift, rest, scale):
    """What normalizing and backward need of one channel: s, d and 1 / sqrt(var + eps)."""
    shift[c] = real(mean)
    rest[c] = real(mean - wide(shift[c]))
    scale[c] = real(wide(1) / math.sqrt(var + eps))


@inline
def move_running(c, mean, var, count, momentum, running_mean, running_var):
    if running_mean.size > 0:
        keep = wide(1) - momentum
        running_mean[c] = real(keep * wide(running_mean[c]) + momentum * mean)
        running_var[c] = real(keep * wide(running_var[c]) + momentum * var * (count / (count - wide(1))))


@inline(force=True)
def normalize_block(x, y, s, d, a, b, e):
    for i in range(x.size):
        y[i] = epilogue(affine(x[i], s, d, a, b), e)


normalize_either_way = either_way(normalize_block, read=["x"], written=["y"])


@inline
def normalize_channel(x, y, c, gamma, beta, shift, rest, scale, change, e):
    a, b = weights(c, gamma, beta, scale, change)
    _, channels, length = x.shape
    ahead = asks_for_next(x.size, x.shape[0] * length)
    far = leaves_cache(y)
    for n in range(x.shape[0]):
        if ahead:
            prefetch_lines(x, (n * channels + c + 1) * length, length)
        normalize_either_way(x[n, c], y[n, c], shift[c], rest[c], a, b, e, far)


@cpu
def forward_planes(
    x, y, gamma, beta, running_mean, running_var, shift, rest, scale, change, eps, momentum, e
):
    """x, y (N, C, L); momentum weighs this batch in the running statistics."""
    count = wide(x.shape[0] * x.shape[2])
    for c in prange(x.shape[1]):
        mean, var = plane_statistics(x, c, eps)
        keep_statistics(c, mean, var, eps, shift, rest, scale)
        keep_change(c, mean, var, eps, running_mean, running_var, change)
        move_running(c, mean, var, count, momentum, running_mean, running_var)
        normalize_channel(x, y, c, gamma, beta, shift, rest, scale, change, e)


@cpu
def infer_planes(x, y, gamma, beta, running_mean, running_var, shift, rest, scale, eps, e):
    for c in range(x.shape[1]):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)
    for j in prange(x.shape[0] * x.shape[1]):
        n = j // x.shape[1]
        c = j - n * x.shape[1]
        a = scale[c] * parameter(gamma, c, 1)
        normalize_block(x[n, c], y[n, c], shift[c], rest[c], a, parameter(beta, c, 0), e)


@inline(reassociate=True, force=True)
def gradient_sums(x, dy, s, d, a, b, e):
    """Sums of g and g * (x - mean) over one block; g is dy before the epilogue."""
    total = real(0)
    along = real(0)
    for i in range(x.size):
        z = affine(x[i], s, d, a, b)
        g = epilogue_gradient(z, z, dy[i], e)
        total += g
        along += g * centered(x[i], s, d)
    return total, along


@inline(force=True)
def input_gradient(x, dy, dx, s, d, a, b, mean_g, slope, e):
    """slope: the mean of g * xhat, over the standard deviation."""
    for i in range(x.size):
        z = affine(x[i], s, d, a, b)
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a * (g - mean_g - centered(x[i], s, d) * slope)


gradient_either_way = either_way(input_gradient, read=["x", "dy"], written=["dx"])


@cpu
def backward_planes(x, dy, dx, gamma, beta, dgamma, dbeta, shift, rest, scale, change, share, wanted, e):
    """share: 1/m, or 0 when running statistics were used; wanted: whether dx is to be written."""
    _, channels, length = x.shape
    ahead = wanted and asks_for_next(2 * x.size, 2 * x.shape[0] * length)
    for c in prange(channels):
        s, d, inverse = shift[c], rest[c], scale[c]
        a, b = weights(c, gamma, beta, scale, change)
        total = wide(0)
        along = wide(0)
        for n in range(x.shape[0]):
            for lo in range(0, length, BLOCK):
                hi = min(length, lo + BLOCK)
                g, gu = gradient_sums(x[n, c, lo:hi], dy[n, c, lo:hi], s, d, a, b, e)
                total += wide(g)
                along += wide(gu)
        along *= wide(inverse)
        if dgamma.size > 0:
            dgamma[c] = real(weight_gradient(c, total, along, change))
            dbeta[c] = real(total)
        if wanted:
            mean_g, slope = real(total * share), real(along * share * wide(inverse))
            far = leaves_cache(dx)
            for n in range(x.shape[0]):
                if ahead:
                    prefetch_lines(x, (n * channels + c + 1) * length, length)
                    prefetch_lines(dy, (n * channels + c + 1) * length, length)
                gradient_either_way(x[n, c], dy[n, c], dx[n, c], s, d, a, b, mean_g, slope, e, far)
