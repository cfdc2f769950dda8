"""Global max pooling: the largest value of each channel's map.

Forward:  y = max of x over a channel's positions
Backward: dx_i = dy at the FIRST position of the maximum, 0 elsewhere; so the sum of dx is the sum of dy

It is adaptive_max_pool with one bin, and runs its kernels. NaN wins over every number.

Elsewhere: ONNX's GlobalMaxPool keeps the dimensions, as keepdims=True does; PyTorch's amax divides the gradient among
equal maxima, its adaptive_max_pool does as here.
Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions; y (N, C, 1, ...) with keepdims, else (N, C). float32 and
float64. A map without elements is a ShapeError.

Source: Oquab, Bottou, Laptev and Sivic 2015, "Is object localization for free?", CVPR.
"""

import numpy as np

from normcore import Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import sizes
from normcore_pooling.adaptive_max_pool import BinMaximum
from normcore_pooling.reduce import check_map


class GlobalMaxPool(BinMaximum, name="global_max_pool", source="Oquab et al. 2015, CVPR"):
    """The largest value of each channel's map. keepdims: keep the spatial dimensions, each of size 1."""

    keepdims: bool = True

    samples = (
        Sample("a map", shape=(2, 5, 3, 7)),
        Sample("a sequence, flattened", shape=(3, 4, 9), params={"keepdims": False}),
        Sample("a volume", shape=(2, 3, 2, 3, 4)),
    )
    error_samples = (ErrorSample("no map", {}, (2, 3), "spatial"),)
    benchmarks = sizes.GLOBAL

    def bins(self, spatial):
        return (1,) * len(spatial)

    def plan(self, x: Tensor) -> Plan:
        check_map(self.name, x.shape)
        return self.planned(x, (*x.shape[:2], *((1,) * (len(x.shape) - 2) if self.keepdims else ())), False)

    def in_torch(self, torch, x, *, training, **arrays):
        y = getattr(torch.nn.functional, f"adaptive_max_pool{x.dim() - 2}d")(x, 1)
        return y if self.keepdims else y.flatten(1)

    def reference(self, x, **arrays):
        y = np.sort(np.asarray(x, np.float64).reshape(*np.shape(x)[:2], -1), axis=-1)[..., -1]
        return y.reshape(*y.shape, *(1,) * (np.ndim(x) - 2)) if self.keepdims else y
