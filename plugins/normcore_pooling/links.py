"""Which inputs an output of a pooling looks at, along one dimension and the other way round, as tables.

Every pooling is a product of its dimensions: an output looks at all combinations of the inputs that it looks at
along each. So three small tables say everything that the channels-last kernels need, forward (the inputs of an
output) and backward (the outputs of an input), for windows of any stride, padding and dilation as for the bins of
adaptive pooling.
"""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Links:
    """Along one dimension: target j looks at sources[first[j] : first[j + 1]], each known as tap (all int64)."""

    first: np.ndarray
    sources: np.ndarray
    taps: np.ndarray

    @property
    def most(self) -> int:
        """The largest number of sources of a target."""
        return int(np.diff(self.first).max(initial=0))


@dataclass(frozen=True)
class Both:
    """The links along one dimension of `size` inputs and `out` outputs, in both directions."""

    size: int
    out: int
    forward: Links
    backward: Links

    def with_taps(self, taps):
        """The same, taps[k] in place of tap k."""
        taps = np.asarray(taps, np.int64)
        pair = (Links(way.first, way.sources, taps[way.taps]) for way in (self.forward, self.backward))
        return Both(self.size, self.out, *pair)


def of_window(w):
    """Of a normcore.shapes.Window; taps count from 0 within the window."""
    taps = np.arange(w.kernel)
    inputs = np.arange(w.out)[:, None] * w.stride - w.before + taps * w.dilation
    output, tap = np.nonzero((inputs >= 0) & (inputs < w.size))
    return _both(w.size, w.out, inputs[output, tap], output, tap)


def of_windows(found):
    """Of three Windows: their taps add up to the offset in the window."""
    _, h, w = found
    apart = (h.kernel * w.kernel, w.kernel, 1)
    return tuple(of_window(v).with_taps(np.arange(v.kernel) * n) for v, n in zip(found, apart, strict=True))


def of_bins(size, out):
    """Of adaptive pooling: bin o is floor(o size / out) .. ceil((o + 1) size / out); a tap is the input itself."""
    low, high = bins(size, out)
    counts = high - low
    output = np.repeat(np.arange(out), counts)
    inputs = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[output]
    return _both(size, out, inputs, output, inputs)


def bins(size, out):
    """Where the bins of adaptive pooling start and end."""
    o = np.arange(out)
    return o * size // out, -(-(o + 1) * size // out)


def side_by_side(maps):
    """Several poolings of one map as one of flat positions: their outputs one after the other, each a tuple of Both
    for the map's dimensions; a tap is the flat position of the input."""
    inputs, outputs, out = [], [], 0
    for dimensions in maps:
        source, target = np.zeros(1, np.int64), np.zeros(1, np.int64)
        for one in dimensions:
            to = np.repeat(np.arange(one.out), np.diff(one.forward.first))
            source = (source[:, None] * one.size + one.forward.sources).reshape(-1)
            target = (target[:, None] * one.out + to).reshape(-1)
        order = np.argsort(target, kind="stable")
        inputs.append(source[order])
        outputs.append(target[order] + out)
        out += math.prod(one.out for one in dimensions)
    inputs, outputs = np.concatenate(inputs), np.concatenate(outputs)
    return _both(math.prod(one.size for one in maps[0]), out, inputs, outputs, inputs)


def _both(size, out, inputs, outputs, taps):
    """From pairs in the order of outputs."""
    turned = np.argsort(inputs, kind="stable")
    return Both(
        size,
        out,
        _links(out, outputs, inputs, taps),
        _links(size, inputs[turned], outputs[turned], taps[turned]),
    )


def _links(count, targets, sources, taps):
    first = np.zeros(count + 1, np.int64)
    np.cumsum(np.bincount(targets, minlength=count), out=first[1:])
    return Links(first, np.ascontiguousarray(sources, np.int64), np.ascontiguousarray(taps, np.int64))


def runs(both, way, factors=None):
    """Targets along a dimension that differ by a shift only: rows of first target, how many, how far apart, and by
    how much their sources and their taps move from one to the next.

    factors: one for each output, which divide sums; targets of a run share theirs.
    """
    links = getattr(both, way)
    count = links.first.size - 1
    step = 1 if way == "forward" else max(1, _stride(both))
    found = []
    for start in range(min(step, count)):
        j = start
        while j < count:
            length, shift = 1, (0, 0)
            while j + length * step < count:
                last, new = j + (length - 1) * step, j + length * step
                moved = _shift(links, last, new, way, factors)
                if moved is None or (length > 1 and moved != shift):
                    break
                length, shift = length + 1, moved
            found.append((j, length, step, *shift))
            j += length * step
    return np.array(found, np.int64).reshape(-1, 5)


def _stride(both):
    """How far apart the inputs are that outputs one after the other look at with their last tap."""
    last = both.forward.sources[both.forward.first[1:] - 1]
    return int(np.median(np.diff(last))) if both.out > 1 else 1


def _shift(links, a, b, way, factors):
    """By how much the sources and the taps of target a move to become those of b; None where more differs."""
    one, other = slice(*links.first[a : a + 2]), slice(*links.first[b : b + 2])
    sources, moved = links.sources[one], links.sources[other]
    if sources.size != moved.size:
        return None
    if factors is not None:
        pair = (factors[[a]], factors[[b]]) if way == "forward" else (factors[sources], factors[moved])
        if not np.array_equal(*pair):
            return None
    if not sources.size:
        return 0, 0
    apart, taps = moved - sources, links.taps[other] - links.taps[one]
    return (int(apart[0]), int(taps[0])) if (apart == apart[0]).all() and (taps == taps[0]).all() else None
