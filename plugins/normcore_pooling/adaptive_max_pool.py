"""Adaptive max pooling: the largest value of each of output_size bins, whatever the map's size.

Forward:  y_o = max of x over bin o, from floor(o in / out) to ceil((o + 1) in / out) along each dimension
Backward: dx_i = sum of dy_o over the bins o whose maximum was x_i; the others get nothing

The FIRST maximum of a bin takes its whole gradient, NaN wins over every number, and the sum of dx is the sum of dy.
Forward keeps each maximum's position in its map, in the narrowest type that holds it; backward gathers.

Elsewhere: PyTorch has the same bins and indices. ONNX has none but the global pools.
Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *output_size). float32 and float64.
return_indices=True gives a second output of y's shape, int64: the position in the map, flattened row-major.

Source: He, Zhang, Ren and Sun 2014, "Spatial pyramid pooling", arXiv:1406.4729, section 2.2.
"""

import math

import numpy as np

from normcore import Array, Op, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, prange
from normcore_pooling import sizes
from normcore_pooling.adaptive_avg_pool import ERROR_SAMPLES, SAMPLES, bin_slices
from normcore_pooling.reduce import (
    Reduction,
    adaptive_sizes,
    check_map,
    check_output_size,
    compact,
    geometry_of_bins,
    spatial_of,
    workspace,
)


@cpu
def widen(arg, indices):
    for i in prange(arg.size):
        indices[i] = arg[i]


@cuda
def _widen_cuda(arg, indices):
    for i in range(cu.grid(1), arg.size, cu.gridsize(1)):
        indices[i] = arg[i]


class BinMaximum(Op):
    """What adaptive_max_pool and global_max_pool share: the maximum of each of `bins(spatial)`."""

    formats = ("channels_last",)  # gathering whole positions beats any kernel on planes, conversions included
    cuda_formats = ("channels_last", "channels_first")
    backward_needs = ()
    picks_extremes = True

    def bins(self, spatial):
        raise NotImplementedError

    def planned(self, x, shape, indices):
        geometry = geometry_of_bins(x.shape[2:], self.bins(x.shape[2:]))
        count = math.prod(shape)
        kind = compact(math.prod(x.shape[2:]))
        y = {"y": Tensor(shape, x.dtype), "indices": Tensor(shape, "int64")} if indices else shape
        return Plan(
            y=y, saved={"arg": Array((count,), kind)}, workspace=workspace(geometry, x.shape), flops=x.size
        )

    def _reduction(self, t):
        spatial = spatial_of(t)
        return Reduction.of(t, t.x.shape, lambda: geometry_of_bins(spatial, self.bins(spatial)))

    def forward_cpu(self, t):
        self._reduction(t).largest(t, t.x, t.y, t.arg)
        if "indices" in vars(t):
            widen[t](t.arg, t.indices.reshape(-1))

    def backward_cpu(self, t):
        if t.dx is not None:
            self._reduction(t).route(t, t.dy, t.dx, t.arg)

    def forward_cuda(self, t):
        self._reduction(t).largest_cuda(t, t.x, t.y, t.arg)
        if "indices" in vars(t) and t.arg.size:
            _widen_cuda[t, t.arg.size](t.arg, t.indices.reshape(-1))

    def backward_cuda(self, t):
        if t.dx is not None:
            self._reduction(t).route_cuda(t, t.dy, t.dx, t.arg)


class AdaptiveMaxPool(
    BinMaximum, name="adaptive_max_pool", source="He et al. 2014, arXiv:1406.4729, section 2.2"
):
    """The largest value of each bin; the gradient goes to the first maximum.

    output_size: bins, a number or one for each spatial dimension (null: the input's). return_indices: also give
    each maximum's flat position in its map (int64).
    """

    output_size: int | tuple[int | None, ...]
    return_indices: bool = False

    samples, error_samples, benchmarks = SAMPLES, ERROR_SAMPLES, sizes.bins()

    def check(self):
        check_output_size(self.output_size)

    def bins(self, spatial):
        return adaptive_sizes(self.name, self.output_size, spatial)

    def plan(self, x: Tensor) -> Plan:
        check_map(self.name, x.shape)
        return self.planned(x, (*x.shape[:2], *self.bins(x.shape[2:])), self.return_indices)

    def in_torch(self, torch, x, *, training, **arrays):
        pool = getattr(torch.nn.functional, f"adaptive_max_pool{x.dim() - 2}d")
        return pool(x, self.output_size, self.return_indices)

    def reference(self, x, **arrays):
        x = np.asarray(x, np.float64)
        y = np.empty((*x.shape[:2], *self.bins(x.shape[2:])))
        for o, part in bin_slices(self, x):
            y[(..., *o)] = part.max(axis=tuple(range(2, x.ndim)))
        return y
