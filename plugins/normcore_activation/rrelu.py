"""rrelu: a leaky relu whose negative slope is drawn anew for each number in training, and the mean slope after it.

Forward   y = x for x > 0, else r x; in training r = lower + (upper - lower) u with u uniform in [0, 1),
          in inference r = (lower + upper) / 2
Gradient  dy/dx = 1 for x > 0, else r, with the same r

u comes from the counter-based generator keyed by (seed and layer, call number, i), i the row-major index in the logical
array (N, C, *spatial), as dropout's does, so r does not depend on the memory format, the device, the dtype or the
number of threads. It has 24 bits. Training keeps dy/dx for backward, which needs no x then.
Shapes: any. float32 and float64. NaN stays NaN. lower above upper is a ParameterError.

Source: Xu, Wang, Chen and Li 2015, "Empirical evaluation of rectified activations in convolutional network",
arXiv:1505.00853; it draws 1 / r between 3 and 8, PyTorch r between 1/8 and 1/3, as here.
"""

import math
from functools import cached_property

import numpy as np

import normcore
from normcore import Array, Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange
from normcore.kernels.draws import (
    GROUP,
    groups_of,
    lanes_of,
    lines_in,
    lines_out,
    part_of,
    units_of,
    workspace,
)
from normcore.random import philox, uniform, uniform_32, unit_32
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.gated import inlined
from normcore_activation.leaky_relu import leaky_relu

TASK = 64  # groups a parallel task takes


@normcore.elementwise(source="the chain rule")
class rrelu_gradient:
    """dx = dy * slope, element by element."""

    def forward(dy, slope):
        return dy * slope


PRODUCT = rrelu_gradient()

_scalars = leaky_relu.scalars[""]
_slope = inlined(_scalars.derivatives[0])


@inline
def slope_of(x, u, lower, spread):
    """dy/dx, and y / x too: 1 or the slope that u draws."""
    return _slope(x, x, lower + spread * u)


@inline
def group_run(x, y, slope, key, group, call, lower, spread):
    """One whole group: a block of the generator serves four elements, a quarter of the group apart."""
    for j in range(32):
        w0, w1, w2, w3 = philox(key, group * 32 + j, call, 0)
        slope[j] = slope_of(x[j], unit_32(w0), lower, spread)
        slope[j + 32] = slope_of(x[j + 32], unit_32(w1), lower, spread)
        slope[j + 64] = slope_of(x[j + 64], unit_32(w2), lower, spread)
        slope[j + 96] = slope_of(x[j + 96], unit_32(w3), lower, spread)
    for j in range(GROUP):
        y[j] = x[j] * slope[j]


