"""One pooling bound to shapes: sums or extremes over windows or bins, forward and backward, on any device.

What avg_pool, lp_pool, the adaptive and the global pools have in common; each says what its windows are.
"""

import math
from dataclasses import dataclass

import numpy as np

from normcore import ParameterError, ShapeError
from normcore.shapes import ONE
from normcore_pooling import reduce_cuda, whole_map
from normcore_pooling.links import of_bins, of_window, side_by_side
from normcore_pooling.positions import (
    AVERAGE,
    LARGEST,
    MATCH,
    NO_ARG,
    NO_FACTORS,
    SCALED,
    SPREAD,
    SQUARES,
    arguments,
    reduce_positions,
    scratch_arrays,
)

EVERYTHING, INSIDE, NOTHING = 1, 0, 2  # what an average counts: padding too, the input only, nothing (a sum)


@dataclass(frozen=True)
class Geometry:
    """Windows or bins along three dimensions (those that are not there have one element).

    both: the links of each. windows: shapes.Window of each, or None for bins. counted: EVERYTHING, INSIDE or
    NOTHING. divisor: a further divisor.
    """

    both: tuple
    windows: tuple | None = None
    counted: int = INSIDE
    divisor: float = 1

    @property
    def size(self):
        return tuple(b.size for b in self.both)

    @property
    def out(self):
        return tuple(b.out for b in self.both)

    @property
    def whole(self):
        """Whether there is one output, of all inputs in their order."""
        windows = self.windows or ()
        return self.out == (1, 1, 1) and all(w.kernel == w.size and not w.before for w in windows)

    def counts(self):
        """What outputs divide by along each dimension, float64; the divisor is in the last."""
        found = []
        for k, b in enumerate(self.both):
            count = np.diff(b.forward.first).astype(np.float64)
            if self.counted == NOTHING:
                count[:] = 1
            elif self.counted == EVERYTHING and self.windows is not None:
                w = self.windows[k]
                count = np.minimum(w.kernel, w.size + w.after + w.before - np.arange(w.out) * w.stride)
            found.append(count * float(self.divisor if k == 2 else 1))
        return tuple(found)


def geometry_of_windows(found, counted, divisor=1):
    three = (ONE,) * (3 - len(found)) + tuple(found)
    return Geometry(tuple(of_window(w).with_taps(np.zeros(w.kernel)) for w in three), three, counted, divisor)


def geometry_of_bins(spatial, out, counted=INSIDE, tapped=True):
    """A tap is its position's contribution to the flat index in the map; without taps, for sums, all are 0."""
    if all(o == 1 for o in out):  # one bin: the map is a single row, whose positions are one run
        spatial, out = (math.prod(spatial),), (1,)
    missing = (1,) * (3 - len(spatial))
    size, out = missing + tuple(spatial), missing + tuple(out)
    apart = (size[1] * size[2], size[2], 1) if tapped else (0, 0, 0)
    pairs = zip(size, out, apart, strict=True)
    return Geometry(tuple(of_bins(s, o).with_taps(np.arange(s) * n) for s, o, n in pairs), None, counted)


def geometry_of_pyramid(spatial, levels):
    """The bins of all levels, one after the other, as one dimension of the flat map; a tap is a flat position."""
    one = of_bins(1, 1)
    bins = side_by_side([tuple(of_bins(s, n) for s in spatial) for n in levels])
    return Geometry((one, one, bins), None, INSIDE)


def check_map(op, shape, most=5):
    """Raises ShapeError unless shape is (N, C, *spatial) with something in the map."""
    if not 3 <= len(shape) <= most or 0 in shape[2:]:
        raise ShapeError(
            f"{op}: expected (N, C, *spatial) with 1 to {most - 2} spatial dimensions, none of them empty, got {shape}"
        )


def workspace(geometry, shape):
    """What Reduction needs for an input of this logical shape."""
    scratch = scratch_arrays(geometry.both)
    if geometry.whole:
        scratch |= whole_map.scratch_arrays(*shape[:2], math.prod(shape[2:]))
    return scratch


