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

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.channel_columns import backward_columns, forward_columns
from normcore_normalization.channel_cuda import (
    count_cuda,
    finish_cuda,
    input_gradient_cuda,
    normalize_cuda,
    parameter_gradients_cuda,
    planes_gradient_sums_cuda,
    planes_sums_cuda,
    rows_gradient_sums_cuda,
    rows_sums_cuda,
    running_cuda,
)
from normcore_normalization.channel_lines import (
    backward_lines,
    forward_lines,
    infer_lines,
)
from normcore_normalization.channel_planes import (
    backward_planes,
    forward_planes,
    infer_planes,
)
from normcore_normalization.channel_scalars import THREADS
from normcore_normalization.channel_shapes import (
    CHUNK,
    WIDTH,
    as_channels,
    as_lines,
    by_columns,
    task_columns,
)


class BatchNorm(
    Op,
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
        width = channels * max(1, min(rows, WIDTH // max(1, channels)))
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

    def forward_cpu(self, t):
        x, y, rows = as_channels(t.x, t.y, t.format)
        none = t.shift[:0]
        gamma, beta = (t.gamma, t.beta) if self.affine else (none, none)
        saved = (t.shift, t.rest, t.scale)
        kept = (*saved, self._change(t))
        if self._uses_batch(t):
            self._check_count(t.x, t.shift.size)
            running = (t.running_mean, t.running_var) if self._moves(t) else (none, none)
            momentum = self._momentum(t)
            scratch = (t.line, t.partial, t.sums)
            if rows and by_columns(x):
                extent = (task_columns(x), self.eps, momentum)
                self.kernel(forward_columns)[t](x, y, gamma, beta, *running, *kept, *scratch, *extent, t.e)
            elif rows:
                lines = (*as_lines(t.x, t.line), *as_lines(t.y, t.line))
                self.kernel(forward_lines)[t](
                    *lines, gamma, beta, *running, *kept, *scratch, self.eps, momentum, t.e
                )
            else:
                self.kernel(forward_planes)[t](x, y, gamma, beta, *running, *kept, self.eps, momentum, t.e)
        elif rows:
            lines = (*as_lines(t.x, t.line), *as_lines(t.y, t.line))
            running, chunks = (t.running_mean, t.running_var), t.sums.shape[0]
            infer_lines[t](*lines, gamma, beta, *running, *saved, t.line, chunks, self.eps, t.e)
        else:
            infer_planes[t](x, y, gamma, beta, t.running_mean, t.running_var, *saved, self.eps, t.e)

    def backward_cpu(self, t):
        wanted = t.dx is not None
        x, dy, rows = as_channels(t.x, t.dy, t.format)
        dx = t.dx.reshape(x.shape) if wanted else dy
        none = t.shift[:0]
        parameters = (t.gamma, t.beta, t.dgamma, t.dbeta) if self.affine else (none,) * 4
        share = 1.0 / max(1, t.x.size // t.shift.size) if self._uses_batch(t) else 0.0
        saved = (t.shift, t.rest, t.scale, self._change(t))
        scratch = (t.line, t.partial, t.sums)
        if rows and by_columns(x):
            backward_columns[t](x, dy, dx, *parameters, *saved, *scratch, task_columns(x), share, wanted, t.e)
        elif rows:
            lines = [part for array in (x, dy, dx) for part in as_lines(array, t.line)]
            backward_lines[t](*lines, *parameters, *saved, *scratch, share, wanted, t.e)
        else:
            backward_planes[t](x, dy, dx, *parameters, *saved, share, wanted, t.e)

    def forward_cuda(self, t):
        x, y, rows = as_channels(t.x, t.y, t.format)
        inner = 1 if rows else x.shape[2]
        none = t.shift[:0]
        gamma, beta = (t.gamma, t.beta) if self.affine else (none, none)
        saved = (t.shift, t.rest, t.scale)
        kept = (*saved, self._change(t))
        eps = np.float64(self.eps)
        channels = t.shift.size
        if self._uses_batch(t):
            self._check_count(t.x, channels)
            chunks = t.sums.shape[0]
            if rows:
                rows_sums_cuda[t, (chunks * -(-channels // 32), THREADS)](x, t.shift, t.sums)
            else:
                planes_sums_cuda[t, (chunks * channels, THREADS)](x, t.shift, t.sums)
            running, counter = (none, none), t.sums.reshape(-1)
            momentum = np.float64(1.0 / t.calibrating if t.calibrating else self.momentum or 0.0)
            if self._moves(t):
                running = (t.running_mean, t.running_var)
                if self.momentum is None and not t.calibrating:
                    counter, momentum = t.num_batches, np.float64(-1.0)
                    count_cuda[t, 1](counter)
            flat = x.reshape(-1)
            self.kernel(finish_cuda)[t, (channels, THREADS)](
                flat, inner, t.sums, *running, counter, *kept, eps, momentum
            )
        else:
            running_cuda[t, channels](t.running_mean, t.running_var, *saved, eps)
        if x.size:
            normalize_cuda[t, x.size](x.reshape(-1), y.reshape(-1), inner, gamma, beta, *kept, t.e)

    def backward_cuda(self, t):
        x, dy, rows = as_channels(t.x, t.dy, t.format)
        inner = 1 if rows else x.shape[2]
        none = t.shift[:0]
        gamma, beta, dgamma, dbeta = (t.gamma, t.beta, t.dgamma, t.dbeta) if self.affine else (none,) * 4
        saved = (t.shift, t.rest, t.scale, self._change(t))
        channels, chunks = t.shift.size, t.sums.shape[0]
        if rows:
            extent = (chunks * -(-channels // 32), THREADS)
            rows_gradient_sums_cuda[t, extent](x, dy, gamma, beta, *saved, t.sums, t.e)
        else:
            planes_gradient_sums_cuda[t, (chunks * channels, THREADS)](
                x, dy, gamma, beta, *saved, t.sums, t.e
            )
        share = np.float64(1.0 / max(1, x.size // channels) if self._uses_batch(t) else 0.0)
        parameter_gradients_cuda[t, channels](t.sums, dgamma, dbeta, self._change(t), t.a, t.b, share)
        if t.dx is not None and x.size:
            flat = (x.reshape(-1), dy.reshape(-1), t.dx.reshape(-1))
            input_gradient_cuda[t, x.size](*flat, inner, gamma, beta, *saved, t.a, t.b, t.e)

    def kernel(self, kernel):
        """The kernel with this op's constants."""
        return kernel

    def _change(self, t):
        """What batch_renorm changes a batch by, r and d; nothing here."""
        return t.shift[:0]

    def _uses_batch(self, t):
        return t.training or not self.track_running_stats

    def _moves(self, t):
        return t.training and self.track_running_stats

    def _momentum(self, t):
        """The weight of this batch; counts it when all batches weigh the same."""
        if t.calibrating:  # a pass for population statistics: all batches weigh the same
            return 1.0 / t.calibrating
        if self.momentum is not None or not self._moves(t):
            return self.momentum or 0.0
        t.num_batches[0] += 1
        return 1.0 / t.num_batches[0]

    def _check_count(self, x, channels):
        if x.size <= channels:
            raise ShapeError(
                "batch_norm: training needs more than one value per channel (the variance of one is 0); "
                f"got an input of {x.size} values in {channels} channels; use a larger batch (data.drop_last "
                "leaves out a last batch of one), or layer_norm, which does not look at the batch"
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
