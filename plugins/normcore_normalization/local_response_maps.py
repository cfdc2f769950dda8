"""Local response normalization on the CPU within channels, and in float64 where float32's squares overflow.

A row of a map (W, B) is one line with zeros at both ends. The squares of the rows in the window are added up first,
then `size` copies of the sum, shifted by B each.
"""

from normcore.kernels import cpu, inline, prange, real, wide
from normcore_normalization.local_response_lines import (
    fill,
    input_gradient,
    powers,
    powers_both,
    shares,
    sum_shifted,
    times,
)
from normcore_normalization.local_response_scalars import gradient_wide, power_wide, scale_wide


@inline(reassociate=True)
def add_squares(x, z):
    total = real(0)
    for i in range(x.size):
        v = x[i] * x[i]
        z[i] += v
        total += v
    return total


@inline
def add_row(u, z):
    for i in range(u.size):
        z[i] += u[i]


@inline
def window_squares(x, d, h, z, left, before, window):
    """z = the sum of squares of the rows around row (d, h) of x (D, H, line), `left` elements in."""
    total = real(0)
    row = z[left : left + x.shape[2]]
    fill(row, real(0))
    for i in range(max(0, d - before[0]), min(x.shape[0], d - before[0] + window[0])):
        for j in range(max(0, h - before[1]), min(x.shape[1], h - before[1] + window[1])):
            total += add_squares(x[i, j], row)
    return total


@cpu
def forward_map(x, y, scratch, flags, apart, before, window, alpha, k, beta, most):
    """x, y (A, D, H, W * B), apart = B, scratch (tasks, 4, padded line)."""
    depth, height, line = x.shape[1], x.shape[2], x.shape[3]
    tasks = scratch.shape[0]
    rows = x.shape[0] * depth * height
    a, shift, exponent = real(alpha), real(k), real(beta)
    for task in prange(tasks):
        z, w = scratch[task, 0], scratch[task, 1, :line]
        good = True
        fill(z, real(0))
        for row in range(rows * task // tasks, rows * (task + 1) // tasks):
            n = row // (depth * height)
            d = row // height % depth
            h = row % height
            total = window_squares(x[n], d, h, z, before[2] * apart, before, window)
            sum_shifted(z, w, window[2], apart)
            powers(w, a, shift, exponent)
            times(x[n, d, h], w, y[n, d, h])
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@cpu
def shares_map(x, dy, t, u, scratch, flags, apart, before, window, alpha, k, beta, most):
    """t = dy s^-beta, u = dy x s^(-beta - 1), of x's shape (A, D, H, W * B)."""
    depth, height, line = x.shape[1], x.shape[2], x.shape[3]
    tasks = scratch.shape[0]
    rows = x.shape[0] * depth * height
    a, shift, exponent = real(alpha), real(k), real(beta)
    for task in prange(tasks):
        z, w, v = scratch[task, 0], scratch[task, 1, :line], scratch[task, 2, :line]
        good = True
        fill(z, real(0))
        for row in range(rows * task // tasks, rows * (task + 1) // tasks):
            n = row // (depth * height)
            d = row // height % depth
            h = row % height
            total = window_squares(x[n], d, h, z, before[2] * apart, before, window)
            sum_shifted(z, w, window[2], apart)
            powers_both(w, v, a, shift, exponent)
            shares(x[n, d, h], dy[n, d, h], w, v, t[n, d, h], u[n, d, h])
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@inline
def copy_row(source, target):
    for i in range(target.size):
        target[i] = source[i]


@cpu
def gather_map(x, u, dx, scratch, apart, before, window, alpha, beta):
    """dx = t - 2 alpha beta x * (sum of u over the boxes that hold the element); dx holds t."""
    depth, height, line = x.shape[1], x.shape[2], x.shape[3]
    tasks = scratch.shape[0]
    rows = x.shape[0] * depth * height
    along = 2.0 * real(alpha) * real(beta)
    left = (window[2] - 1 - before[2]) * apart
    for task in prange(tasks):
        z, w, t = scratch[task, 0], scratch[task, 1, :line], scratch[task, 2, :line]
        fill(z, real(0))
        for row in range(rows * task // tasks, rows * (task + 1) // tasks):
            n = row // (depth * height)
            d = row // height % depth
            h = row % height
            inner = z[left : left + line]
            fill(inner, real(0))
            d0 = d + before[0] - window[0] + 1
            h0 = h + before[1] - window[1] + 1
            for i in range(max(0, d0), min(depth, d0 + window[0])):
                for j in range(max(0, h0), min(height, h0 + window[1])):
                    add_row(u[n, i, j], inner)
            sum_shifted(z, w, window[2], apart)
            copy_row(dx[n, d, h], t)
            input_gradient(x[n, d, h], t, w, dx[n, d, h], along)


@cpu
def forward_wide(x, y, before, window, alpha, k, beta):
    """x, y (A, D, H, W, B)."""
    for n in prange(x.shape[0]):
        for d in range(x.shape[1]):
            for h in range(x.shape[2]):
                for w in range(x.shape[3]):
                    for b in range(x.shape[4]):
                        s = scale_wide(x, n, d, h, w, b, before, window, alpha, k)
                        y[n, d, h, w, b] = real(wide(x[n, d, h, w, b]) * power_wide(s, beta))


@cpu
def backward_wide(x, dy, dx, before, window, alpha, k, beta):
    for n in prange(x.shape[0]):
        for d in range(x.shape[1]):
            for h in range(x.shape[2]):
                for w in range(x.shape[3]):
                    for b in range(x.shape[4]):
                        dx[n, d, h, w, b] = gradient_wide(
                            x, dy, n, d, h, w, b, before, window, alpha, k, beta
                        )
