"""The gradient of stochastic pooling's expected value on the CPU: dx of inference, whose rules stochastic_pool.py gives.

A task owns a plane (channels first), or some channels of a sample (channels last), and adds to them what its windows give,
a line of windows and a tap at a time: a row of outputs channels first, all channels of one output channels last.
Between the windows of a row the last tap comes first, so that an element adds up in the order of its windows in both.
"""

import math

import numpy as np

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.unaliased import nothing_overlaps
from normcore.kernels.window import window
from normcore_pooling.max_planes import clear
from normcore_pooling.max_rows import TAP


@inline(force=True)
def add_tap(x, y, dy, arg, sums, dx, tap, count, step):
    """Tap `tap` of y.size windows, whose elements are `step` apart. Unsigned indices: for signed ones Numba tests the
    sign."""
    nothing_overlaps()
    k = TAP(tap)
    for i in range(y.size):
        at = np.uint64(i) * np.uint64(step)
        v, g, total, mean, before = x[at], dy[i], sums[i], y[i], dx[at]
        share = g * ((v - mean) / total + v / total)
        share = share if v > real(0) else real(0)
        share = g / count if total == real(0) else share
        whole = g if arg[i] == k else real(0)
        dx[at] = before + (share if total < real(math.inf) else whole)


@inline(force=True)
def add_line(x, y, dy, arg, sums, dx, at, lo, hi, places, step):
    """Windows lo to hi - 1, the first of which begins at x[at]; places: of its taps, from there on."""
    for k in range(places.size):
        tap = places.size - 1 - k
        of = at + places[tap]
        end = of + (hi - lo - 1) * step + 1
        add_tap(
            window(x, of, end), window(y, lo, hi), window(dy, lo, hi), window(arg, lo, hi), window(sums, lo, hi),
            window(dx, of, end), tap, real(places.size), step,
        )  # fmt: skip


@cpu
def expected_gradient_lines(x, y, dy, arg, sums, dx, places, outer, inner, parts, size, out, stride):
    """Flat arrays of shape (outer, D, H, W, inner). parts: of the inner channels, each a task's."""
    positions = size[0] * size[1] * size[2]
    block = (inner + parts - 1) // parts
    for j in prange(outer * parts):
        a = np.int64(j) // parts
        first = min(inner, (np.int64(j) - a * parts) * block)
        last = min(inner, first + block)
        for place in range(a * positions, (a + 1) * positions if first < last else a * positions):
            clear(window(dx, place * inner + first, place * inner + last))
        for row in range(a * out[0] * out[1], (a + 1) * out[0] * out[1]):
            layer = row // out[1]
            h = (layer - a * out[0]) * stride[0] * size[1] + (row - layer * out[1]) * stride[1]
            at = a * positions + h * size[2]
            if inner == 1 and stride[2] > 1:
                lo = row * out[2]
                add_line(x, y, dy, arg, sums, dx, at, lo, lo + out[2], places, stride[2])
            elif inner == 1:
                lo = row * out[2]
                add_line(x, y, dy, arg, sums, dx, at, lo, lo + out[2], places, 1)
            elif first < last:
                for ow in range(out[2]):
                    lo, of = (row * out[2] + ow) * inner, (at + ow * stride[2]) * inner + first
                    add_line(x, y, dy, arg, sums, dx, of, lo + first, lo + last, places, 1)
