"""Decorrelated batch normalization: channels are whitened together, not only scaled one by one.

Forward, over the m = N * positions vectors x_i of the d channels of a group (ZCA whitening):
    mu = 1/m sum x_i        C = 1/m sum (x_i - mu)(x_i - mu)^T = U diag(lambda) U^T
    D = (C + eps I)^(-1/2) = U diag((lambda + eps)^(-1/2)) U^T        y_i = gamma * D (x_i - mu) + beta
so the eigenvalues of the output's covariance are lambda / (lambda + eps). ZCA turns back into the channels' own axes:
of all whitenings it changes x least, and channels keep their meaning from batch to batch.
Backward, with g_i = gamma * dy_i and A = sum g_i (x_i - mu)^T, the gradient to D: C moves D by the Daleckii-Krein
formula, dD = U (K * (U^T dC U)) U^T with the divided differences of f(lambda) = (lambda + eps)^(-1/2),
    K_ij = (f(lambda_i) - f(lambda_j)) / (lambda_i - lambda_j) = -1 / (s_i s_j (s_i + s_j)),  s = sqrt(lambda + eps)
The second form has no difference of eigenvalues to divide by: it is right where they coincide too. Then
    S = U (K * (U^T sym(A) U)) U^T        dx_i = D g_i + 2/m S (x_i - mu) - mean of D g
    dgamma = sum dy_i * D (x_i - mu)        dbeta = sum dy_i
Inference takes running_mean and running_covariance, (1 - momentum) * old + momentum * new, where the new covariance is
the unbiased one, m/(m - 1) C, as in batch_norm.

num_groups cuts the channels into groups that are whitened apart: d^3 work and d^2 numbers for each. Eigenvalues by
LAPACK (NumPy's on the CPU, cuSOLVER on CUDA), everything else in float64 too, so that channels with a mean of 1e6 or
values near 1e30 come out right. A group's NaN stays in that group. With fewer vectors than channels lambda has zeros,
which stay zeros in the output.

Shapes: x, y (N, C, *spatial), (N, C) included; gamma, beta, running_mean (C,), running_covariance (groups, d, d). float32
and float64, on CUDA stored in 16 bits too. Training with one vector is a ShapeError.

Source: Huang, Yang, Lang and Deng 2018, "Decorrelated batch normalization", arXiv:1804.08450. The divided differences:
Daleckii and Krein 1965.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization import whitening_planes_cuda, whitening_rows_cuda
from normcore_normalization.whitening_matrices import (
    finish_cuda,
    first_cuda,
    gradient_matrices,
    inverse_root,
    product_cuda,
    root_cuda,
    root_matrix,
    second_cuda,
)
from normcore_normalization.whitening_tiles import (
    TILE,
    apply,
    flat_view,
    input_gradient,
    means,
    products,
)

TASKS = 16


class DecorrelatedBatchNorm(
    Op,
    name="decorrelated_batch_norm",
    aliases=("whitening",),
    learnable=("gamma", "beta"),
    source="Huang, Yang, Lang and Deng 2018, arXiv:1804.08450",
):
    """Whiten the channels over the batch and space: gamma * (C + eps I)^(-1/2) (x - mean) + beta.

    num_groups: whitened apart. eps: added to the eigenvalues. momentum: weight of the new batch in the running
    statistics. affine: learn gamma and beta.
    """

    num_groups: int = 1
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = True

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    stores_16_bits = True
    calibrates = ("running_mean", "running_covariance")
    needs_batch = True

    samples = (
        Sample("feature maps", shape=(3, 4, 4, 7), params={"eps": 1e-2}),
        Sample(
            "groups, no parameters", shape=(4, 6, 5), params={"num_groups": 2, "eps": 0.1, "affine": False}
        ),
        Sample("dense features", shape=(9, 3), params={"eps": 0.1}),
        Sample("fewer vectors than channels", shape=(3, 5), params={"eps": 0.5}),
        Sample("running statistics", shape=(4, 3, 5), training=False),
    )
    error_samples = (
        ErrorSample("one vector", {}, (1, 4), "more than one", training=True),
        ErrorSample("no channel axis", {}, (4,), "(N, C)"),
        ErrorSample("groups must divide channels", {"num_groups": 3}, (2, 4, 5), "4 channels"),
        ErrorSample("no groups", {"num_groups": 0}, None, "num_groups"),
        ErrorSample("eps of 0", {"eps": 0.0}, None, "eps"),
        ErrorSample("momentum above 1", {"momentum": 2.0}, None, "momentum"),
    )

    def check(self):
        if isinstance(self.num_groups, bool) or self.num_groups < 1:
            raise ParameterError("num_groups", "a whole number, at least 1", self.num_groups)
        if not 0 < self.eps < math.inf:
            raise ParameterError("eps", "a number above 0, so that no eigenvalue is 0", self.eps)
        if not 0 <= self.momentum <= 1:
            raise ParameterError("momentum", "a number from 0 to 1", self.momentum)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"{self.name}: expected an input (N, C) or (N, C, *spatial), got {x.shape}")
        channels, groups = x.shape[1], self.num_groups
        if channels % groups:
            raise ShapeError(f"{self.name}: {channels} channels cannot be cut into {groups} equal groups")
        d = channels // groups
        square, line = Array((groups, d, d), "float64"), Array((channels,), "float64")
        count = x.size // max(1, channels)
        tasks = max(1, min(TASKS, count // TILE))
        per_channel = Array((channels,))
        affine = {"gamma": Array((channels,), init="ones"), "beta": per_channel}
        return Plan(
            y=x.shape,
            parameters=affine if self.affine else {},
            state={
                "running_mean": per_channel,
                "running_covariance": Array((groups, d, d), init="identity"),
            },
            saved={"mean": line, "values": Array((groups, d), "float64"), "vectors": square, "root": square},
            workspace={
                "z": Array((tasks, 3, channels, TILE), "float64"),
                "cross": Array((tasks, groups, d, d), "float64"),
                "sums": Array((tasks, channels), "float64"),
                "first": square,
                "second": square,
                "through": square,
                "along": square,
                "offset": line,
            },
            flops=x.size * (4 * d + 4),
        )

    # -- statistics ----------------------------------------------------------------------------------------

    def _use_running(self, t):
        t.mean[...] = t.running_mean
        t.first[...] = t.running_covariance

    def _use_batch(self, t, count):
        """t.cross[0] holds the sum of products; first gets the covariance, the running statistics move."""
        t.first[...] = t.cross[0] / count
        keep = 1.0 - 1.0 / t.calibrating if t.calibrating else 1.0 - self.momentum
        t.running_mean[...] = keep * t.running_mean + (1.0 - keep) * t.mean
        unbiased = t.cross[0] / (count - 1)
        t.running_covariance[...] = keep * t.running_covariance + (1.0 - keep) * unbiased

    def _count(self, t):
        count = t.x.size // t.mean.size
        if count <= 1:
            raise ShapeError(
                f"{self.name}: training needs more than one vector of channels (one has no covariance); got {count}; "
                "use a larger batch (data.drop_last leaves out a last batch of one)"
            )
        return count

    def _parameters(self, t):
        none = t.running_mean[:0]
        return (t.gamma, t.beta) if self.affine else (none, none)

    # -- CPU -----------------------------------------------------------------------------------------------

    def forward_cpu(self, t):
        shape, constants = flat_view(t)
        x, y = t.x.reshape(shape), t.y.reshape(shape)
        t.offset[...] = 0.0
        if t.training:
            count = self._count(t)
            means.with_constants(**constants)[t](x, t.offset, t.z, t.sums, t.mean)
            products.with_constants(**constants)[t](x, x, t.offset, t.mean, t.z, t.cross, t.sums, True)
            self._use_batch(t, count)
        else:
            self._use_running(t)
        t.device.eigh(t.first, t.values, t.vectors)
        root_matrix[t](t.values, t.vectors, t.root, self.eps)
        if x.size:
            apply.with_constants(**constants)[t](x, t.mean, t.root, *self._parameters(t), t.z, y)

    def backward_cpu(self, t):
        shape, constants = flat_view(t)
        x, dy = t.x.reshape(shape), t.dy.reshape(shape)
        zero = t.first.reshape(-1)[: t.mean.size]
        zero[...] = 0.0
        products.with_constants(**constants)[t](x, dy, zero, t.mean, t.z, t.cross, t.sums, False)
        share = 1.0 / max(1, t.x.size // t.mean.size) if t.training else 0.0
        gamma, _ = self._parameters(t)
        self._parameter_gradients(t)
        gradient_matrices[t](
            t.cross[0], t.sums[0], t.values, t.vectors, t.root, gamma,
            t.first, t.second, t.through, t.along, t.offset, self.eps, share,
        )  # fmt: skip
        if t.dx is not None and x.size:
            dx = t.dx.reshape(shape)
            zero = t.second.reshape(-1)[: t.mean.size]
            zero[...] = 0.0
            gradient = input_gradient.with_constants(**constants)
            gradient[t](x, dy, zero, t.mean, t.through, t.along, t.offset, t.z, dx)

    def _parameter_gradients(self, t):
        if self.affine:
            t.dgamma[...] = (t.root * t.cross[0]).sum(axis=2).reshape(-1)
            t.dbeta[...] = t.sums[0]

    # -- CUDA ----------------------------------------------------------------------------------------------

    def forward_cuda(self, t):
        passes, shape, x, y = self._on_cuda(t, t.x, t.y)
        matrices = t.first.shape[:2]
        z, out = t.device.scratch(2 * 8 * x.size).view("float64").reshape(2, *matrices, x.size // t.mean.size)
        if t.training:
            count = self._count(t)
            passes.sum_channels(t, shape, x, True)
            passes.center(t, shape, x, z, True)
            t.device.matmul(z, z.transpose(0, 2, 1), t.cross[0])
            self._use_batch(t, count)
        else:
            self._use_running(t)
            if x.size:
                passes.center(t, shape, x, z, True)
        t.device.eigh(t.first, t.values, t.vectors)
        root_cuda[t, t.mean.size](t.values, t.vectors, t.root, np.float64(self.eps))
        if x.size:
            t.device.matmul(t.root, z, out)
            passes.store(t, shape, out, out[:0], y, *self._parameters(t))

    def backward_cuda(self, t):
        passes, shape, x, dy = self._on_cuda(t, t.x, t.dy)
        channels, matrices = t.mean.size, t.first.shape[:2]
        share = np.float64(channels / max(1, x.size) if t.training else 0.0)
        z, g, a, b = (
            t.device.scratch(4 * 8 * x.size).view("float64").reshape(4, *matrices, x.size // channels)
        )
        t.sums[0], t.cross[0] = 0.0, 0.0
        if x.size:
            passes.sum_channels(t, shape, dy, False)
            passes.center(t, shape, x, z, True)
            passes.center(t, shape, dy, g, False)
            t.device.matmul(g, z.transpose(0, 2, 1), t.cross[0])
        gamma, _ = self._parameters(t)
        self._parameter_gradients(t)
        if t.dx is None or not x.size:
            return
        if t.training:
            first_cuda[t, channels](t.cross[0], t.vectors, gamma, t.first)
            second_cuda[t, channels](t.first, t.values, t.vectors, t.second, np.float64(self.eps))
            product_cuda[t, channels](t.vectors, t.second, t.first)
        small = (t.first, t.vectors, t.root, gamma, t.sums[0], t.through, t.along, t.offset)
        finish_cuda[t, channels](*small, share)
        t.device.matmul(t.through, g, a)
        t.device.matmul(t.along, z, b)
        passes.store(t, shape, a, b, t.dx.reshape(-1), gamma[:0], t.offset)

    def _on_cuda(self, t, *arrays):
        """The passes over the data, the shape that they know, and arrays as they take them."""
        shape, constants = flat_view(t)
        passes = whitening_rows_cuda if constants["LAST"] else whitening_planes_cuda
        return passes, shape, *(a.reshape(-1) for a in arrays)

    def reference(self, x, running_mean, running_covariance, gamma=None, beta=None, training=True, **_):
        """Whitening by the inverse of the matrix square root that Denman and Beavers' iteration gives."""
        groups = self.num_groups
        rows = np.moveaxis(np.asarray(x, np.float64), 1, 0).reshape(groups, x.shape[1] // groups, -1)
        out = np.empty_like(rows)
        for k in range(groups):
            if training:
                mean = rows[k].mean(axis=1, keepdims=True)
                covariance = np.cov(rows[k], bias=True).reshape(len(rows[k]), -1)
            else:
                mean = np.reshape(running_mean, (groups, -1, 1))[k]
                covariance = running_covariance[k]
            if not np.isfinite(covariance).all():
                out[k] = np.nan
                continue
            out[k] = inverse_root(covariance + self.eps * np.eye(len(covariance))) @ (rows[k] - mean)
        shape = (x.shape[1], x.shape[0], *x.shape[2:])
        y = np.moveaxis(out.reshape(shape), 0, 1)
        per_channel = (1, -1, *(1,) * (len(x.shape) - 2))
        return y if gamma is None else np.reshape(gamma, per_channel) * y + np.reshape(beta, per_channel)
