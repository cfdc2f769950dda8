"""Spatial pyramid pooling: maps of any size become vectors of one length, through grids of ever finer bins.

Forward:  for each level n and each of the n^d bins (d spatial dimensions) the maximum or mean of the bin;
          y = all of them in a row: level after level, each channel by channel, each channel's bins row-major
Backward: max: dy to the first maximum of its bin; avg: dy / count to every element of the bin; an element adds up
          what the bins of all levels (and neighbouring bins that share it) send

Bin i of n along an axis covers floor(i * size / n) up to ceil((i + 1) * size / n), as in adaptive pooling, so a
level may be finer than the map: bins then repeat elements. NaN in a bin makes its output NaN.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C * sum over levels of n^d). float32 and
float64. A network that trains on several sizes gets layers of one output length from it.

Source: He, Zhang, Ren and Sun 2014, "Spatial pyramid pooling in deep convolutional networks for visual
recognition", arXiv:1406.4729, section 2.2.
"""

import math
from typing import Literal

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import interval_backward as backward
from normcore_pooling import interval_forward as forward
from normcore_pooling.adaptive_bins import bin_start, bin_stop, largest_bin
from normcore_pooling.interval_windows import BINS, Geometry, check_rank, tap_dtype


class SpatialPyramidPool(
    Op, name="spatial_pyramid_pool", aliases=("spp",), source="He et al. 2014, arXiv:1406.4729, section 2.2"
):
    """Pool maps of any size to vectors of one length. levels: bins per axis, one number a level. mode: max or avg."""

    levels: tuple[int, ...] = (1, 2, 4)
    mode: Literal["max", "avg"] = "max"

    formats = ("channels_last", "channels_first")
    backward_needs = ()

    samples = (
        Sample("a map that four does not divide", shape=(2, 3, 6, 7)),
        Sample("averages", shape=(2, 17, 5, 6), params={"mode": "avg"}),
        Sample("a sequence, a level finer than it", shape=(3, 2, 5), params={"levels": (3, 7)}),
        Sample("volumes, averages", shape=(1, 2, 3, 4, 5), params={"levels": (1, 2), "mode": "avg"}),
    )
    benchmarks = (
        Sample("the paper's net, last map", shape=(64, 256, 13, 13), params={"levels": (1, 2, 3, 6)}),
    )
    error_samples = (
        ErrorSample("no levels", {"levels": ()}, None, "levels"),
        ErrorSample("no bins", {"levels": (1, 0)}, None, "at least 1"),
        ErrorSample("an unknown mode", {"mode": "sum"}, None, "mode"),
        ErrorSample("no map", {}, (2, 3), "spatial"),
        ErrorSample("an empty map", {}, (2, 3, 0, 4), "empty"),
    )

    def check(self):
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= 1 for n in self.levels)
        if not self.levels or not whole:
            raise ParameterError("levels", "one or more whole numbers, each at least 1", self.levels)
        if self.mode not in ("max", "avg"):
            raise ParameterError("mode", "max or avg", self.mode)

    def plan(self, x: Tensor) -> Plan:
        check_rank(self.name, x.shape)
        spatial = x.shape[2:]
        if 0 in spatial:
            raise ShapeError(f"{self.name}: the map of {x.shape} is empty; it needs at least one element")
        bins = sum(n ** len(spatial) for n in self.levels)
        size = x.shape[0] * x.shape[1] * bins
        taps = max(math.prod(largest_bin(s, n) for s in spatial) for n in self.levels)
        largest = self.mode == "max"
        return Plan(
            y=(x.shape[0], x.shape[1] * bins),
            saved={"arg": Array((size,), tap_dtype(taps))} if largest else {},
            workspace={"pooled": Array((size,))} | ({} if largest else {"line": Array((size,))}),
            flops=len(self.levels) * x.size,
        )

    def forward_cpu(self, t):
        for g, kernel, place in self._levels(t, forward.forward_cpu):
            kernel[t](*self._arrays(t, g, place), *g.windows)
            _level(t.y, g, t, place)[...] = t.pooled[place].reshape(t.x.shape[0], *g.flat)

    def backward_cpu(self, t):
        if t.dx is None:
            return
        for k, (g, kernel, place) in enumerate(self._levels(t, backward.backward_cpu)):
            t.pooled[place].reshape(t.x.shape[0], *g.flat)[...] = _level(t.dy, g, t, place)
            kernel[t](*self._gradients(t, g, place), g.parts, k == 0, *g.windows)

    def forward_cuda(self, t):
        for g, kernel, place in self._levels(t, forward.forward_cuda):
            kernel[t, place.stop - place.start](*self._arrays(t, g, place), *g.windows)
            _level(t.y, g, t, place)[...] = t.pooled[place].reshape(t.x.shape[0], *g.flat)

    def backward_cuda(self, t):
        if t.dx is None:
            return
        for k, (g, kernel, place) in enumerate(self._levels(t, backward.backward_cuda)):
            t.pooled[place].reshape(t.x.shape[0], *g.flat)[...] = _level(t.dy, g, t, place)
            kernel[t, t.dx.size](*self._gradients(t, g, place), k == 0, *g.windows)

    def _levels(self, t, kernel):
        """For each level: the geometry, the kernel, and the level's place in the flat arrays."""
        if not t.x.size:
            return
        found = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            first = t.format == "channels_first"
            spatial = t.x.shape[2:] if first else t.x.shape[1:-1]
            channels = t.x.shape[1] if first else t.x.shape[-1]
            found, start = [], 0
            for n in self.levels:
                bins, extents = (n,) * len(spatial), tuple(largest_bin(s, n) for s in spatial)
                g = Geometry(t.x.shape, t.format, bins, extents)
                g.flat = (channels, math.prod(bins)) if first else (math.prod(bins), channels)
                found.append((g, slice(start, start + math.prod(g.y))))
                start = found[-1][1].stop
            t.geometry = found
        mode = forward.MAX if self.mode == "max" else forward.MEAN
        tap = t.arg.dtype.type if self.mode == "max" else np.uint8
        made = kernel.with_constants(RULE=BINS, MODE=mode, TAP=tap)
        for g, place in found:
            yield g, made, place

    def _own(self, t, g, place):
        """arg of the level, and the scratch of averages; nobody reads what stands in for the other."""
        pooled = t.pooled[place].reshape(g.y)
        return (
            (t.arg[place].reshape(g.y), pooled)
            if self.mode == "max"
            else (pooled, t.line[place].reshape(g.y))
        )

    def _arrays(self, t, g, place):
        pooled = t.pooled[place]
        return t.x.reshape(g.x), pooled.reshape(g.y), *self._own(t, g, place), pooled, pooled.reshape(1, -1)

    def _gradients(self, t, g, place):
        pooled, (arg, _) = t.pooled[place], self._own(t, g, place)
        return pooled.reshape(g.y), arg, t.dx.reshape(g.x), pooled, pooled.reshape(1, -1)

    def in_torch(self, torch, x, *, training, **arrays):
        pool = getattr(torch.nn.functional, f"adaptive_{self.mode}_pool{x.dim() - 2}d")
        return torch.cat([pool(x, n).flatten(1) for n in self.levels], 1)

    def reference(self, x, **arrays):
        """Bin by bin."""
        x = np.asarray(x, np.float64)
        reduce = np.max if self.mode == "max" else np.mean
        axes = tuple(range(2, x.ndim))
        parts = []
        for n in self.levels:
            level = []
            for place in np.ndindex(*(n,) * (x.ndim - 2)):
                cut = [
                    slice(bin_start(i, s, n), bin_stop(i, s, n))
                    for i, s in zip(place, x.shape[2:], strict=True)
                ]
                level.append(reduce(x[(slice(None), slice(None), *cut)], axis=axes))
            parts.append(np.stack(level, axis=2).reshape(x.shape[0], -1))
        return np.concatenate(parts, axis=1)


def _level(array, g, t, place):
    """The part of y or dy (N, C * bins) that belongs to a level, as a view in the order of its pooled values."""
    batch = t.x.shape[0]
    part = array[:, place.start // batch : place.stop // batch]
    if t.format == "channels_first":
        return part.reshape(batch, *g.flat)
    return part.reshape(batch, *g.flat[::-1]).transpose(0, 2, 1)
