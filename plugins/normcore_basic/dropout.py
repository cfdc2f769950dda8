"""Dropout: in training each number is kept with probability 1 - p and divided by it, or set to zero.

Forward:  y_i = x_i * keep_i / (1 - p), keep_i = 1 where u_i >= p, else 0; u_i uniform in [0, 1)
Backward: dx_i = dy_i * keep_i / (1 - p), with the same keep_i
Inference: y = x. Scaling in training ("inverted" dropout) makes the means of both agree; the paper scales the
weights in inference instead.

u_i comes from a counter-based generator keyed by (seed and layer, call number, i), i the row-major index in
the logical array (N, C, *spatial). So backward draws the mask again instead of keeping it, and the mask
does not depend on the memory format, the device, the dtype or the number of threads. It has 24 bits; p is
rounded up to them. NaN times 0 stays NaN, as in PyTorch. Shapes: any. float32 and float64.

Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, "Dropout: a simple way to prevent
neural networks from overfitting", JMLR 15.
"""

import math

import numpy as np

from normcore import Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
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

TASK = 64  # groups a parallel task takes
LEVELS = 1 << 24  # values a float32 uniform takes


@inline
def factor(u, limit, scale):
    """What x is multiplied by."""
    return scale if u >= limit else real(0)


# -- CPU ---------------------------------------------------------------------------------------------------


@inline
def drop_group(x, y, key, group, call, limit, scale):
    """One whole group: a block of the generator serves four elements, a quarter of the group apart."""
    for j in range(32):
        w0, w1, w2, w3 = philox(key, group * 32 + j, call, 0)
        y[j] = x[j] * factor(unit_32(w0), limit, scale)
        y[j + 32] = x[j + 32] * factor(unit_32(w1), limit, scale)
        y[j + 64] = x[j + 64] * factor(unit_32(w2), limit, scale)
        y[j + 96] = x[j + 96] * factor(unit_32(w3), limit, scale)


@cpu
def _drop(x, y, key, call, limit, scale):
    """x, y flat, in logical order."""
    groups = (x.size + GROUP - 1) // GROUP
    for task in prange((groups + TASK - 1) // TASK):
        for group in range(task * TASK, min(groups, task * TASK + TASK)):
            lo = group * GROUP
            if lo + GROUP <= x.size:
                drop_group(x[lo : lo + GROUP], y[lo : lo + GROUP], key, group, call, limit, scale)
            else:
                for i in range(lo, x.size):
                    y[i] = x[i] * factor(uniform_32(key, i, call, 0), limit, scale)


@cpu
def _drop_channels_last(x, y, lines, shape, key, call, limit, scale):
    """x, y flat, of shape (N, S, C), where element (n, s, c) has the logical index (n * C + c) * S + s."""
    tasks, units = lines.shape[0], units_of(shape)
    for task in prange(tasks):
        before, after = lines[task, 0], lines[task, 1]
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            at, count_of_lines, first, stride, length, count = part_of(unit, shape)
            lines_in(x, at, shape[2], before, stride, length, count)
            for k in range(count_of_lines):
                lo, group, end = groups_of(first, k, shape[1], stride, length, count)
                while group < end:
                    drop_group(
                        before[lo : lo + GROUP], after[lo : lo + GROUP], key, group, call, limit, scale
                    )
                    group += 1
                    lo += GROUP
            lines_out(after, stride, y, at, shape[2], length, count)


@inline
def copy_part(x, y):
    for i in range(x.size):
        y[i] = x[i]


@cpu
def _copy(x, y):
    size = GROUP * TASK
    for task in prange((x.size + size - 1) // size):
        copy_part(x[task * size : task * size + size], y[task * size : task * size + size])


# -- CUDA --------------------------------------------------------------------------------------------------


@cuda
def _drop_cuda(x, y, key, call, limit, scale):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        y[i] = x[i] * factor(uniform_32(key, i, call, 0), limit, scale)


@cuda
def _drop_channels_last_cuda(x, y, key, call, limit, scale):
    positions, channels = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        c = i % channels
        s = i // channels % positions
        n = i // channels // positions
        at = (n * channels + c) * positions + s
        y[n, s, c] = x[n, s, c] * factor(uniform_32(key, at, call, 0), limit, scale)


@cuda
def _copy_cuda(x, y):
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        y[i] = x[i]


# -- the op ------------------------------------------------------------------------------------------------


class Dropout(Op, name="dropout", source="Srivastava et al. 2014, JMLR 15"):
    """Set each number to zero with probability p in training and divide the others by 1 - p; identity in
    inference."""

    p: float = 0.5

    formats = ("channels_first", "channels_last")
    backward_needs = ()
    stochastic = True

    benchmarks = (Sample("feature maps", shape=(32, 96, 55, 55)),)
    samples = (
        Sample("the usual half", shape=(3, 5, 4, 7)),
        Sample("more than one group of the generator", shape=(4, 3, 50), params={"p": 0.2}),
        Sample("nothing dropped", shape=(2, 6), params={"p": 0.0}),
        Sample("everything dropped", shape=(2, 6), params={"p": 1.0}),
        Sample("inference is the identity", shape=(3, 5, 4), training=False),
    )
    error_samples = (ErrorSample("no probability", {"p": 1.5}, None, "0 to 1"),)

    def check(self):
        if not 0 <= self.p <= 1:
            raise ParameterError("p", "a probability from 0 to 1", self.p)

    def plan(self, x: Tensor) -> Plan:
        return Plan(y=x.shape, workspace=workspace(x, 2), flops=x.size)

    def forward_cpu(self, t):
        self._run_cpu(t, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self._run_cpu(t, t.dy, t.dx)

    def _run_cpu(self, t, x, y):
        if not t.training:
            _copy[t](x.reshape(-1), y.reshape(-1))
        elif t.format == "channels_last" and x.ndim > 2:
            shape = (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
            kernel = _drop_channels_last.with_constants(LANES=lanes_of(t.dtype))
            kernel[t](x.reshape(-1), y.reshape(-1), t.lines, shape, *self._numbers(t))
        else:
            _drop[t](x.reshape(-1), y.reshape(-1), *self._numbers(t))

    def forward_cuda(self, t):
        self._run_cuda(t, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self._run_cuda(t, t.dy, t.dx)

    def _run_cuda(self, t, x, y):
        if not t.training:
            _copy_cuda[t, x.size](x.reshape(-1), y.reshape(-1))
        elif t.format == "channels_last" and x.ndim > 2:
            shape = (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
            _drop_channels_last_cuda[t, x.size](x.reshape(shape), y.reshape(shape), *self._numbers(t))
        else:
            _drop_cuda[t, x.size](x.reshape(-1), y.reshape(-1), *self._numbers(t))

    def _numbers(self, t):
        """key, call, and as numbers of the kernel's types the limit of u and the scale of what is kept."""
        limit = math.ceil(self.p * LEVELS) / LEVELS
        scale = 1.0 / (1.0 - self.p) if self.p < 1 else 0.0
        return t.key, t.call, np.float32(limit), np.dtype(t.dtype).type(scale)

    def reference(self, x, *, training=True, key=0, call=0, **arrays):
        """The mask from the array half of the generator."""
        x = np.asarray(x, np.float64)
        if not training or self.p == 0:
            return x.copy()
        kept = uniform(int(key), x.shape, "float32", call).astype(np.float64) >= self.p
        return np.where(kept, x, 0.0 * x) / (1.0 - self.p if self.p < 1 else 1.0)

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.nn.functional.dropout(x, self.p, training)