@cpu
def _random(x, y, slope, key, call, lower, spread):
    """x, y, slope flat, in logical order."""
    groups = (x.size + GROUP - 1) // GROUP
    for task in prange((groups + TASK - 1) // TASK):
        for group in range(task * TASK, min(groups, task * TASK + TASK)):
            lo = group * GROUP
            hi = lo + GROUP
            if hi <= x.size:
                group_run(x[lo:hi], y[lo:hi], slope[lo:hi], key, group, call, lower, spread)
            else:
                for i in range(lo, x.size):
                    slope[i] = slope_of(x[i], uniform_32(key, i, call, 0), lower, spread)
                    y[i] = x[i] * slope[i]


@cpu
def _random_channels_last(x, y, slope, lines, shape, key, call, lower, spread):
    """Flat arrays of shape (N, S, C), where element (n, s, c) has the logical index (n * C + c) * S + s."""
    tasks, units = lines.shape[0], units_of(shape)
    for task in prange(tasks):
        before, after, drawn = lines[task, 0], lines[task, 1], lines[task, 2]
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            at, count_of_lines, first, stride, length, count = part_of(unit, shape)
            lines_in(x, at, shape[2], before, stride, length, count)
            for k in range(count_of_lines):
                lo, group, end = groups_of(first, k, shape[1], stride, length, count)
                while group < end:
                    hi = lo + GROUP
                    group_run(before[lo:hi], after[lo:hi], drawn[lo:hi], key, group, call, lower, spread)
                    group += 1
                    lo = hi
            lines_out(after, stride, y, at, shape[2], length, count)
            lines_out(drawn, stride, slope, at, shape[2], length, count)


@cuda
def _random_cuda(x, y, slope, key, call, lower, spread):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        r = slope_of(x[i], uniform_32(key, i, call, 0), lower, spread)
        slope[i] = r
        y[i] = x[i] * r


@cuda
def _random_channels_last_cuda(x, y, slope, key, call, lower, spread):
    positions, channels = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        c = i % channels
        s = i // channels % positions
        n = i // channels // positions
        u = uniform_32(key, (n * channels + c) * positions + s, call, 0)
        r = slope_of(x[n, s, c], u, lower, spread)
        slope[n, s, c] = r
        y[n, s, c] = x[n, s, c] * r


class Rrelu(Op, name="rrelu", source="Xu, Wang, Chen and Li 2015, arXiv:1505.00853"):
    """y = x for x > 0, else r x; r uniform between lower and upper in training, their mean in inference."""

    lower: float = 1 / 8
    upper: float = 1 / 3

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)  # in inference
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
        size = math.prod(x.shape)
        return Plan(y=x.shape, saved={"slope": Array((size,))}, workspace=workspace(x, 3), flops=16 * size)

    @cached_property
    def mean(self):
        """The op that inference runs."""
        return leaky_relu((self.lower + self.upper) / 2)

    def _constants(self, t):
        return (np.dtype(t.dtype).type(self.mean.negative_slope),)

    def forward_cpu(self, t):
        if not t.training:
            self.mean.kernels.forward[t](t.x.reshape(-1), t.y.reshape(-1), self._constants(t))
        elif t.format == "channels_last" and t.x.ndim > 2:
            kernel = _random_channels_last.with_constants(LANES=lanes_of(t.dtype))
            shape = (t.x.shape[0], math.prod(t.x.shape[1:-1]), t.x.shape[-1])
            kernel[t](t.x.reshape(-1), t.y.reshape(-1), t.slope, t.lines, shape, *self._numbers(t))
        else:
            _random[t](t.x.reshape(-1), t.y.reshape(-1), t.slope, *self._numbers(t))

    def backward_cpu(self, t):
        if t.dx is None:
            return
        dy, dx = t.dy.reshape(-1), t.dx.reshape(-1)
        if t.training:
            PRODUCT.kernels.forward[t](dy, t.slope, dx, (t.slope.dtype.type(0),))
        else:
            self.mean.kernels.backward[t](t.x.reshape(-1), dy, dx, self._constants(t))

    def forward_cuda(self, t):
        x, y = t.x.reshape(-1), t.y.reshape(-1)
        if not t.training:
            self.mean.kernels.forward_cuda[t, y.size](x, y, self._constants(t))
        elif t.format == "channels_last" and t.x.ndim > 2:
            shape = (t.x.shape[0], math.prod(t.x.shape[1:-1]), t.x.shape[-1])
            arrays = (a.reshape(shape) for a in (x, y, t.slope))
            _random_channels_last_cuda[t, y.size](*arrays, *self._numbers(t))
        else:
            _random_cuda[t, y.size](x, y, t.slope, *self._numbers(t))

    def backward_cuda(self, t):
        if t.dx is None:
            return
        dy, dx = t.dy.reshape(-1), t.dx.reshape(-1)
        if t.training:
            PRODUCT.kernels.forward_cuda[t, dx.size](dy, t.slope, dx, (t.slope.dtype.type(0),))
        else:
            self.mean.kernels.backward_cuda[t, dx.size](t.x.reshape(-1), dy, dx, self._constants(t))

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
