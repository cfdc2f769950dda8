"""Kernels of filter_response_norm on the CPU: x (N, C, L) channels first, (N, L, C) channels last.

A plane, or a strip of channels, is small enough to be in the L2 cache still when it is read for the second time.
sums (3, N, C) float64 gets each plane's shares of dgamma, dbeta and dtau; they are added in the order of samples.
"""

import math

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.unaliased import nothing_overlaps, unaliased

BLOCK = 4096  # values summed in the kernel's own precision before float64 takes over
ROWS = 64  # the same for channels last, where each row adds one value to every channel


@inline
def usable(total, count):
    """Whether a sum of float32 squares is right: neither overflowed nor lost below the smallest number."""
    return total < wide(1e37) and total > count * wide(1e-30)


@inline
def inverse_root(total, count, eps):
    return real(wide(1) / math.sqrt(total / count + eps))


@inline
def above(z, tau):
    """The thresholded linear unit; NaN stays."""
    return tau if z < tau else z


@inline
def member(array, c, default):
    return array[c] if array.size > 0 else default


# -- channels first ----------------------------------------------------------------------------------------


@inline(reassociate=True)
def squares(x):
    total = real(0)
    for i in range(x.size):
        total += x[i] * x[i]
    return total


@inline(reassociate=True)
def squares_wide(x):
    total = wide(0)
    for i in range(x.size):
        total += wide(x[i]) * wide(x[i])
    return total


@inline
def scale_and_limit(x, y, a, b, tau):
    for i in range(x.size):
        y[i] = above(x[i] * a + b, tau)


@inline
def scale_only(x, y, a, b):
    for i in range(x.size):
        y[i] = x[i] * a + b


@cpu
def forward_planes(x, y, gamma, beta, tau, scale, eps):
    """scale (N, C): 1 / sqrt(mean square + eps)."""
    channels, length = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0] * channels):
        n = plane // channels
        c = plane - n * channels
        total = wide(0)
        for lo in range(0, length, BLOCK):
            total += wide(squares(x[n, c, lo : min(length, lo + BLOCK)]))
        if not usable(total, wide(length)):
            total = squares_wide(x[n, c])
        scale[n, c] = inverse_root(total, wide(length), eps)
        if tau.size > 0:
            scale_and_limit(x[n, c], y[n, c], scale[n, c] * gamma[c], beta[c], tau[c])
        else:
            scale_only(x[n, c], y[n, c], scale[n, c] * gamma[c], beta[c])


@inline(reassociate=True)
def plane_sums(x, dy, r, a, b, tau, limited):
    """Sums of g * xhat, of g and of what the threshold takes; g is dy where y is above it."""
    along = real(0)
    total = real(0)
    taken = real(0)
    for i in range(x.size):
        low = limited and scaled(x[i], a, b) < tau
        g = real(0) if low else dy[i]
        along += g * scaled(x[i], r, real(0))
        total += g
        taken += dy[i] if low else real(0)
    return along, total, taken


@inline
def scaled(x, a, b):
    """The same rounding in every kernel, so that all agree where the threshold lies."""
    return x * a + b


@inline
def plane_gradient(x, dy, dx, r, a, b, tau, limited, slope):
    for i in range(x.size):
        g = real(0) if limited and scaled(x[i], a, b) < tau else dy[i]
        dx[i] = a * (g - x[i] * r * slope)


@cpu
def backward_planes(x, dy, dx, gamma, beta, tau, scale, sums, wanted):
    channels, length = x.shape[1], x.shape[2]
    for plane in prange(x.shape[0] * channels):
        n = plane // channels
        c = plane - n * channels
        r = scale[n, c]
        a, b, limit = r * gamma[c], beta[c], member(tau, c, real(0))
        limited = tau.size > 0
        along = wide(0)
        total = wide(0)
        taken = wide(0)
        for lo in range(0, length, BLOCK):
            hi = min(length, lo + BLOCK)
            s, g, u = plane_sums(x[n, c, lo:hi], dy[n, c, lo:hi], r, a, b, limit, limited)
            along += wide(s)
            total += wide(g)
            taken += wide(u)
        sums[0, n, c], sums[1, n, c], sums[2, n, c] = along, total, taken
        if wanted:
            slope = real(along / wide(length))
            plane_gradient(x[n, c], dy[n, c], dx[n, c], r, a, b, limit, limited, slope)


# -- channels last -----------------------------------------------------------------------------------------


@inline(force=True)
def add_squares(x, line):
    for c in range(x.size):
        line[c] += x[c] * x[c]


@inline
def column_squares_wide(x, c):
    total = wide(0)
    for i in range(x.shape[0]):
        total += wide(x[i, c]) * wide(x[i, c])
    return total


@inline
def fold(line, total):
    for c in range(line.size):
        total[c] += wide(line[c])
        line[c] = real(0)


@inline
def clear(a, value):
    for c in range(a.size):
        a[c] = value


@inline(force=True)
def limit_row(x, y, a, b, tau):
    nothing_overlaps()
    for c in range(y.size):
        y[c] = above(x[c] * a[c] + b[c], tau[c])


