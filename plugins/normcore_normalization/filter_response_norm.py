"""Filter response normalization: each map of each sample divided by its root mean square, then thresholded.

Forward, over the L positions of one channel of one sample (no mean is subtracted, no batch is looked at):
    nu2 = 1/L sum x_i^2        xhat_i = x_i / sqrt(nu2 + eps)        z_i = gamma * xhat_i + beta
    y_i = max(z_i, tau), the thresholded linear unit, or z_i with tlu=False
Backward, with g_i = dy_i where z_i >= tau, else 0 (tau takes what is left over):
    dtau = sum dy_i where z_i < tau        dgamma = sum g_i * xhat_i        dbeta = sum g_i
    dx_i = gamma / sqrt(nu2 + eps) * (g_i - xhat_i * 1/L sum g_j * xhat_j)
At z = tau the gradient goes to z. A ReLU would be wrong behind this op: without a mean to subtract, z is biased away
from zero, which is what tau makes up for. gamma starts at 1, beta and tau at 0, so that it starts as a ReLU. The paper
can learn eps for maps of 1 x 1; here it is a constant, as in its experiments on larger maps.

Numerics: squares are summed in blocks, blocks in float64; a sum that float32's squares cannot hold (values near
1e30 or 1e-30) is taken again in float64. Planes never mix, so a NaN stays in its own.

Shapes: x, y (N, C, *spatial), (N, C) included, where each value is a map of its own; gamma, beta, tau (C,). float32
and float64.

Source: Singh and Krishnan 2020, "Filter response normalization layer: eliminating batch dependence in the training of
deep neural networks", arXiv:1911.09737.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization import filter_response_cuda
from normcore_normalization.filter_response_kernels import (
    backward_planes,
    backward_positions,
    collect,
    forward_planes,
    forward_positions,
)

STRIP = 65536  # values of a strip of channels, about: x, dy and dx of it stay in the L2 cache
WHOLE = 1 << 19  # values of a sample that is taken row after row: 2 MB of float32, twice through the caches
LEAST_STRIP = 32  # channels: two cache lines of float32


class FilterResponseNorm(
    Op,
    name="filter_response_norm",
    aliases=("frn",),
    learnable=("gamma", "beta", "tau"),
    source="Singh and Krishnan 2020, arXiv:1911.09737",
):
    """max(gamma * x / sqrt(mean of x^2 over the map + eps) + beta, tau).

    eps: added to the mean square. tlu: end with the thresholded linear unit; without it there is no tau.
    """

    eps: float = 1e-6
    tlu: bool = True

    stores_16_bits = True
    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)

    samples = (
        Sample("feature maps; rows and channels leave vector remainders", shape=(3, 5, 4, 7)),
        Sample("no threshold", shape=(2, 3, 11), params={"tlu": False}),
        Sample("volumes", shape=(2, 3, 2, 4, 3), params={"eps": 1e-2}),
        Sample("dense features", shape=(4, 6), params={"eps": 0.5}),
        Sample("beyond one strip of channels and one block of rows", shape=(1, 40, 9, 9)),
    )
    error_samples = (
        ErrorSample("no channel axis", {}, (4,), "(N, C)"),
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
    )
    benchmarks = (
        Sample("AlexNet's first maps", shape=(32, 96, 55, 55)),
        Sample("a residual network's", shape=(128, 64, 32, 32)),
    )

    def check(self):
        if not 0 <= self.eps < math.inf:
            raise ParameterError("eps", "a number of at least 0", self.eps)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"{self.name}: expected an input (N, C) or (N, C, *spatial), got {x.shape}")
        batch, channels = x.shape[:2]
        width = _width(x.size // max(1, batch * channels), channels)
        per_channel = Array((channels,))
        parameters = {"gamma": Array((channels,), init="ones"), "beta": per_channel}
        if self.tlu:
            parameters["tau"] = per_channel
        return Plan(
            y=x.shape,
            parameters=parameters,
            saved={"scale": Array((batch, channels))},
            workspace={
                "lines": Array((batch * -(-channels // width), 5, width)),
                "sums": Array((3, batch, channels), "float64"),
            },
            flops=5 * x.size,
        )

    def forward_cpu(self, t):
        if not t.x.size:
            return
        shape, last = _flat(t)
        x, y, parameters = t.x.reshape(shape), t.y.reshape(shape), self._parameters(t)
        if last:
            width = t.lines.shape[2]
            forward_positions[t](x, y, *parameters, t.scale, t.lines, t.sums, width, self.eps)
        else:
            forward_planes[t](x, y, *parameters, t.scale, self.eps)

    def backward_cpu(self, t):
        shape, last = _flat(t)
        wanted = t.dx is not None
        x, dy, parameters = t.x.reshape(shape), t.dy.reshape(shape), self._parameters(t)
        dx = t.dx.reshape(shape) if wanted else dy
        if last:
            width = t.lines.shape[2]
            backward_positions[t](x, dy, dx, *parameters, t.scale, t.lines, t.sums, width, wanted)
        else:
            backward_planes[t](x, dy, dx, *parameters, t.scale, t.sums, wanted)
        collect[t](t.sums, t.dgamma, t.dbeta, t.dtau if self.tlu else t.gamma[:0])

    def forward_cuda(self, t):
        if t.x.size:
            x, y, eps = t.x.reshape(-1), t.y.reshape(-1), np.float64(self.eps)
            filter_response_cuda.forward(t, *_flat(t), x, y, self._parameters(t), eps)

    def backward_cuda(self, t):
        if t.x.size:
            dx = None if t.dx is None else t.dx.reshape(-1)
            parameters = self._parameters(t)
            filter_response_cuda.backward(t, *_flat(t), t.x.reshape(-1), t.dy.reshape(-1), dx, parameters)
        tau = t.dtau if self.tlu else t.gamma[:0]
        filter_response_cuda.collect_cuda[t, t.gamma.size](t.sums, t.dgamma, t.dbeta, tau)

    def _parameters(self, t):
        return t.gamma, t.beta, (t.tau if self.tlu else t.gamma[:0])

    def reference(self, x, gamma, beta, tau=None, **_):
        x = np.asarray(x, np.float64)
        rows = x.reshape(*x.shape[:2], -1)
        size = np.linalg.norm(rows, axis=2, keepdims=True) / np.sqrt(rows.shape[2])
        shape = (1, -1, 1)
        z = np.reshape(gamma, shape) * rows / np.hypot(size, np.sqrt(self.eps)) + np.reshape(beta, shape)
        return (z if tau is None else np.maximum(z, np.reshape(tau, shape))).reshape(x.shape)

    def in_torch(self, torch, x, *, training, gamma, beta, tau=None, **_):
        shape = (1, -1, *(1,) * (x.ndim - 2))
        axes = tuple(range(2, x.ndim))
        energy = (x * x).mean(axes, keepdim=True) if axes else x * x
        z = gamma.reshape(shape) * (x * torch.rsqrt(energy + self.eps)) + beta.reshape(shape)
        return z if tau is None else torch.maximum(z, tau.reshape(shape))


def _width(length, channels):
    """Channels of a strip, a multiple of a cache line where there are as many; all of them where a sample is small."""
    if length * channels <= WHOLE:
        return channels
    return max(1, min(channels, max(LEAST_STRIP, STRIP // max(1, length) // 16 * 16)))


def _flat(t):
    """The shape (N, L, C) channels last, else (N, C, L); and whether it is the former."""
    if t.format == "channels_last" and t.x.ndim > 2:
        return (t.x.shape[0], math.prod(t.x.shape[1:-1]), t.x.shape[-1]), True
    return (*t.x.shape[:2], math.prod(t.x.shape[2:])), False
