"""rrelu: a leaky relu whose negative slope is drawn anew for each number in training, and the mean slope after it.

Forward   y = x for x > 0, else r x; in training r = lower + (upper - lower) u with u uniform in [0, 1),
          in inference r = (lower + upper) / 2
Gradient  dy/dx = 1 for x > 0, else r, with the same r

u comes from the counter-based generator keyed by (seed and layer, call number, i), i the row-major index in the logical
array (N, C, *spatial), as dropout's does: backward draws r again instead of keeping it, and r does not depend on
the memory format, the device, the dtype or the number of threads. It has 24 bits.
Shapes: any. float32 and float64. NaN stays NaN. lower above upper is a ParameterError.

Source: Xu, Wang, Chen and Li 2015, "Empirical evaluation of rectified activations in convolutional network",
arXiv:1505.00853; it draws 1 / r between 3 and 8, PyTorch r between 1/8 and 1/3, as here.
"""

import math
from functools import cached_property

import numpy as np

from normcore import Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange
from normcore.random import philox, uniform, uniform_32, unit_32
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.gated import inlined
from normcore_activation.leaky_relu import leaky_relu

GROUP = 128  # elements that share 32 blocks of the generator (normcore.random)
TASK = 64  # groups a parallel task takes
BACKWARD = False  # the factor goes to the gradient instead of to x

_scalars = leaky_relu.scalars[""]
_value, _slope = inlined(_scalars.forward), inlined(_scalars.derivatives[0])


@inline
def result(x, g, u, lower, spread):
    """y, or in backward dx from the gradient g."""
    r = lower + spread * u
    return g * _slope(x, x, r) if BACKWARD else _value(x, r)


@inline
def group_run(x, g, out, key, group, call, lower, spread):
    """One whole group: a block of the generator serves four elements, a quarter of the group apart."""
    for j in range(32):
        w0, w1, w2, w3 = philox(key, group * 32 + j, call, 0)
        out[j] = result(x[j], g[j], unit_32(w0), lower, spread)
        out[j + 32] = result(x[j + 32], g[j + 32], unit_32(w1), lower, spread)
        out[j + 64] = result(x[j + 64], g[j + 64], unit_32(w2), lower, spread)
        out[j + 96] = result(x[j + 96], g[j + 96], unit_32(w3), lower, spread)


