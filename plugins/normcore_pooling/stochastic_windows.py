"""Stochastic pooling a window at a time: on CUDA, and on the CPU where stochastic_lines.py finds no lines.

The rules are those of stochastic_pool.py. Arrays are (A, D, H, W, B), as in interval_windows.py; sums keeps the sum of
each window's weights for backward.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.random import uniform_32
from normcore_pooling.interval_forward import largest_of
from normcore_pooling.interval_windows import axes_of, first_of
from normcore_pooling.max_rows import TAP


@inline
def weight(v):
    """max(v, 0); NaN stays."""
    return real(0) if v < real(0) else v


@inline
def element(x, a, b, d0, h0, w0, tap, kernel):
    row = tap // kernel[2]
    return x[a, d0 + row // kernel[1], h0 + row % kernel[1], w0 + tap - row * kernel[2], b]


@inline
def drawn(x, a, b, d0, h0, w0, total, u, kernel):
    """The tap that u picks from a window with the finite sum `total`."""
    taps = kernel[0] * kernel[1] * kernel[2]
    if total == real(0):
        return min(taps - 1, np.int64(u * real(taps)))
    limit = u * total
    running = real(0)
    for d in range(kernel[0]):
        for h in range(kernel[1]):
            for w in range(kernel[2]):
                running += weight(x[a, d0 + d, h0 + h, w0 + w, b])
                if running > limit:
                    return (d * kernel[1] + h) * kernel[2] + w
    return taps - 1  # never: u * total is below total, and the sums are the same


@inline
def expected(x, a, b, d0, h0, w0, total, kernel):
    """The probability-weighted mean; a plain mean where nothing is positive."""
    mean = real(0)
    for d in range(d0, d0 + kernel[0]):
        for h in range(h0, h0 + kernel[1]):
            for w in range(w0, w0 + kernel[2]):
                v = x[a, d, h, w, b]
                if total == real(0):
                    mean += v / real(kernel[0] * kernel[1] * kernel[2])
                elif v > real(0):
                    mean += v * (v / total)  # v * v alone may overflow
    return mean


@inline
def pool_one(x, y, arg, sums, i, key, call, training, out, kernel, stride):
    """Output i of y (A, OD, OH, OW, B)."""
    at = axes_of(i, y.shape[4], out)
    a, b = at[0], at[4]
    d0, h0, w0 = at[1] * stride[0], at[2] * stride[1], at[3] * stride[2]
    total = real(0)
    for d in range(d0, d0 + kernel[0]):
        for h in range(h0, h0 + kernel[1]):
            for w in range(w0, w0 + kernel[2]):
                total += weight(x[a, d, h, w, b])
    tap = np.int64(0)
    if not total < real(math.inf):
        _, tap = largest_of(x, a, b, d0, d0 + kernel[0], h0, h0 + kernel[1], w0, w0 + kernel[2], kernel)
    elif training:
        logical = (((a * y.shape[4] + b) * out[0] + at[1]) * out[1] + at[2]) * out[2] + at[3]
        tap = drawn(x, a, b, d0, h0, w0, total, real(uniform_32(key, logical, call, 0)), kernel)
    if training or not total < real(math.inf):
        y[at] = element(x, a, b, d0, h0, w0, tap, kernel)
    else:
        y[at] = expected(x, a, b, d0, h0, w0, total, kernel)
    arg[at] = TAP(tap)
    sums[at] = total


@inline
def expected_gradient(x, y, dy, arg, sums, i, size, out, kernel, stride):
    """dx of element i of x (A, D, H, W, B) in inference."""
    a, d, h, w, b = axes_of(i, x.shape[4], size)
    v = x[a, d, h, w, b]
    zero = real(0)
    gradient = real(0)
    for od in range(
        first_of(d, size[0], out[0], kernel[0], stride[0], zero), min(out[0], d // stride[0] + 1)
    ):
        for oh in range(
            first_of(h, size[1], out[1], kernel[1], stride[1], zero), min(out[1], h // stride[1] + 1)
        ):
            for ow in range(
                first_of(w, size[2], out[2], kernel[2], stride[2], zero), min(out[2], w // stride[2] + 1)
            ):
                at = (a, od, oh, ow, b)
                total, g = sums[at], dy[at]
                if not total < real(math.inf):
                    tap = (d - od * stride[0]) * kernel[1] + h - oh * stride[1]
                    tap = tap * kernel[2] + w - ow * stride[2]
                    gradient += g if arg[at] == TAP(tap) else zero
                elif total == zero:
                    gradient += g / real(kernel[0] * kernel[1] * kernel[2])
                elif v > zero:
                    gradient += g * ((v - y[at]) / total + v / total)
    return gradient


@cpu
def forward_cpu(x, y, arg, sums, key, call, training, out, kernel, stride):
    for i in prange(y.size):
        pool_one(x, y, arg, sums, np.int64(i), key, call, training, out, kernel, stride)


@cuda
def forward_cuda(x, y, arg, sums, key, call, training, out, kernel, stride):
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        pool_one(x, y, arg, sums, i, key, call, training, out, kernel, stride)


@cuda
def expected_gradient_cuda(x, y, dy, arg, sums, dx, size, out, kernel, stride):
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        dx[i] = expected_gradient(x, y, dy, arg, sums, i, size, out, kernel, stride)
