"""Batch renormalization: batch_norm whose training sees, as inference does, what the running statistics say.

Forward, with mu and sigma = sqrt(var + eps) of the batch, and mu_r and sigma_r = sqrt(running_var + eps):
    r = clip(sigma / sigma_r, 1 / r_max, r_max)        d = clip((mu - mu_r) / sigma_r, -d_max, d_max)
    xhat = (x - mu) / sigma * r + d                    y = gamma * xhat + beta
Where nothing is clipped xhat is (x - mu_r) / sigma_r, exactly what inference computes.
Backward takes r and d as constants, so it is batch_norm's with gamma * r for gamma:
    dbeta = sum g        dgamma = sum g * xhat = r * sum g * (x - mu) / sigma + d * dbeta
r and d use the running statistics from before this batch, which then moves them as in batch_norm: the variance
is stored (the paper stores sigma), unbiased, and eps stands inside the root for both. r_max = 1 and d_max = 0 is
batch_norm. The paper starts there and relaxes both during training.

Shapes, dtypes, numerics and errors: as batch_norm; the running statistics are always kept.

Source: Ioffe 2017, "Batch renormalization: towards reducing minibatch dependence in batch-normalized models",
arXiv:1702.03275.
"""

import dataclasses

import numpy as np

from normcore import Array, ParameterError, Plan, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization.batch_norm import BatchNorm


class BatchRenorm(
    BatchNorm,
    name="batch_renorm",
    aliases=(),
    learnable=("gamma", "beta"),
    source="Ioffe 2017, arXiv:1702.03275",
):
    """Batch norm corrected towards the running statistics: gamma * ((x - mean) / sqrt(var + eps) * r + d) + beta.

    eps, momentum, affine: as batch_norm. track_running_stats: must be true. r_max, d_max: how far the batch may
    be corrected, in scale (at least 1) and in shift (at least 0).
    """

    r_max: float = 3.0
    d_max: float = 5.0

    samples = (
        Sample("feature maps; rows and channels leave vector remainders", shape=(3, 5, 4, 7)),
        Sample("dense features, clipped", shape=(7, 6), params={"r_max": 1.01, "d_max": 0.01}),
        Sample("no parameters", shape=(4, 3, 11), params={"affine": False}),
        Sample("running statistics", shape=(4, 3, 5, 3), training=False),
    )
    error_samples = (
        ErrorSample("one value per channel", {}, (1, 4), "more than one value per channel", training=True),
        ErrorSample("r_max below 1", {"r_max": 0.5}, None, "r_max"),
        ErrorSample("d_max below 0", {"d_max": -1.0}, None, "d_max"),
        ErrorSample("nothing to correct towards", {"track_running_stats": False}, None, "batch_norm"),
    )
    benchmarks = (Sample("ResNet-50, third stage", shape=(32, 256, 14, 14)),)

    def check(self):
        super().check()
        if not self.r_max >= 1:
            raise ParameterError("r_max", "a number of at least 1", self.r_max)
        if not self.d_max >= 0:
            raise ParameterError("d_max", "a number of at least 0", self.d_max)
        if not self.track_running_stats:
            raise ParameterError("track_running_stats", "true (without it use batch_norm)", False)

    def plan(self, x: Tensor) -> Plan:
        plan = super().plan(x)
        saved = {**plan.saved, "change": Array((2 * x.shape[1],))}
        return dataclasses.replace(plan, saved=saved)

    def kernel(self, kernel):
        return kernel.with_constants(R_MAX=float(self.r_max), D_MAX=float(self.d_max))

    def _change(self, t, none):
        return t.change if t.training else t.shift[:0]

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
        shape = (1, -1) + (1,) * (x.ndim - 2)
        if not training:
            return torch.nn.functional.batch_norm(
                x, running_mean, running_var, gamma, beta, False, 0.0, self.eps
            )
        axes = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x, axes, correction=0)
        with torch.no_grad():
            sigma = torch.sqrt(running_var + self.eps)
            r = (torch.sqrt(var + self.eps) / sigma).clamp(1 / self.r_max, self.r_max)
            d = ((mean - running_mean) / sigma).clamp(-self.d_max, self.d_max)
        momentum = self.momentum
        if momentum is None:
            num_batches += 1
            momentum = 1.0 / int(num_batches[0])
        y = torch.nn.functional.batch_norm(x, running_mean, running_var, None, None, True, momentum, self.eps)
        y = y * r.reshape(shape) + d.reshape(shape)
        return y if gamma is None else y * gamma.reshape(shape) + beta.reshape(shape)

    def reference(self, x, gamma=None, beta=None, running_mean=None, running_var=None, training=True, **_):
        arrays = {"gamma": gamma, "beta": beta, "running_mean": running_mean, "running_var": running_var}
        return self.gradient_reference(x, (x,), training, **arrays)

    def gradient_reference(
        self, x, at, training, gamma=None, beta=None, running_mean=None, running_var=None, **_
    ):
        """The output at x with the r and d of at[0], which backward holds constant."""
        if not training:
            return super().reference(x, gamma, beta, running_mean, running_var, training=False)
        values = np.moveaxis(np.asarray(at[0], np.float64), 1, 0).reshape(x.shape[1], -1)
        old = np.sqrt(np.asarray(running_var, np.float64) + self.eps)
        r = np.clip(np.sqrt(np.var(values, axis=1) + self.eps) / old, 1 / self.r_max, self.r_max)
        d = np.clip((np.mean(values, axis=1) - running_mean) / old, -self.d_max, self.d_max)
        shape = (1, -1) + (1,) * (np.ndim(x) - 2)
        y = super().reference(x, training=True) * r.reshape(shape) + d.reshape(shape)
        return y if gamma is None else np.reshape(gamma, shape) * y + np.reshape(beta, shape)
