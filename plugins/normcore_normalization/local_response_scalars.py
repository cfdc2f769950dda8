"""Scalar mathematics of local response normalization, shared by every device and memory format.

Every form of the op is one box sum. Arrays are seen as (A, D, H, W, B); the box spans `window` = (d, h, w) elements
of the middle three axes, `before` of which lie before the element:
    across channels   (N, 1, 1, C, positions) channels first, (M, 1, 1, C, 1) channels last, window (1, 1, size)
    within channels   (N * C, D, H, W, 1) channels first, (N, D, H, W, C) channels last, window (size, size, size)
"""

import math

from normcore.kernels import inline, real, wide
from normcore.kernels.powers import inverse_seven_quarters, inverse_three_quarters

LEAST, MOST = 1e-10, 1e10  # between these, no power of s that a kernel computes leaves float32
THREE_QUARTERS = False  # a constant of each kernel: beta is 0.75


@inline
def power(s, beta):
    """s^-beta in the kernel's dtype, for LEAST <= s <= MOST."""
    if THREE_QUARTERS:
        return 1.0 / math.sqrt(s * math.sqrt(s))
    return math.exp(-beta * math.log(s))


@inline
def line_power(s, beta):
    """The same in lines of CPU kernels, where divisions and roots are dear."""
    if THREE_QUARTERS:
        return inverse_three_quarters(s)
    return math.exp(-beta * math.log(s))


@inline
def line_slope(s, p, beta):
    """s^(-beta - 1), given p = s^-beta."""
    if THREE_QUARTERS:
        return inverse_seven_quarters(s, p)
    return p / s


@inline
def power_wide(s, beta):
    if THREE_QUARTERS:
        return wide(1) / math.sqrt(s * math.sqrt(s))
    return s ** (-beta)


@inline
def scale_wide(x, n, d, h, w, b, before, window, alpha, k):
    """s of one element in float64: k + alpha * the sum of squares over its box."""
    total = wide(0)
    for i in range(max(0, d - before[0]), min(x.shape[1], d - before[0] + window[0])):
        for j in range(max(0, h - before[1]), min(x.shape[2], h - before[1] + window[1])):
            for m in range(max(0, w - before[2]), min(x.shape[3], w - before[2] + window[2])):
                v = wide(x[n, i, j, m, b])
                total += v * v
    return k + alpha * total


@inline
def gradient_wide(x, dy, n, d, h, w, b, before, window, alpha, k, beta):
    """dx of one element in float64. It lies in the boxes of the elements from `window - 1 - before` before it to
    `before` after it."""
    total = wide(0)
    d0 = d + before[0] - window[0] + 1
    h0 = h + before[1] - window[1] + 1
    w0 = w + before[2] - window[2] + 1
    for i in range(max(0, d0), min(x.shape[1], d0 + window[0])):
        for j in range(max(0, h0), min(x.shape[2], h0 + window[1])):
            for m in range(max(0, w0), min(x.shape[3], w0 + window[2])):
                s = scale_wide(x, n, i, j, m, b, before, window, alpha, k)
                g = wide(dy[n, i, j, m, b])
                total += g * power_wide(s, beta) * (wide(x[n, i, j, m, b]) / s)
    s = scale_wide(x, n, d, h, w, b, before, window, alpha, k)
    along = wide(2) * alpha * beta * wide(x[n, d, h, w, b])
    return real(wide(dy[n, d, h, w, b]) * power_wide(s, beta) - along * total)