@cpu
def _random(x, g, out, key, call, lower, spread):
    """x, g, out flat, in logical order."""
    groups = (x.size + GROUP - 1) // GROUP
    for task in prange((groups + TASK - 1) // TASK):
        for group in range(task * TASK, min(groups, task * TASK + TASK)):
            lo = group * GROUP
            hi = lo + GROUP
            if hi <= x.size:
                group_run(x[lo:hi], g[lo:hi], out[lo:hi], key, group, call, lower, spread)
            else:
                for i in range(lo, x.size):
                    out[i] = result(x[i], g[i], uniform_32(key, i, call, 0), lower, spread)


@cpu
def _random_channels_last(x, g, out, key, call, lower, spread):
    """Arrays (N, S, C), where element (n, s, c) has the logical index (n * C + c) * S + s."""
    batch, positions, channels = x.shape
    for j in prange(batch * positions):
        n = j // positions
        s = j - n * positions
        for c in range(channels):
            u = uniform_32(key, (n * channels + c) * positions + s, call, 0)
            out[n, s, c] = result(x[n, s, c], g[n, s, c], u, lower, spread)


@cuda
def _random_cuda(x, g, out, key, call, lower, spread):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        out[i] = result(x[i], g[i], uniform_32(key, i, call, 0), lower, spread)


@cuda
def _random_channels_last_cuda(x, g, out, key, call, lower, spread):
    positions, channels = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        c = i % channels
        s = i // channels % positions
        n = i // channels // positions
        u = uniform_32(key, (n * channels + c) * positions + s, call, 0)
        out[n, s, c] = result(x[n, s, c], g[n, s, c], u, lower, spread)


class Rrelu(Op, name="rrelu", source="Xu, Wang, Chen and Li 2015, arXiv:1505.00853"):
    """y = x for x > 0, else r x; r uniform between lower and upper in training, their mean in inference."""

    lower: float = 1 / 8
    upper: float = 1 / 3

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    stochastic = True

    samples = (
        Sample("feature maps", shape=(3, 5, 4, 7)),
        Sample(
            "more than one group of the generator", shape=(4, 3, 50), params={"lower": -0.5, "upper": 0.5}
        ),
        Sample("no spread is leaky_relu", shape=(2, 6), params={"lower": 0.2, "upper": 0.2}),
        Sample("inference takes the mean slope", shape=(3, 5, 4), training=False),
    )
    benchmarks = (
        Sample("large maps", shape=(32, 96, 55, 55)),
        Sample("small maps", shape=(32, 256, 14, 14)),
        Sample("features", shape=(128, 1000)),
    )
    error_samples = (
        ErrorSample("the wrong way round", {"lower": 0.5, "upper": 0.1}, None, "lower"),
        ErrorSample("no number", {"upper": math.inf}, None, "upper"),
    )

    def check(self):
        for name in ("lower", "upper"):
            if not math.isfinite(getattr(self, name)):
                raise ParameterError(name, "a finite number", getattr(self, name))
        if self.lower > self.upper:
            raise ParameterError("lower", f"a number of at most upper, which is {self.upper}", self.lower)

    def plan(self, x: Tensor) -> Plan:
        return Plan(y=x.shape, flops=16 * x.size)

    @cached_property
    def mean(self):
        """The op that inference runs."""
        return leaky_relu((self.lower + self.upper) / 2)

    def _constants(self, t):
        return (np.dtype(t.dtype).type(self.mean.negative_slope),)

    def forward_cpu(self, t):
        if t.training:
            self._draw(t, _random, _random_channels_last, t.x, t.x, t.y)
        else:
            self.mean.kernels.forward[t](t.x.reshape(-1), t.y.reshape(-1), self._constants(t))

    def backward_cpu(self, t):
        if t.dx is None:
            return
        if t.training:
            self._draw(t, _random_back, _random_channels_last_back, t.x, t.dy, t.dx)
        else:
            arrays = (t.x.reshape(-1), t.dy.reshape(-1), t.dx.reshape(-1))
            self.mean.kernels.backward[t](*arrays, self._constants(t))

    def forward_cuda(self, t):
        if t.training:
            self._draw_cuda(t, _random_cuda, _random_channels_last_cuda, t.x, t.x, t.y)
        else:
            forward = self.mean.kernels.forward_cuda
            forward[t, t.y.size](t.x.reshape(-1), t.y.reshape(-1), self._constants(t))

    def backward_cuda(self, t):
        if t.dx is None:
            return
        if t.training:
            self._draw_cuda(t, _random_cuda_back, _random_channels_last_cuda_back, t.x, t.dy, t.dx)
        else:
            arrays = (t.x.reshape(-1), t.dy.reshape(-1), t.dx.reshape(-1))
            self.mean.kernels.backward_cuda[t, t.dx.size](*arrays, self._constants(t))

    def _draw(self, t, flat, channels_last, *arrays):
        kernel, shape = self._view(t, flat, channels_last)
        kernel[t](*(a.reshape(shape) for a in arrays), *self._numbers(t))

    def _draw_cuda(self, t, flat, channels_last, *arrays):
        kernel, shape = self._view(t, flat, channels_last)
        kernel[t, arrays[0].size](*(a.reshape(shape) for a in arrays), *self._numbers(t))

    def _view(self, t, flat, channels_last):
        shape = t.x.shape
        if t.format == "channels_last" and len(shape) > 2:
            return channels_last, (shape[0], math.prod(shape[1:-1]), shape[-1])
        return flat, (t.x.size,)

    def _numbers(self, t):
        kind = np.dtype(t.dtype).type
        return t.key, t.call, kind(self.lower), kind(self.upper - self.lower)

    def reference(self, x, *, training=True, key=0, call=0, **arrays):
        """The slopes from the array half of the generator."""
        x = np.asarray(x, np.float64)
        r = (self.lower + self.upper) / 2
        if training:
            u = uniform(int(key), x.shape, "float32", call).astype(np.float64)
            r = self.lower + (self.upper - self.lower) * u
        return np.maximum(x, 0.0) + r * np.minimum(x, 0.0)

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.nn.functional.rrelu(x, self.lower, self.upper, training)


_random_back = _random.with_constants(BACKWARD=True)
_random_channels_last_back = _random_channels_last.with_constants(BACKWARD=True)
_random_cuda_back = _random_cuda.with_constants(BACKWARD=True)
_random_channels_last_cuda_back = _random_channels_last_cuda.with_constants(BACKWARD=True)