class Reduction:
    """The kernels of one geometry for the arrays of one layer (t)."""

    def __init__(self, geometry, t, shape):
        """shape: of the layer's input, physical."""
        first = t.format == "channels_first"
        self.geometry = geometry
        counts = geometry.counts()
        shares = tuple(1 / c for c in counts)
        self.divisors, self.factors = np.concatenate(counts), np.concatenate(shares)
        outer, inner = (shape[0] * shape[1], 1) if first else (shape[0], shape[-1])
        self.x, self.y = (outer, *geometry.size, inner), (outer, *geometry.out, inner)
        if t.device.name == "cpu":
            both, sizes = geometry.both, (outer, inner)
            self.forward = arguments(both, *sizes, "forward", t.terms, t.weights, counts)
            self.backward = arguments(both, *sizes, "backward", t.terms, t.weights, shares)
            if geometry.whole:
                positions = math.prod(geometry.size)
                parts = whole_map.parts_of(positions)
                blocks = whole_map.blocks_of(outer * parts, inner)
                self.divisor = np.array([np.prod(self.divisors), 1], t.x.dtype)
                self.sums = (t.partial, outer, positions, inner, parts, blocks)

    @classmethod
    def of(cls, t, shape, make):
        """The layer's own, made at its first call: it depends on the bound shapes alone."""
        found = vars(t).get("reduction")
        if found is None:
            found = t.reduction = cls(make(), t, shape)
        return found

    def average(self, t, x, y):
        """y: sums of x over the windows, divided."""
        if self.geometry.whole:
            self._sum_maps(t, x, y, False)
        else:
            self._forward(t, AVERAGE, x, y, NO_ARG, self.divisors)

    def squares(self, t, x, y):
        """The same of the squares of x."""
        if self.geometry.whole:
            self._sum_maps(t, x, y, True)
        else:
            self._forward(t, SQUARES, x, y, NO_ARG, self.divisors)

    def spread(self, t, dy, dx):
        """The gradient of average."""
        self._backward(t, SPREAD, dy, dx, NO_ARG, self.factors)

    def spread_times(self, t, dy, scale, dx):
        """The gradient of average where nothing is counted, times `scale`, of dx's shape."""
        self._backward(t, SCALED, dy, dx, scale, NO_FACTORS)

    def largest(self, t, x, y, arg):
        if self.geometry.whole and y.size:
            _, batch, positions, channels, *_ = self.sums
            blocks = whole_map.blocks_of(batch, channels)
            kernel = whole_map.extremes_of_maps.with_constants(MAXIMUM=True, TAP=arg.dtype.type)
            kernel[t](x.reshape(-1), y.reshape(-1), arg.reshape(-1), positions, channels, blocks)
            return
        self._forward(t, LARGEST, x, y, arg, NO_FACTORS)

    def route(self, t, dy, dx, arg):
        """The gradient of largest."""
        if not self.geometry.whole:
            self._backward(t, MATCH, dy, dx, arg, NO_FACTORS)
        elif dx.size:
            batch, channels = self.y[0], self.y[-1]
            both, parts = (batch, channels), whole_map.parts_of(math.prod(self.geometry.size))
            dy, arg, dx = dy.reshape(both), arg.reshape(both), dx.reshape(batch, -1)
            whole_map.place_maxima[t](dy, arg, dx, parts)

    def average_cuda(self, t, x, y):
        self._sum_cuda(t, reduce_cuda.average_cuda, x.reshape(self.x), y.reshape(self.y), y.size)

    def spread_cuda(self, t, dy, dx, fresh=True):
        """fresh: dx is set, else added to."""
        spread = reduce_cuda.spread_cuda.with_constants(FRESH=fresh)
        self._sum_cuda(t, spread, dy.reshape(self.y), dx.reshape(self.x), dx.size)

    def largest_cuda(self, t, x, y, arg):
        if y.size:
            kernel = reduce_cuda.extreme_cuda.with_constants(TAP=np.dtype(str(arg.dtype)).type)
            g = self.geometry
            kernel[t, y.size](x.reshape(self.x), y.reshape(self.y), arg.reshape(self.y), g.size, g.out)

    def route_cuda(self, t, dy, dx, arg, fresh=True):
        if dx.size:
            kernel = reduce_cuda.route_cuda.with_constants(FRESH=fresh, TAP=np.dtype(str(arg.dtype)).type)
            g = self.geometry
            kernel[t, dx.size](dy.reshape(self.y), arg.reshape(self.y), dx.reshape(self.x), g.size, g.out)

    def _sum_cuda(self, t, kernel, source, target, count):
        if not count:
            return
        g = self.geometry
        kernel = kernel.with_constants(BINS=g.windows is None, COUNTED=g.counted)
        windows = g.windows or (ONE,) * 3
        numbers = (tuple(getattr(w, k) for w in windows) for k in ("kernel", "stride", "before", "after"))
        kernel[t, count](source, target, g.size, g.out, *numbers, int(g.divisor))

    def _sum_maps(self, t, x, y, squared):
        if y.size:
            kernel = whole_map.sum_maps.with_constants(SQUARED=squared)
            kernel[t](x.reshape(-1), y.reshape(-1), self.divisor, *self.sums)

    def _forward(self, t, operation, x, y, arg, factors):
        if y.size:
            kernel = reduce_positions.with_constants(OPERATION=operation)
            kernel[t](x.reshape(-1), y.reshape(-1), arg.reshape(-1), factors, *self.forward)

    def _backward(self, t, operation, dy, dx, arg, factors):
        if dx.size:
            kernel = reduce_positions.with_constants(OPERATION=operation)
            kernel[t](dy.reshape(-1), dx.reshape(-1), arg.reshape(-1), factors, *self.backward)


def spatial_of(t):
    """The spatial shape of the layer's input."""
    return t.x.shape[2:] if t.format == "channels_first" else t.x.shape[1:-1]


def adaptive_sizes(op, output_size, spatial):
    """output_size as one number for each spatial dimension; None keeps the input's."""
    rank = len(spatial)
    given = tuple(output_size) if isinstance(output_size, tuple | list) else (output_size,) * rank
    if len(given) != rank:
        raise ParameterError(
            "output_size", f"one number, or {rank}, one for each dimension of {tuple(spatial)}", output_size
        )
    return tuple(s if o is None else o for o, s in zip(given, spatial, strict=True))


def check_output_size(output_size):
    """The part of adaptive_sizes's check that needs no rank."""
    values = output_size if isinstance(output_size, tuple | list) else (output_size,)
    if not values or not all(v is None or (isinstance(v, int) and v > 0) for v in values):
        raise ParameterError(
            "output_size",
            "a whole number above 0 (or null for the input's), or one for each dimension",
            output_size,
        )


def compact(count):
    """The narrowest unsigned type for numbers below count."""
    return next(k for k in ("uint8", "uint16", "uint32") if count <= 1 << 8 * np.dtype(k).itemsize)
