"""Instance normalization: each channel of each sample brought to mean 0 and variance 1 over its own map.

Forward, over the m positions x_i of one channel of one sample:
    mu = 1/m sum x_i        var = 1/m sum (x_i - mu)^2
    xhat_i = (x_i - mu) / sqrt(var + eps)        y_i = gamma * xhat_i + beta (with affine)
Backward, with g_i = dL/dy_i; as in batch_norm, over one map:
    dgamma = sum over samples and positions of g * xhat        dbeta = the same of g
    dx_i = gamma / sqrt(var + eps) * (g_i - 1/m sum_j g_j - xhat_i * 1/m sum_j g_j * xhat_j)
It takes the contrast out of an image, which is what style transfer wants.

track_running_stats (PyTorch's, off as there): training moves, with the averages over the samples of the batch,
    running_mean = (1 - momentum) * running_mean + momentum * mean over n of mu
    running_var  = (1 - momentum) * running_var + momentum * mean over n of var * m / (m - 1)
and inference normalizes with them, dx_i = gamma / sqrt(running_var + eps) * g_i. Without it inference computes what
training does. momentum weighs the NEW value. PyTorch leaves gamma and beta out unless told; so does this op. Keras
and TensorFlow Addons learn them by default.

Numerics: as group_norm. A map of one position has no variance: an error, as in PyTorch.

Shapes: x, y (N, C, *spatial); gamma, beta, running_mean, running_var (C,). float32 and float64.

Source: Ulyanov, Vedaldi and Lempitsky 2016, "Instance normalization: the missing ingredient for fast stylization",
arXiv:1607.08022.
"""

import numpy as np

from normcore import Array, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization import group_running
from normcore_normalization.group_layers import GroupedNormalization


class InstanceNorm(
    GroupedNormalization,
    name="instance_norm",
    aliases=("in",),
    learnable=("gamma", "beta"),
    source="Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022",
):
    """Normalize each channel of each sample over space: gamma * (x - mean) / sqrt(var + eps) + beta.

    eps: added to the variance. momentum: weight of the new batch in the running statistics. affine: learn gamma
    and beta. track_running_stats: keep running statistics and normalize with them in inference.
    """

    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = False
    track_running_stats: bool = False

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    epilogue = "input"

    samples = (
        Sample("maps that leave vector remainders", shape=(3, 5, 4, 7)),
        Sample("many samples, with parameters", shape=(9, 3, 3, 5), params={"affine": True}),
        Sample("one image, several chunks of positions", shape=(1, 3, 17, 33), params={"affine": True}),
        Sample("sequences", shape=(2, 4, 11), params={"eps": 1e-3}),
        Sample("running statistics move", shape=(2, 4, 3, 3), params={"track_running_stats": True}),
        Sample(
            "running statistics",
            shape=(2, 4, 3, 3),
            params={"track_running_stats": True, "affine": True},
            training=False,
        ),
    )
    error_samples = (
        ErrorSample("one position", {}, (2, 4, 1, 1), "more than one position", training=True),
        ErrorSample("no channel axis", {}, (4,), "(N, C, *spatial)"),
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
        ErrorSample("momentum above 1", {"momentum": 2.0}, None, "momentum"),
    )
    benchmarks = (
        Sample("AlexNet, first map", shape=(32, 96, 55, 55)),
        Sample("CIFAR, first block", shape=(128, 64, 32, 32)),
    )

    def check(self):
        super().check()
        if not 0 <= self.momentum <= 1:
            raise ParameterError("momentum", "a number from 0 to 1", self.momentum)

    def groups_of(self, channels):
        return channels

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 3:
            raise ShapeError(f"instance_norm: expected an input (N, C, *spatial), got {x.shape}")
        state = {}
        if self.track_running_stats:
            per_channel = (x.shape[1],)
            state = {"running_mean": Array(per_channel), "running_var": Array(per_channel, init="ones")}
        return self.plan_groups(x, state=state)

    def uses_running(self, t):
        return self.track_running_stats and not t.training

    def forward_cpu(self, t):
        self._check_positions(t)
        if self.uses_running(t):
            group_running.fill_rows[t](
                t.running_mean, t.running_var, self._eps(), t.shift, t.rest, t.scale, t.shift[:0]
            )
        super().forward_cpu(t)
        if self._moves(t):
            group_running.move_rows[t](*self._running(t))

    def forward_cuda(self, t):
        self._check_positions(t)
        if self.uses_running(t) and t.x.size:
            group_running.fill_rows_cuda[t, t.shift.size](
                t.running_mean, t.running_var, np.float64(self.eps), t.shift, t.rest, t.scale, t.shift[:0]
            )
        super().forward_cuda(t)
        if self._moves(t):
            group_running.move_rows_cuda[t, t.running_mean.size](*self._running(t))

    def _moves(self, t):
        return self.track_running_stats and t.training and t.x.size

    def _running(self, t):
        count = t.x.size // max(1, t.shift.size)
        numbers = (np.float64(count), np.float64(self.eps), np.float64(self.momentum))
        return (t.shift, t.rest, t.scale, *numbers, t.running_mean, t.running_var)

    def _check_positions(self, t):
        if not self.uses_running(t) and t.x.size and t.x.size == t.shift.size:
            raise ShapeError(
                "instance_norm: a statistic needs more than one position in space (the variance of one is 0); got "
                f"maps of one position, {t.x.shape}; use group_norm or layer_norm, which look at several channels"
            )

    def reference(self, x, gamma=None, beta=None, running_mean=None, running_var=None, training=True, **_):
        x = np.asarray(x, np.float64)
        shape = (1, -1) + (1,) * (x.ndim - 2)
        axes = tuple(range(2, x.ndim))
        if self.track_running_stats and not training:
            mean, var = np.reshape(running_mean, shape), np.reshape(running_var, shape)
        else:
            mean, var = np.mean(x, axes, keepdims=True), np.var(x, axes, keepdims=True)
        y = (x - mean) / np.sqrt(var + self.eps)
        return y if gamma is None else np.reshape(gamma, shape) * y + np.reshape(beta, shape)

    def in_torch(self, torch, x, *, training, gamma=None, beta=None, running_mean=None, running_var=None):
        own = training or not self.track_running_stats
        return torch.nn.functional.instance_norm(
            x, running_mean, running_var, gamma, beta, own, self.momentum, self.eps
        )
