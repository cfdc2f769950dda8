"""Adaptive average pooling: the mean of each of output_size bins, whatever the map's size.

Forward:  y_o = mean of x over bin o, from floor(o in / out) to ceil((o + 1) in / out) along each dimension
Backward: dx_i = sum of dy_o / (size of bin o) over the bins that hold x_i

Bins cover the map, and overlap by one position where out does not divide in. So the sum of dx is the sum of dy.
Numerics: blocks of 128 values are summed before they join the total; backward gathers.

Elsewhere: PyTorch has the same bins. ONNX has none but the global pools; Caffe's spatial pyramid pads the map instead.
Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *output_size). float32 and float64.
output_size may be larger than the map. An empty map and a wrong number of sizes are errors.

Source: He, Zhang, Ren and Sun 2014, "Spatial pyramid pooling", arXiv:1406.4729, section 2.2.
"""

import numpy as np

from normcore import Op, Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import sizes
from normcore_pooling.links import bins
from normcore_pooling.reduce import (
    Reduction,
    adaptive_sizes,
    check_map,
    check_output_size,
    geometry_of_bins,
    spatial_of,
    workspace,
)

SAMPLES = (
    Sample("bins that overlap", shape=(2, 5, 7, 8), params={"output_size": 3}),
    Sample("a sequence in equal bins", shape=(2, 3, 8), params={"output_size": 4}),
    Sample("a volume, one size kept", shape=(1, 2, 5, 4, 6), params={"output_size": (2, None, 3)}),
    Sample("more bins than positions", shape=(1, 3, 3, 4), params={"output_size": (5, 2)}),
)
ERROR_SAMPLES = (
    ErrorSample("no bin", {"output_size": 0}, None, "output_size"),
    ErrorSample("wrong number", {"output_size": (2, 2, 2)}, (2, 3, 8, 8), "output_size"),
    ErrorSample("no map", {"output_size": 2}, (2, 3), "spatial"),
)


def bin_slices(op, x):
    """(index of a bin, its part of x) for every bin; for references."""
    out = adaptive_sizes(op.name, op.output_size, x.shape[2:])
    edges = [bins(size, o) for size, o in zip(x.shape[2:], out, strict=True)]
    for o in np.ndindex(*out):
        yield o, x[(..., *(slice(low[i], high[i]) for i, (low, high) in zip(o, edges, strict=True)))]


class AdaptiveAvgPool(Op, name="adaptive_avg_pool", source="He et al. 2014, arXiv:1406.4729, section 2.2"):
    """The mean of each bin. output_size: bins, a number or one for each spatial dimension (null: the input's)."""

    output_size: int | tuple[int | None, ...]

    formats = ("channels_last",)  # gathering whole positions beats any kernel on planes, conversions included
    cuda_formats = ("channels_last", "channels_first")
    backward_needs = ()
    samples, error_samples, benchmarks = SAMPLES, ERROR_SAMPLES, sizes.bins()

    def check(self):
        check_output_size(self.output_size)

    def plan(self, x: Tensor) -> Plan:
        check_map(self.name, x.shape)
        out = adaptive_sizes(self.name, self.output_size, x.shape[2:])
        return Plan(
            y=(*x.shape[:2], *out),
            workspace=workspace(geometry_of_bins(x.shape[2:], out), x.shape),
            flops=x.size,
        )

    def _reduction(self, t):
        spatial = spatial_of(t)
        out = adaptive_sizes(self.name, self.output_size, spatial)
        return Reduction.of(t, t.x.shape, lambda: geometry_of_bins(spatial, out, tapped=False))

    def forward_cpu(self, t):
        self._reduction(t).average(t, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self._reduction(t).spread(t, t.dy, t.dx)

    def forward_cuda(self, t):
        self._reduction(t).average_cuda(t, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self._reduction(t).spread_cuda(t, t.dy, t.dx)

    def in_torch(self, torch, x, *, training, **arrays):
        return getattr(torch.nn.functional, f"adaptive_avg_pool{x.dim() - 2}d")(x, self.output_size)

    def reference(self, x, **arrays):
        x = np.asarray(x, np.float64)
        y = np.empty((*x.shape[:2], *adaptive_sizes(self.name, self.output_size, x.shape[2:])))
        for o, part in bin_slices(self, x):
            y[(..., *o)] = np.average(part, axis=tuple(range(2, x.ndim)))
        return y
