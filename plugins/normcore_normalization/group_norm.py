"""Group normalization: groups of neighbouring channels of one sample brought to mean 0 and variance 1.

Forward, over the m = C / num_groups * positions values x_i of one group of one sample; c is a value's channel:
    mu = 1/m sum x_i        var = 1/m sum (x_i - mu)^2
    xhat_i = (x_i - mu) / sqrt(var + eps)        y_i = gamma_c * xhat_i + beta_c
Backward, with g_i = dL/dy_i and h_i = gamma_c * g_i: what a constant and xhat explain of h is taken out,
because mu and var depend on every x_i of the group:
    dx_i = 1 / sqrt(var + eps) * (h_i - 1/m sum_j h_j - xhat_i * 1/m sum_j h_j * xhat_j)
    dgamma_c = sum over samples and positions of g * xhat        dbeta_c = the same of g
No statistic crosses samples: batches of any size, training and inference are the same computation. One group has
the statistics of layer_norm(axis=1), a group for each channel those of instance_norm.

Libraries: PyTorch, Keras and ONNX 21 give gamma and beta one value a channel, as here; ONNX 18 had one a group.

Numerics: values are read as (x - s) - d with a shift s and the rest d of the mean; sums run in blocks relative to
the shift, blocks and chunks are merged in float64 in an order that the shape decides.

Shapes: x, y (N, C, *spatial), (N, C) included; gamma, beta (C,). float32 and float64. num_groups must divide C.

Source: Wu and He 2018, "Group normalization", arXiv:1803.08494.
"""

import numpy as np

from normcore import ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.group_layers import GroupedNormalization


class GroupNorm(
    GroupedNormalization,
    name="group_norm",
    aliases=("gn",),
    learnable=("gamma", "beta"),
    source="Wu and He 2018, arXiv:1803.08494",
):
    """Normalize groups of channels of each sample over space: gamma * (x - mean) / sqrt(var + eps) + beta.

    num_groups: into how many groups the channels fall; it must divide their number. eps: added to the variance.
    affine: learn gamma and beta.
    """

    num_groups: int = 32
    eps: float = 1e-5
    affine: bool = True

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    epilogue = "input"

    samples = (
        Sample("rows and channels leave vector remainders", shape=(3, 6, 4, 7), params={"num_groups": 3}),
        Sample("many samples", shape=(9, 4, 3, 5), params={"num_groups": 2}),
        Sample("one sample, one group", shape=(1, 5, 3, 3), params={"num_groups": 1}),
        Sample("a group for each channel", shape=(2, 4, 11), params={"num_groups": 4}),
        Sample("dense features", shape=(7, 6), params={"num_groups": 2}),
        Sample("several chunks of positions", shape=(2, 4, 17, 33), params={"num_groups": 2}),
        Sample(
            "no parameters", shape=(2, 4, 2, 3, 2), params={"num_groups": 2, "affine": False, "eps": 1e-3}
        ),
    )
    error_samples = (
        ErrorSample("groups must divide the channels", {"num_groups": 3}, (2, 4, 5), "4 channels"),
        ErrorSample("and both are named", {}, (2, 48, 5), "32 groups"),
        ErrorSample("no group", {"num_groups": 0}, None, "num_groups"),
        ErrorSample("eps below 0", {"num_groups": 2, "eps": -1.0}, None, "eps"),
        ErrorSample("no channel axis", {"num_groups": 2}, (4,), "(N, C)"),
    )
    benchmarks = (
        Sample("AlexNet, first map", shape=(32, 96, 55, 55)),
        Sample("CIFAR, first block", shape=(128, 64, 32, 32)),
        Sample("a late ResNet block", shape=(32, 256, 14, 14)),
        Sample("AlexNet, second map", shape=(32, 256, 27, 27)),
    )

    def check(self):
        super().check()
        if self.num_groups < 1:
            raise ParameterError("num_groups", "a number of at least 1", self.num_groups)

    def groups_of(self, channels):
        return self.num_groups

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) >= 2 and x.shape[1] % self.num_groups:
            raise ShapeError(
                f"group_norm: {x.shape[1]} channels cannot be split evenly into {self.num_groups} groups; choose "
                f"num_groups among the divisors of {x.shape[1]}"
            )
        return self.plan_groups(x)

    def reference(self, x, gamma=None, beta=None, **_):
        x = np.asarray(x, np.float64)
        values = x.reshape(x.shape[0], self.num_groups, -1)
        mean, var = np.mean(values, 2, keepdims=True), np.var(values, 2, keepdims=True)
        y = ((values - mean) / np.sqrt(var + self.eps)).reshape(x.shape)
        if gamma is not None:
            shape = (1, -1) + (1,) * (x.ndim - 2)
            y = y * np.reshape(gamma, shape) + np.reshape(beta, shape)
        return y

    def in_torch(self, torch, x, *, training, gamma=None, beta=None):
        return torch.nn.functional.group_norm(x, self.num_groups, gamma, beta, self.eps)
