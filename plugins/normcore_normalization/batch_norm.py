"""Batch normalization: each channel brought to mean 0 and variance 1 over the batch and space, then scaled.

Forward, over the m = N * positions values x_i of one channel (the paper's four equations):
    mu = 1/m sum x_i        var = 1/m sum (x_i - mu)^2
    xhat_i = (x_i - mu) / sqrt(var + eps)        y_i = gamma * xhat_i + beta
Backward, with g_i = dL/dy_i (the paper's six equations; mu and var depend on every x_i, and what they pass on
sums up to two means that are taken out of the gradient):
    dgamma = sum g_i * xhat_i        dbeta = sum g_i
    dx_i = gamma / sqrt(var + eps) * (g_i - dbeta / m - xhat_i * dgamma / m)
Inference normalizes with running statistics, there dx_i = gamma / sqrt(var + eps) * g_i. Training moves them:
    running_mean = (1 - momentum) * running_mean + momentum * mu
    running_var  = (1 - momentum) * running_var + momentum * var * m / (m - 1)
momentum weighs the NEW value, as in PyTorch (TensorFlow and Caffe weigh the old one); None averages all
batches alike. The batch is normalized with the biased variance, the unbiased one is stored (paper,
algorithm 2).

Numerics: values are read as (x - s) - d with a shift s, a number of x's own precision next to the mean, and
the small rest d of the mean; x * a + b would lose every digit that x and the mean share. Sums run in
blocks, relative to a shift taken from the first block; blocks are added in float64. A channel whose sums
are not finite (values near 1e30) or whose shift turns out far from the mean is summed once more in float64.
Channels never mix, so a NaN stays in its own. The order of every sum is a matter of the shape alone.

Shapes: x, y (N, C, *spatial) with any number of spatial dimensions, (N, C) included; gamma, beta,
running_mean, running_var (C,). float32 and float64. Training with one value per channel is a ShapeError.

Source: Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal
covariate shift", arXiv:1502.03167.
"""

import numpy as np

from normcore import Array, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.channel_layers import ChannelNormalization
from normcore_normalization.channel_shapes import CHUNK, line_width


class BatchNorm(
    ChannelNormalization,
    name="batch_norm",
    aliases=("bn",),
    learnable=("gamma", "beta"),
    source="Ioffe and Szegedy 2015, arXiv:1502.03167",
):
    """Normalize each channel over the batch and space: gamma * (x - mean) / sqrt(var + eps) + beta.

    eps: added to the variance. momentum: weight of the new batch in the running statistics, None for the
    average of all batches. affine: learn gamma and beta. track_running_stats: False normalizes with the
    batch's own statistics in inference too.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    calibrates = ("running_mean", "running_var")
    needs_batch = True
    epilogue = "input"

    samples = (
        Sample("feature maps; rows and channels leave vector remainders", shape=(3, 5, 4, 7)),
        Sample("dense features", shape=(7, 6)),
        Sample("one image: its m is the map's size", shape=(1, 3, 5, 6)),
        Sample("sequences of prime length, no parameters", shape=(4, 3, 11), params={"affine": False}),
        Sample("volumes", shape=(2, 3, 2, 4, 3), params={"eps": 1e-3}),
        Sample("the average of all batches", shape=(4, 3, 5), params={"momentum": None}),
        Sample("batch statistics in inference too", shape=(4, 3, 5), params={"track_running_stats": False}),
        Sample("running statistics", shape=(4, 3, 5, 3), training=False),
    )
    benchmarks = (
        Sample("AlexNet, behind its first convolution", shape=(32, 96, 55, 55)),
        Sample("a residual net on small images", shape=(128, 64, 32, 32)),
        Sample("ResNet-50, third stage", shape=(32, 256, 14, 14)),
        Sample("AlexNet, behind its second convolution", shape=(32, 256, 27, 27)),
        Sample("dense features", shape=(256, 4096)),
    )
    error_samples = (
        ErrorSample("one value per channel", {}, (1, 4), "more than one value per channel", training=True),
        ErrorSample("no channel axis", {}, (4,), "(N, C)"),
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
        ErrorSample("momentum above 1", {"momentum": 2.0}, None, "momentum"),
    )

    def check(self):
        if not self.eps >= 0:
            raise ParameterError("eps", "a number of at least 0", self.eps)
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ParameterError(
                "momentum", "a number from 0 to 1, or null to weigh all batches alike", self.momentum
            )

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"batch_norm: expected an input (N, C) or (N, C, *spatial), got {x.shape}")
        channels = x.shape[1]
        rows = x.size // max(1, channels)
        chunks = max(1, min(64, rows // 32, x.size // CHUNK))
        width = line_width(channels, rows)
        per_channel = Array((channels,))
        state = {}
        if self.track_running_stats:
            state = {"running_mean": per_channel, "running_var": Array((channels,), init="ones")}
            if self.momentum is None:
                state["num_batches"] = Array((1,), "int64")
        return Plan(
            y=x.shape,
            parameters={"gamma": Array((channels,), init="ones"), "beta": per_channel} if self.affine else {},
            state=state,
            saved={"shift": per_channel, "rest": per_channel, "scale": per_channel},
            workspace={
                "a": per_channel,
                "b": per_channel,
                "line": Array((6, width)),
                "partial": Array((chunks, 2, width)),
                "sums": Array((chunks, 2, channels), "float64"),
            },
            flops=8 * x.size,
        )

    def reference(self, x, gamma=None, beta=None, running_mean=None, running_var=None, training=True, **_):
        values = np.moveaxis(np.asarray(x, np.float64), 1, 0).reshape(x.shape[1], -1)
        if training or not self.track_running_stats:
            mean, var = np.mean(values, axis=1), np.var(values, axis=1)
        else:
            mean, var = running_mean, running_var
        shape = (1, -1) + (1,) * (np.ndim(x) - 2)
        y = (x - np.reshape(mean, shape)) / np.sqrt(np.reshape(var, shape) + self.eps)
        if gamma is not None:
            y = np.reshape(gamma, shape) * y + np.reshape(beta, shape)
        return y

    def in_torch(
        self,
        torch,
        x,
        *,
        training,
        gamma=None,
        beta=None,
        running_mean=None,
        running_var=None,
        num_batches=None,
    ):
        momentum = self.momentum
        if momentum is None and num_batches is not None:
            num_batches += training
            momentum = 1.0 / max(1, int(num_batches[0]))
        batch = training or not self.track_running_stats
        return torch.nn.functional.batch_norm(
            x, running_mean, running_var, gamma, beta, batch, momentum or 0.0, self.eps
        )