@inline(force=True)
def scale_row(x, y, a, b):
    nothing_overlaps()
    for c in range(y.size):
        y[c] = x[c] * a[c] + b[c]


@cpu
def forward_positions(x, y, gamma, beta, tau, scale, lines, sums, width, eps):
    """lines (tasks, 6, width) is scratch, a task a strip of `width` channels of a sample."""
    length, channels = x.shape[1], x.shape[2]
    strips = (channels + width - 1) // width
    for task in prange(x.shape[0] * strips):
        n = task // strips
        lo = (task - n * strips) * width
        hi = min(channels, lo + width)
        line, a = unaliased(lines[task, 0, : hi - lo]), lines[task, 1, : hi - lo]
        total = sums[0, n, lo:hi]
        clear(line, real(0))
        clear(total, wide(0))
        for first in range(0, length, ROWS):
            for i in range(first, min(length, first + ROWS)):
                add_squares(x[n, i, lo:hi], line)
            fold(line, total)
        for c in range(lo, hi):
            if not usable(total[c - lo], wide(length)):
                total[c - lo] = column_squares_wide(x[n], c)
            scale[n, c] = inverse_root(total[c - lo], wide(length), eps)
            a[c - lo] = scale[n, c] * gamma[c]
        for i in range(length):
            row = y[n, i, lo:hi]
            if tau.size > 0:
                limit_row(x[n, i, lo:hi], row, a, beta[lo:hi], tau[lo:hi])
            else:
                scale_row(x[n, i, lo:hi], row, a, beta[lo:hi])


@inline(force=True)
def row_sums(x, dy, r, a, b, tau, along, total, taken):
    for c in range(x.size):
        low = scaled(x[c], a[c], b[c]) < tau[c]
        g = real(0) if low else dy[c]
        along[c] += g * (x[c] * r[c])
        total[c] += g
        taken[c] += dy[c] if low else real(0)


@inline(force=True)
def row_sums_unlimited(x, dy, r, along, total):
    for c in range(x.size):
        along[c] += dy[c] * (x[c] * r[c])
        total[c] += dy[c]


@inline(force=True)
def row_gradient(x, dy, dx, r, a, b, tau, slope):
    nothing_overlaps()
    for c in range(x.size):
        g = real(0) if scaled(x[c], a[c], b[c]) < tau[c] else dy[c]
        dx[c] = a[c] * (g - x[c] * r[c] * slope[c])


@inline(force=True)
def row_gradient_unlimited(x, dy, dx, r, a, slope):
    nothing_overlaps()
    for c in range(x.size):
        dx[c] = a[c] * (dy[c] - x[c] * r[c] * slope[c])


@cpu
def backward_positions(x, dy, dx, gamma, beta, tau, scale, lines, sums, width, wanted):
    length, channels = x.shape[1], x.shape[2]
    strips = (channels + width - 1) // width
    for task in prange(x.shape[0] * strips):
        n = task // strips
        lo = (task - n * strips) * width
        hi = min(channels, lo + width)
        count = hi - lo
        along, total = unaliased(lines[task, 0, :count]), unaliased(lines[task, 1, :count])
        taken = unaliased(lines[task, 2, :count])
        a, slope = lines[task, 3, :count], lines[task, 4, :count]
        r, b = scale[n, lo:hi], beta[lo:hi]
        for c in range(count):
            a[c] = r[c] * gamma[lo + c]
        for line in (along, total, taken):
            clear(line, real(0))
        for j in range(3):
            clear(sums[j, n, lo:hi], wide(0))
        for first in range(0, length, ROWS):
            for i in range(first, min(length, first + ROWS)):
                if tau.size > 0:
                    row_sums(x[n, i, lo:hi], dy[n, i, lo:hi], r, a, b, tau[lo:hi], along, total, taken)
                else:
                    row_sums_unlimited(x[n, i, lo:hi], dy[n, i, lo:hi], r, along, total)
            fold(along, sums[0, n, lo:hi])
            fold(total, sums[1, n, lo:hi])
            fold(taken, sums[2, n, lo:hi])
        if wanted:
            for c in range(count):
                slope[c] = real(sums[0, n, lo + c] / wide(length))
            for i in range(length):
                p, g, d = x[n, i, lo:hi], dy[n, i, lo:hi], dx[n, i, lo:hi]
                if tau.size > 0:
                    row_gradient(p, g, d, r, a, b, tau[lo:hi], slope)
                else:
                    row_gradient_unlimited(p, g, d, r, a, slope)


@inline
def sample_total(sums, j, c):
    total = wide(0)
    for n in range(sums.shape[1]):
        total += sums[j, n, c]
    return total


@cpu
def collect(sums, dgamma, dbeta, dtau):
    for c in range(dgamma.size):
        dgamma[c] = real(sample_total(sums, 0, c))
        dbeta[c] = real(sample_total(sums, 1, c))
        if dtau.size > 0:
            dtau[c] = real(sample_total(sums, 2, c))
