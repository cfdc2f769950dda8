"""Max pooling's scalar mathematics and rows: a row of outputs is the maximum down the rows it covers, then across."""

import numpy as np

from normcore.kernels import inline
from normcore.kernels.select import select

TAP = np.uint8  # type of a tap's offset; wider in kernels made for windows of more than 256 taps
MAXIMUM = True  # False in kernels made for minima


@inline
def better(value, best):
    """Whether value takes over as the maximum: it is larger (for minima: smaller), or NaN."""
    if MAXIMUM:
        return (value > best) | (value != value)
    return (value < best) | (value != value)


@inline
def whole_windows(size, out, kernel, stride, before, dilation):
    """The range of windows that lie inside the input from first to last tap."""
    lo = min(out, (before + stride - 1) // stride)
    rest = size + before - (kernel - 1) * dilation - 1
    hi = rest // stride + 1 if rest >= 0 else 0
    return lo, max(lo, min(out, hi))


# Down: whole rows of x, contiguous and as long as they are, into the scratch v with the tap in vi. Across:
# the columns of v. Between equal values the offset decides: the first in row-major order wins.


@inline
def first_of(value, tap, best, best_tap):
    """Whether value takes over across columns: of equal values the first, of NaN the last, as in row-major order."""
    if MAXIMUM:
        wins = value > best
    else:
        wins = value < best
    ties = (value == best) & (tap < best_tap)
    return wins | ties | ((value != value) & ((best == best) | (tap > best_tap)))


@inline
def down_one(x, v, vi, tap):
    k = TAP(tap)
    for i in range(v.size):
        v[i] = x[i]
        vi[i] = k


@inline
def down_two(p, q, v, vi, tap, next_tap):
    k = TAP(tap)
    k1 = TAP(next_tap)
    for i in range(v.size):
        t = better(q[i], p[i])
        v[i] = q[i] if t else p[i]
        vi[i] = k1 if t else k


@inline
def down_three(p, q, r, v, vi, tap, step):
    k = TAP(tap)
    k1 = TAP(tap + step)
    k2 = TAP(tap + step + step)
    for i in range(v.size):
        t = better(q[i], p[i])
        m = q[i] if t else p[i]
        a = k1 if t else k
        t = better(r[i], m)
        v[i] = r[i] if t else m
        vi[i] = k2 if t else a


@inline
def down_more(x, v, vi, tap):
    k = TAP(tap)
    for i in range(v.size):
        t = better(x[i], v[i])
        v[i] = select(t, x[i], v[i])
        vi[i] = select(t, k, vi[i])


@inline
def down(x, v, vi, d0, h0, kernel, dilation):
    """Maxima of the rows x (D, H, W) that a window starting at d0, h0 covers; v, vi (W,), W with any
    channels."""
    first = max(0, (-h0 + dilation[1] - 1) // dilation[1])
    last = min(kernel[1], (x.shape[1] - h0 + dilation[1] - 1) // dilation[1])
    fresh = True
    for kd in range(kernel[0]):
        d = d0 + kd * dilation[0]
        if 0 <= d < x.shape[0]:
            k = first
            if fresh:
                h = h0 + k * dilation[1]
                tap = (kd * kernel[1] + k) * kernel[2]
                if last - k >= 3:
                    down_three(
                        x[d, h], x[d, h + dilation[1]], x[d, h + 2 * dilation[1]], v, vi, tap, kernel[2]
                    )
                    k += 3
                elif last - k == 2:
                    down_two(x[d, h], x[d, h + dilation[1]], v, vi, tap, tap + kernel[2])
                    k += 2
                else:
                    down_one(x[d, h], v, vi, tap)
                    k += 1
                fresh = False
            while k < last:
                down_more(x[d, h0 + k * dilation[1]], v, vi, (kd * kernel[1] + k) * kernel[2])
                k += 1
