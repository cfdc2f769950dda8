"""Maximum, or a mixture of maximum and mean, over the windows of interval_windows.py.

    MAX    y = max; arg = offset of the maximum in its window, ((d * kernel_h) + h) * kernel_w + w
    MIXED  y = mix * max + (1 - mix) * mean; arg as for MAX; rest = max - mean, the slope by mix

Between equal values the first wins, NaN wins over all. On CUDA sums run along a row of the window first, so that the
rounding error grows with its sides and not with its area.
"""

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.select import select
from normcore_pooling.interval_windows import offset_of, start_of, stop_of
from normcore_pooling.max_rows import TAP, better

MAX, MIXED = 0, 1
MODE = MAX  # of a kernel made by with_constants(MODE=...)


@inline
def blend(largest, mean, mix):
    return mix * largest + (real(1) - mix) * mean


@inline
def largest_of(x, a, b, d0, d1, h0, h1, w0, w1, kernel):
    """The maximum of a window and its tap."""
    best = x[a, d0, h0, w0, b]
    tap = 0
    for d in range(d0, d1):
        for h in range(h0, h1):
            for w in range(w0, w1):
                v = x[a, d, h, w, b]
                if better(v, best):
                    best = v
                    tap = ((d - d0) * kernel[1] + h - h0) * kernel[2] + w - w0
    return best, tap


@inline
def mean_of(x, a, b, d0, d1, h0, h1, w0, w1):
    total = wide(0)
    for d in range(d0, d1):
        for h in range(h0, h1):
            line = real(0)
            for w in range(w0, w1):
                line += x[a, d, h, w, b]
            total += wide(line)
    return real(total / wide((d1 - d0) * (h1 - h0) * (w1 - w0)))


@inline
def pool_window(x, y, arg, rest, mix, a, od, oh, ow, b, d0, d1, h0, h1, w0, w1, kernel):
    """One output, of a window with these limits."""
    best, tap = largest_of(x, a, b, d0, d1, h0, h1, w0, w1, kernel)
    arg[a, od, oh, ow, b] = TAP(tap)
    if MODE == MIXED:
        mean = mean_of(x, a, b, d0, d1, h0, h1, w0, w1)
        rest[a, od, oh, ow, b] = best - mean
        best = blend(best, mean, mix[0])
    y[a, od, oh, ow, b] = best


# -- CPU ---------------------------------------------------------------------------------------------------
# The mixture, channels last: all channels of a window at once, a tap at a time.


@inline
def set_to(x, y):
    for c in range(y.size):
        y[c] = x[c]


@inline
def add_to(x, y):
    for c in range(y.size):
        y[c] += x[c]


@inline
def begin_best(x, y, arg):
    for c in range(y.size):
        y[c] = x[c]
        arg[c] = TAP(0)


@inline
def keep_best(x, y, arg, tap):
    k = TAP(tap)
    for c in range(y.size):
        t = better(x[c], y[c])
        y[c] = select(t, x[c], y[c])
        arg[c] = select(t, k, arg[c])


@inline
def blend_line(y, rest, count, mix):
    for c in range(y.size):
        mean = rest[c] / count
        rest[c] = y[c] - mean
        y[c] = blend(y[c], mean, mix)


@inline
def mix_line(x, y, arg, rest, mix, d0, d1, h0, h1, w0, w1, kernel):
    """x (D, H, W, C) of a sample; y, arg, rest (C,) of one window."""
    for d in range(d0, d1):
        for h in range(h0, h1):
            begun = d > d0 or h > h0
            tap = ((d - d0) * kernel[1] + h - h0) * kernel[2] - w0
            if not begun:
                begin_best(x[d, h, w0], y, arg)
                set_to(x[d, h, w0], rest)
            first = w0 if begun else w0 + 1
            for w in range(first, w1):
                keep_best(x[d, h, w], y, arg, tap + w)
            for w in range(first, w1):
                add_to(x[d, h, w], rest)
    blend_line(y, rest, real((d1 - d0) * (h1 - h0) * (w1 - w0)), mix[0])


@cpu
def mix_cpu(x, y, arg, rest, mix, out, kernel, stride):
    """Windows of the regular rule; a task owns a row of outputs."""
    for j in prange(y.shape[0] * out[0] * out[1]):
        row = np.int64(j)
        oh = row % out[1]
        od = row // out[1] % out[0]
        a = row // out[1] // out[0]
        d0, h0 = od * stride[0], oh * stride[1]
        d1, h1 = d0 + kernel[0], h0 + kernel[1]
        for ow in range(out[2]):
            w0 = ow * stride[2]
            at = (a, od, oh, ow)
            mix_line(x[a], y[at], arg[at], rest[at], mix, d0, d1, h0, h1, w0, w0 + kernel[2], kernel)


# -- CUDA --------------------------------------------------------------------------------------------------


@cuda
def forward_cuda(x, y, arg, rest, mix, offsets, size, out, kernel, stride):
    """A thread an output; neighbouring threads, neighbouring outputs."""
    inner = y.shape[4]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        place = i // inner
        row = place // out[2]
        layer = row // out[1]
        a = layer // out[0]
        b = i - place * inner
        od, oh, ow = layer - a * out[0], row - layer * out[1], place - row * out[2]
        plane = a * inner + b
        u = offset_of(offsets, plane, 0)
        d0 = start_of(od, size[0], out[0], kernel[0], stride[0], u)
        d1 = stop_of(od, size[0], out[0], kernel[0], stride[0], u)
        u = offset_of(offsets, plane, 1)
        h0 = start_of(oh, size[1], out[1], kernel[1], stride[1], u)
        h1 = stop_of(oh, size[1], out[1], kernel[1], stride[1], u)
        u = offset_of(offsets, plane, 2)
        w0 = start_of(ow, size[2], out[2], kernel[2], stride[2], u)
        w1 = stop_of(ow, size[2], out[2], kernel[2], stride[2], u)
        pool_window(x, y, arg, rest, mix, a, od, oh, ow, b, d0, d1, h0, h1, w0, w1, kernel)
