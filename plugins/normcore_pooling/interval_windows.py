"""Windows that follow a rule, for poolings whose windows lie side by side, overlap, or differ in size and place.

Along each axis window o holds the elements start_of(o) up to, not including, stop_of(o), all inside the input:

    REGULAR     o * stride                                        kernel elements
    FRACTIONAL  int((o + u) * alpha) - int(u * alpha)             kernel elements; the last window reaches the
                alpha = (size - kernel) / (out - 1)               end; u in [0, 1) of each plane and axis

Starts never descend, so the windows of one element are first_of(element) and those behind it until one starts
too late: backward gathers without a search. Kernels see arrays (A, D, H, W, B): A = N * C and B = 1 channels
first, A = N and B = C channels last. Plane p = a * B + b is the logical n * C + c in both.
"""

import math

import numpy as np

from normcore import ShapeError
from normcore.kernels import inline, real

REGULAR, FRACTIONAL = 0, 1
RULE = REGULAR  # of a kernel made by with_constants(RULE=...)


@inline
def axes_of(i, inner, sizes):
    """(a, d, h, w, b) of element i of an array (A, D, H, W, B); sizes: (D, H, W)."""
    place = i // inner
    row = place // sizes[2]
    layer = row // sizes[1]
    return layer // sizes[0], layer % sizes[0], row % sizes[1], place % sizes[2], i - place * inner


@inline
def start_of(o, size, out, kernel, stride, u):
    if RULE == FRACTIONAL:
        if o == out - 1:
            return size - kernel
        alpha = real(size - kernel) / real(out - 1)
        return np.int64((real(o) + u) * alpha) - np.int64(u * alpha)
    return o * stride


@inline
def stop_of(o, size, out, kernel, stride, u):
    return start_of(o, size, out, kernel, stride, u) + kernel


@inline
def first_of(at, size, out, kernel, stride, u):
    """The first window that ends behind element `at`; it holds the element if it does not start behind it."""
    if RULE == FRACTIONAL:
        low = 0
        high = out - 1
        while low < high:
            middle = (low + high) // 2
            if start_of(middle, size, out, kernel, stride, u) + kernel > at:
                high = middle
            else:
                low = middle + 1
        return low
    return max(0, (at - kernel) // stride + 1)


@inline
def offset_of(offsets, plane, axis):
    """u of a plane along an axis; offsets (planes, 3) of the FRACTIONAL rule."""
    if RULE == FRACTIONAL:
        return offsets[plane, axis]
    return real(0)


class Geometry:
    """Shapes as the kernels see them: x and y (A, D, H, W, B), and four tuples of three for the windows."""

    def __init__(self, shape, format, out, kernel, stride=None):
        """shape: of x in memory. out, kernel, stride: a number for each spatial dimension."""
        first = format == "channels_first"
        outer = shape[0] * shape[1] if first else shape[0]
        spatial = tuple(shape[2:] if first else shape[1:-1])
        inner = 1 if first else shape[-1]
        ones = (1,) * (3 - len(spatial))
        self.size, self.out, self.kernel = (*ones, *spatial), (*ones, *out), (*ones, *kernel)
        self.stride = (*ones, *(stride or kernel))
        self.x, self.y = (outer, *self.size, inner), (outer, *self.out, inner)
        self.windows = (self.size, self.out, self.kernel, self.stride)

    @property
    def taps(self):
        return math.prod(self.kernel)


def check_rank(op, shape):
    """Raises ShapeError unless shape is (N, C, *spatial) with one to three spatial dimensions."""
    if not 3 <= len(shape) <= 5:
        raise ShapeError(f"{op}: expected (N, C, *spatial) with 1 to 3 spatial dimensions, got {shape}")


def tap_dtype(taps):
    """The smallest unsigned type that holds the offset of a tap in its window."""
    return next(kind for kind in ("uint8", "uint16", "uint32") if taps <= 1 << 8 * np.dtype(kind).itemsize)
