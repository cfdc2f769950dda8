"""Layer normalization: each sample brought to mean 0 and variance 1 over its own features.

Forward, over the m values x_i of one row (the dimensions from `axis` to the last, of one sample):
    mu = 1/m sum x_i        var = 1/m sum (x_i - mu)^2
    xhat_i = (x_i - mu) / sqrt(var + eps)        y_i = gamma_i * xhat_i + beta_i
Backward, with g_i = dL/dy_i and h_i = gamma_i * g_i. mu and var depend on every x_i of the row; differentiating
xhat by x leaves the part of h that neither a constant nor xhat explains:
    dx_i = 1 / sqrt(var + eps) * (h_i - 1/m sum_j h_j - xhat_i * 1/m sum_j h_j * xhat_j)
    dgamma_i = sum over rows of g_i * xhat_i        dbeta_i = sum over rows of g_i
Nothing is shared between samples: batches of one, sequences of any length (axis=-1 of (N, T, C) normalizes each
time step by itself) and recurrent cells are all the same computation, in training and inference alike.

Libraries differ in what `axis` means. Here, in ONNX and in Keras's list form it is the first of the dimensions
that share a statistic; PyTorch gives their shape (normalized_shape). axis=1 on images (N, C, H, W) is the
paper's convolutional form. group_norm with one group has the same statistics, but one gamma a channel.

Numerics: values are read as (x - s) - d with a shift s and the rest d of the mean, sums run in blocks relative to
the shift and are added in float64; a row whose sums cannot be trusted is summed again in float64. Rows never mix.

Shapes: x, y (N, ...) of rank 2 or more; gamma, beta x.shape[axis:]. float32 and float64.

Source: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv:1607.06450.
"""

import numpy as np

from normcore import Array, Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.feature_layers import FeatureNormalization, rows_of


class LayerNorm(
    FeatureNormalization,
    name="layer_norm",
    aliases=("ln",),
    learnable=("gamma", "beta"),
    source="Ba, Kiros and Hinton 2016, arXiv:1607.06450",
):
    """Normalize each sample over the dimensions axis..end: gamma * (x - mean) / sqrt(var + eps) + beta.

    axis: the first dimension that shares a statistic (-1: the last only; 1: all of a sample). eps: added to the
    variance. affine: learn gamma and beta. bias: learn beta (with affine only).
    """

    axis: int = -1
    eps: float = 1e-5
    affine: bool = True
    bias: bool = True

    backward_needs = ("x",)
    epilogue = "input"
    centered = True

    samples = (
        Sample("an odd number of features", shape=(5, 7)),
        Sample("a sequence", shape=(3, 4, 19)),
        Sample("one sample", shape=(1, 33)),
        Sample("the paper's form for images", shape=(3, 4, 3, 5), params={"axis": 1}),
        Sample("many rows: several chunks of them", shape=(131, 6)),
        Sample("rows longer than a block of sums", shape=(2, 4099)),
        Sample("no beta", shape=(4, 10), params={"bias": False, "eps": 1e-3}),
        Sample("no parameters", shape=(4, 2, 10), params={"affine": False, "axis": -2}),
    )
    error_samples = (
        ErrorSample("the batch is no feature", {"axis": 0}, (4, 5), "axis 0"),
        ErrorSample("axis beyond the rank", {"axis": 2}, (4, 5), "axis 2"),
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
        parameters = {}
        if self.affine:
            parameters["gamma"] = Array(shape, init="ones")
            if self.bias:
                parameters["beta"] = Array(shape)
        return self.plan_rows(x, parameters)

    def reference(self, x, gamma=None, beta=None, **_):
        x = np.asarray(x, np.float64)
        axes = tuple(range(self.axis % x.ndim, x.ndim))
        y = (x - np.mean(x, axes, keepdims=True)) / np.sqrt(np.var(x, axes, keepdims=True) + self.eps)
        y = y if gamma is None else y * gamma
        return y if beta is None else y + beta

    def in_torch(self, torch, x, *, training, gamma=None, beta=None):
        shape = tuple(x.shape[self.axis % x.ndim :])
        return torch.nn.functional.layer_norm(x, shape, gamma, beta, self.eps)
