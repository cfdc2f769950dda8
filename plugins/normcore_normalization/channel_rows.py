"""Loops over rows of (R, W) arrays, channels last: each column is a channel, or a repetition of one.

Row after row, which is how memory is fetched ahead: sums of four long rows at a time take twice as long. The loops are forced
inline: a call would cost as much as a row of 256 values. Columns lo to hi are visited; shift, rest, a, b, total, ..
hold a value for each of these columns.
"""

import math

from normcore.kernels import epilogue, epilogue_gradient, inline, real, wide
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import AHEAD, prefetch_lines, prefetch_once
from normcore.kernels.streaming import either_way, leaves_cache
from normcore.kernels.unaliased import unaliased
from normcore_normalization.channel_planes import keep_statistics, move_running
from normcore_normalization.channel_scalars import affine, centered, trusted

NAN = math.nan


@inline(force=True)
def one_sums(p, shift, total, squares):
    for i in range(p.size):
        u = p[i] - shift[i]
        total[i] += u
        squares[i] += u * u
        line_by_line()


@inline
def sum_rows(x, first, last, lo, hi, shift, total, squares, once):
    """Add x - shift and its square, rows first to last; once: they leave the caches before they are read again."""
    t, q = unaliased(total), unaliased(squares)
    for r in range(first, last):
        if once:
            prefetch_once(x, r * x.shape[1] + lo + AHEAD, hi - lo)
        else:
            prefetch_lines(x, r * x.shape[1] + lo + AHEAD, hi - lo)
        one_sums(x[r, lo:hi], shift, t, q)


@inline(force=True)
def four_sums(p, q, r, s, shift, total, squares):
    for i in range(total.size):
        t = p[i] - shift[i]
        u = q[i] - shift[i]
        v = r[i] - shift[i]
        w = s[i] - shift[i]
        total[i] += (t + u) + (v + w)
        squares[i] += (t * t + u * u) + (v * v + w * w)


@inline
def sum_short_rows(x, first, last, lo, hi, shift, total, squares):
    """sum_rows for columns of a few lines, four rows at a time: memory is not fetched ahead there anyway."""
    whole = first + max(0, last - first) // 4 * 4
    for r in range(first, whole, 4):
        four_sums(x[r, lo:hi], x[r + 1, lo:hi], x[r + 2, lo:hi], x[r + 3, lo:hi], shift, total, squares)
    sum_rows(x, whole, last, lo, hi, shift, total, squares, False)


@inline(force=True)
def normalize_row(x, y, shift, rest, a, b, e):
    for i in range(x.size):
        y[i] = epilogue(affine(x[i], shift[i], rest[i], a[i], b[i]), e)


normalize_either_way = either_way(
    normalize_row, read=["x", "shift", "rest", "a", "b"], written=["y"], asked=["x"]
)


@inline
def normalize_rows(x, y, first, last, lo, hi, shift, rest, a, b, far, e):
    """far: around the caches."""
    for r in range(first, last):
        normalize_either_way(x[r, lo:hi], y[r, lo:hi], shift, rest, a, b, e, far)


@inline(force=True)
def one_gradient_sums(x, dy, shift, rest, a, b, total, along, e):
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        total[i] += g
        along[i] += g * centered(x[i], shift[i], rest[i])
        line_by_line()


@inline
def sum_gradient_rows(x, dy, first, last, lo, hi, shift, rest, a, b, total, along, e):
    """Add g and g * (x - mean); g is dy before the epilogue."""
    t, u = unaliased(total), unaliased(along)
    for r in range(first, last):
        one_gradient_sums(x[r, lo:hi], dy[r, lo:hi], shift, rest, a, b, t, u, e)


@inline(force=True)
def row_gradient(x, dy, dx, shift, rest, a, b, mean_g, slope, e):
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a[i] * (g - mean_g[i] - centered(x[i], shift[i], rest[i]) * slope[i])
        line_by_line()


gradient_either_way = either_way(
    row_gradient,
    read=["x", "dy", "shift", "rest", "a", "b", "mean_g", "slope"],
    written=["dx"],
    asked=["x", "dy"],
)


@inline
def gradient_rows(x, dy, dx, first, last, lo, hi, shift, rest, a, b, mean_g, slope, e):
    far = leaves_cache(dx)
    for r in range(first, last):
        p, g, d = x[r, lo:hi], dy[r, lo:hi], dx[r, lo:hi]
        gradient_either_way(p, g, d, shift, rest, a, b, mean_g, slope, e, far)


@inline
def set_zero(target):
    for i in range(target.size):
        target[i] = wide(0)


@inline
def add_wide(source, target):
    for c in range(source.size):
        target[c] += wide(source[c])


@inline
def move_wide(source, target):
    """Add float32 sums to float64 ones, and clear them."""
    add_wide(source, target)
    for c in range(source.size):
        source[c] = real(0)


@inline(force=True)
def moments(total, squares, shift, count, eps):
    """Sums relative to shift become mean and variance, in place; how many cannot be trusted (NaN variance)."""
    doubtful = 0
    for c in range(total.size):
        t, q = total[c], squares[c]
        sure = trusted(t, q, count, eps)
        total[c] = wide(shift[c]) + t / count
        squares[c] = (q - t * t / count) / count if sure else wide(NAN)
        doubtful += 0 if sure else 1
    return doubtful


@inline(force=True)
def keep_all(mean, var, eps, shift, rest, scale):
    for c in range(mean.size):
        keep_statistics(c, mean[c], var[c], eps, shift, rest, scale)


@inline(force=True)
def move_all(mean, var, count, momentum, running_mean, running_var):
    for c in range(running_mean.size):
        move_running(c, mean[c], var[c], count, momentum, running_mean, running_var)
