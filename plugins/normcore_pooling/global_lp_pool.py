"""Global power-average (Lp) pooling: the p-norm of each channel's map.

Forward:  y = (sum of |x|^p over a channel's positions)^(1/p)
Backward: dx_i = dy y^(1-p) sign(x_i) |x_i|^(p-1); a map of zeros sends 0

It is lp_pool with one window, and runs its kernels; the numerics are described there.

Elsewhere: ONNX's GlobalLpPool keeps the dimensions, as keepdims=True does; PyTorch has torch.linalg.vector_norm.
Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions; y (N, C, 1, ...) with keepdims, else (N, C). float32 and
float64. p below 1 and a map without elements are errors.

Source: ONNX operator GlobalLpPool; Sermanet, Chintala and LeCun 2012, arXiv:1204.3968.
"""

import numpy as np

from normcore import Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import sizes
from normcore_pooling.lp_pool import Norm, norm
from normcore_pooling.reduce import NOTHING, check_map, geometry_of_bins


class GlobalLpPool(Norm, name="global_lp_pool", source="Sermanet et al. 2012, arXiv:1204.3968"):
    """The p-norm of each channel's map. p: 1 or more. keepdims: keep the spatial dimensions, each of size 1."""

    p: float = 2
    keepdims: bool = True

    samples = (
        Sample("a map", shape=(2, 5, 3, 7)),
        Sample("a sequence, flattened, an odd p", shape=(3, 4, 9), params={"p": 3.0, "keepdims": False}),
        Sample("a volume", shape=(2, 3, 2, 3, 4)),
    )
    error_samples = (
        ErrorSample("no map", {}, (2, 3), "spatial"),
        ErrorSample("no norm", {"p": 0.0}, None, "at least 1"),
    )
    benchmarks = sizes.GLOBAL

    def geometry(self, spatial):
        return geometry_of_bins(spatial, (1,) * len(spatial), NOTHING, tapped=False)

    def plan(self, x: Tensor) -> Plan:
        check_map(self.name, x.shape)
        return self.planned(x, (*x.shape[:2], *((1,) * (len(x.shape) - 2) if self.keepdims else ())))

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.linalg.vector_norm(x, float(self.p), tuple(range(2, x.dim())), self.keepdims)

    def reference(self, x, **arrays):
        y = norm(np.asarray(x, np.float64), self.p)
        return y.reshape(*y.shape, *(1,) * (np.ndim(x) - 2)) if self.keepdims else y
