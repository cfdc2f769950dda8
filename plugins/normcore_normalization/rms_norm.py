"""RMS normalization: each sample divided by the root of its mean square.

Forward, over the m values x_i of one row (the dimensions from `axis` to the last, of one sample):
    rms = sqrt(1/m sum x_i^2 + eps)        xhat_i = x_i / rms        y_i = gamma_i * xhat_i
Backward, with h_i = gamma_i * dL/dy_i. d rms / d x_i = x_i / (m rms), hence
    dx_i = 1 / rms * (h_i - xhat_i * 1/m sum_j h_j * xhat_j)        dgamma_i = sum over rows of dy_i * xhat_i
It is layer_norm without the mean and without beta: the paper finds that rescaling, not recentering, is what
helps training, and saves one of two sums.

Libraries differ in eps: PyTorch takes the dtype's machine epsilon when none is given (eps=None here), others 1e-5
or 1e-6, and some add it to the root instead of under it. Here it stands under the root.

Numerics: squares are summed in blocks in the kernel's precision, blocks in float64; a row whose squares overflow
or vanish (values near 1e30, or near 1e-30 with a tiny eps) is summed again in float64.

Shapes: x, y (N, ...) of rank 2 or more; gamma x.shape[axis:]. float32 and float64.

Source: Zhang and Sennrich 2019, "Root mean square layer normalization", arXiv:1910.07467.
"""

import numpy as np

from normcore import Array, Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.feature_layers import FeatureNormalization, rows_of


class RmsNorm(
    FeatureNormalization,
    name="rms_norm",
    learnable=("gamma",),
    source="Zhang and Sennrich 2019, arXiv:1910.07467",
):
    """Divide each sample by its root mean square over the dimensions axis..end: gamma * x / sqrt(mean(x^2) + eps).

    axis: the first dimension that shares a statistic. eps: added to the mean square; None for the dtype's machine
    epsilon. affine: learn gamma.
    """

    axis: int = -1
    eps: float | None = None
    affine: bool = True

    backward_needs = ("x",)
    epilogue = "input"
    centered = False

    samples = (
        Sample("an odd number of features", shape=(5, 7)),
        Sample("a sequence", shape=(3, 4, 19), params={"eps": 1e-5}),
        Sample("images", shape=(2, 3, 4, 5), params={"axis": 1}),
        Sample("many rows: several chunks of them", shape=(131, 6)),
        Sample("rows longer than a block of sums", shape=(2, 4099)),
        Sample("no parameters", shape=(4, 2, 10), params={"affine": False, "axis": -2}),
    )
    error_samples = (
        ErrorSample("the batch is no feature", {"axis": 0}, (4, 5), "axis 0"),
        ErrorSample("no features", {}, (4,), "axis"),
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
    )
    benchmarks = (
        Sample("tokens of a transformer", shape=(8192, 768)),
        Sample("few tokens", shape=(512, 768)),
        Sample("many short rows", shape=(16384, 256)),
    )

    def plan(self, x: Tensor) -> Plan:
        _, shape = rows_of(self, x)
        return self.plan_rows(x, {"gamma": Array(shape, init="ones")} if self.affine else {})

    def _eps(self, t):
        return float(np.finfo(t.variant.dtype).eps if self.eps is None else self.eps)

    def reference(self, x, gamma=None, **_):
        x = np.asarray(x, np.float64)
        axes = tuple(range(self.axis % x.ndim, x.ndim))
        eps = np.finfo(np.float64).eps if self.eps is None else self.eps
        y = x * (np.mean(x * x, axes, keepdims=True) + eps) ** -0.5
        return y if gamma is None else y * gamma

    def in_torch(self, torch, x, *, training, gamma=None):
        shape = tuple(x.shape[self.axis % x.ndim :])
        return torch.nn.functional.rms_norm(x, shape, gamma, self.eps)
