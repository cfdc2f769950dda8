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

from normcore import Array, Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, prange
from normcore.kernels.transpose import turn
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling.links import bins
from normcore_pooling.reduce import (
    Reduction,
    check_map,
    compact,
    geometry_of_bins,
    geometry_of_pyramid,
    spatial_of,
    workspace,
)

# Channels last, pooled (N, bins of all levels, C) and y (N, C * bins): a level's bins of a sample turn around.
# levels (levels, 2): how many bins come before a level, how many it has.


@cpu
def _turn_bins(source, target, levels, batch, channels, back):
    """From pooled to y, and with `back` from dy to pooled."""
    count = levels.shape[0]
    bins = source.size // (batch * channels)
    for j in prange(batch * count):
        n = np.int64(j) // count
        before, own = levels[np.int64(j) - n * count, 0], levels[np.int64(j) - n * count, 1]
        at = (n * bins + before) * channels
        rows, columns = (channels, own) if back else (own, channels)
        turn(source, at, columns, target, at, rows, rows, columns)


class SpatialPyramidPool(
    Op, name="spatial_pyramid_pool", aliases=("spp",), source="He et al. 2014, arXiv:1406.4729, section 2.2"
):
    """Pool maps of any size to vectors of one length. levels: bins per axis, one number a level. mode: max or avg."""

    levels: tuple[int, ...] = (1, 2, 4)
    mode: Literal["max", "avg"] = "max"

    formats = ("channels_last",)  # gathering whole positions beats any kernel on planes, conversions included
    cuda_formats = ("channels_last", "channels_first")
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
        check_map(self.name, x.shape)
        spatial = x.shape[2:]
        length = sum(n ** len(spatial) for n in self.levels)
        size = x.shape[0] * x.shape[1] * length
        scratch = workspace(geometry_of_pyramid(spatial, self.levels), x.shape)
        return Plan(
            y=(x.shape[0], x.shape[1] * length),
            saved={"arg": Array((size,), compact(math.prod(spatial)))} if self.mode == "max" else {},
            workspace={"pooled": Array((size,)), **scratch},
            flops=len(self.levels) * x.size,
        )

    def forward_cpu(self, t):
        if not t.x.size:
            return
        reduction = self._pyramid(t)
        if self.mode == "max":
            reduction.largest(t, t.x, t.pooled, t.arg)
        else:
            reduction.average(t, t.x, t.pooled)
        _turn_bins[t](t.pooled, t.y.reshape(-1), t.levels, t.x.shape[0], t.x.shape[-1], False)

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        reduction = self._pyramid(t)
        _turn_bins[t](t.dy.reshape(-1), t.pooled, t.levels, t.dx.shape[0], t.dx.shape[-1], True)
        if self.mode == "max":
            reduction.route(t, t.pooled, t.dx, t.arg)
        else:
            reduction.spread(t, t.pooled, t.dx)

    def forward_cuda(self, t):
        for reduction, place in self._levels(t):
            pooled = t.pooled[place]
            if self.mode == "max":
                reduction.largest_cuda(t, t.x, pooled, t.arg[place])
            else:
                reduction.average_cuda(t, t.x, pooled)
            part = self._part(t, t.y, place)
            part[...] = pooled.reshape(part.shape)

    def backward_cuda(self, t):
        if t.dx is None:
            return
        for k, (reduction, place) in enumerate(self._levels(t)):
            pooled, part = t.pooled[place], self._part(t, t.dy, place)
            pooled.reshape(part.shape)[...] = part
            if self.mode == "max":
                reduction.route_cuda(t, pooled, t.dx, t.arg[place], k == 0)
            else:
                reduction.spread_cuda(t, pooled, t.dx, k == 0)

    def _pyramid(self, t):
        """On the CPU all levels are one pooling: pooled (N, bins of all levels, C)."""
        spatial = spatial_of(t)
        if "levels" not in vars(t):
            own = np.array([n ** len(spatial) for n in self.levels], np.int64)
            t.levels = np.stack([np.cumsum(own) - own, own], axis=1)
        return Reduction.of(t, t.x.shape, lambda: geometry_of_pyramid(spatial, self.levels))

    def _levels(self, t):
        """On CUDA, of each level: its kernels and its place in the flat arrays, one level after the other."""
        if not t.x.size:
            return
        found = vars(t).get("by_level")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            spatial, found, start = spatial_of(t), [], 0
            for n in self.levels:
                out = (n,) * len(spatial)
                stop = start + t.x.size // math.prod(spatial) * math.prod(out)
                found.append((Reduction(geometry_of_bins(spatial, out), t, t.x.shape), slice(start, stop)))
                start = stop
            t.by_level = found
        yield from found

    def _part(self, t, array, place):
        """The part of y or dy (N, C * bins) that belongs to a level, as a view in the order of its pooled values."""
        batch, first = t.x.shape[0], t.format == "channels_first"
        part = array[:, place.start // batch : place.stop // batch]
        part = part.reshape(batch, t.x.shape[1 if first else -1], -1)
        return part if first else part.transpose(0, 2, 1)

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
            edges = [bins(size, n) for size in x.shape[2:]]
            for place in np.ndindex(*(n,) * (x.ndim - 2)):
                cut = [slice(low[i], high[i]) for i, (low, high) in zip(place, edges, strict=True)]
                level.append(reduce(x[(slice(None), slice(None), *cut)], axis=axes))
            parts.append(np.stack(level, axis=2).reshape(x.shape[0], -1))
        return np.concatenate(parts, axis=1)
