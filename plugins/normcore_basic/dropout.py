"""Dropout: in training each number is kept with probability 1 - p and divided by it, or set to zero.

Forward:  y_i = x_i * keep_i / (1 - p), keep_i = 1 where u_i >= p, else 0; u_i uniform in [0, 1)
Backward: dx_i = dy_i * keep_i / (1 - p), with the same keep_i
Inference: y = x. Scaling in training ("inverted" dropout) makes the means of both agree; the paper scales the
weights in inference instead.

u_i comes from a counter-based generator keyed by (seed and layer, call number, i), i the row-major index in
the logical array (N, C, *spatial). So the mask does not depend on the memory format, the device, the dtype or the
number of threads. Forward keeps it for backward, a byte for each number: drawing it again would take twice as long
as reading it. u_i has 24 bits; p is rounded up to them. NaN times 0 stays NaN, as in PyTorch. Shapes: any. float32 and float64.

Source: Srivastava, Hinton, Krizhevsky, Sutskever and Salakhutdinov 2014, "Dropout: a simple way to prevent
neural networks from overfitting", JMLR 15.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.draws import (
    GROUP,
    groups_of,
    integers_out,
    lanes_of,
    lines_in,
    lines_out,
    part_of,
    units_of,
    workspace,
)
from normcore.kernels.streaming import either_way, leaves_cache, stack_block, stream_run
from normcore.kernels.window import window
from normcore.random import philox, uniform, uniform_32, unit_32
from normcore.testing.samples import ErrorSample, Sample

TASK = 64  # groups a parallel task takes
LEVELS = 1 << 24  # values a float32 uniform takes


@inline
def blocks_of(size):
    """Of the generator, for so many numbers: 32 for each group begun."""
    return (size + GROUP - 1) // GROUP * 32


@inline
def factor(u, limit, scale):
    """What x is multiplied by."""
    return scale if u >= limit else real(0)


# -- CPU ---------------------------------------------------------------------------------------------------


@inline
def draw_group(f, key, group, call, limit, scale):
    """The factors of a whole group: a block of the generator serves four elements, a quarter of the group apart."""
    for j in range(32):
        w0, w1, w2, w3 = philox(key, group * 32 + j, call, 0)
        f[j] = factor(unit_32(w0), limit, scale)
        f[j + 32] = factor(unit_32(w1), limit, scale)
        f[j + 64] = factor(unit_32(w2), limit, scale)
        f[j + 96] = factor(unit_32(w3), limit, scale)


@inline
def drop_run(x, f, y, kept):
    for i in range(x.size):
        y[i] = x[i] * f[i]
        kept[i] = f[i] > 0


@cpu
def _drop(x, y, kept, key, call, limit, scale):
    """Flat arrays in logical order."""
    groups = (x.size + GROUP - 1) // GROUP
    far = leaves_cache(y)
    for task in prange((groups + TASK - 1) // TASK):
        block = stack_block(y)
        f, products = block[:GROUP], block[GROUP : 2 * GROUP]
        for group in range(task * TASK, min(groups, task * TASK + TASK)):
            lo = group * GROUP
            hi = min(x.size, lo + GROUP)
            draw_group(f, key, group, call, limit, scale)
            if far:
                drop_run(x[lo:hi], f, products, kept[lo:hi])
                stream_run(y, lo, products, hi - lo)
            else:
                drop_run(x[lo:hi], f, y[lo:hi], kept[lo:hi])


@cpu
def _drop_channels_last(x, y, kept, lines, flags, shape, key, call, limit, scale):
    """Flat arrays of shape (N, S, C), where element (n, s, c) has the logical index (n * C + c) * S + s."""
    tasks, units = lines.shape[0], units_of(shape)
    for task in prange(tasks):
        before, after, flag, f = lines[task, 0], lines[task, 1], flags[task], stack_block(y)[:GROUP]
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            at, count_of_lines, first, stride, length, count = part_of(unit, shape)
            lines_in(x, at, shape[2], before, stride, length, count)
            for k in range(count_of_lines):
                lo, group, end = groups_of(first, k, shape[1], stride, length, count)
                while group < end:
                    hi = lo + GROUP
                    draw_group(f, key, group, call, limit, scale)
                    drop_run(before[lo:hi], f, after[lo:hi], flag[lo:hi])
                    group += 1
                    lo = hi
            lines_out(after, stride, y, at, shape[2], length, count)
            integers_out(flag, stride, kept, at, shape[2], length, count, x)


@inline
def gradient_run(dy, kept, dx, scale):
    for i in range(dx.size):
        dx[i] = dy[i] * (scale if kept[i] else real(0))


gradient_part = either_way(gradient_run, read=["dy", "kept"], written=["dx"])


@cpu
def _drop_backward(dy, kept, dx, scale):
    """Flat arrays in one order, whichever."""
    size, far = GROUP * TASK, leaves_cache(dx)
    for task in prange((dx.size + size - 1) // size):
        lo, hi = task * size, min(dx.size, task * size + size)
        gradient_part(window(dy, lo, hi), window(kept, lo, hi), window(dx, lo, hi), scale, far)


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


@inline
def drop_one(x, y, kept, i, word, limit, scale):
    if i < x.size:
        f = factor(unit_32(word), limit, scale)
        y[i] = x[i] * f
        kept[i] = f > 0


@cuda
def _drop_cuda(x, y, kept, key, call, limit, scale):
    """A thread takes a block of the generator, a warp the four lines of a group."""
    for block in range(cu.grid(1), blocks_of(x.size), cu.gridsize(1)):
        w0, w1, w2, w3 = philox(key, block, call, 0)
        i = block // 32 * GROUP + block % 32
        drop_one(x, y, kept, i, w0, limit, scale)
        drop_one(x, y, kept, i + 32, w1, limit, scale)
        drop_one(x, y, kept, i + 64, w2, limit, scale)
        drop_one(x, y, kept, i + 96, w3, limit, scale)


@cuda
def _drop_channels_last_cuda(x, y, kept, key, call, limit, scale):
    positions, channels = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        c = i % channels
        s = i // channels % positions
        n = i // channels // positions
        f = factor(uniform_32(key, (n * channels + c) * positions + s, call, 0), limit, scale)
        y[n, s, c] = x[n, s, c] * f
        kept[i] = f > 0


@cuda
def _drop_backward_cuda(dy, kept, dx, scale):
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        dx[i] = dy[i] * (scale if kept[i] else real(0))


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
        scratch = workspace(x, 2)
        if scratch:
            tasks, _, room = scratch["lines"].shape
            scratch["flags"] = Array((tasks, room), "uint8")
        kept = Array((math.prod(x.shape),), "uint8")
        return Plan(y=x.shape, saved={"kept": kept}, workspace=scratch, flops=x.size)

    def forward_cpu(self, t):
        x, y = t.x.reshape(-1), t.y.reshape(-1)
        if not t.training:
            _copy[t](x, y)
        elif t.format == "channels_last" and t.x.ndim > 2:
            kernel = _drop_channels_last.with_constants(LANES=lanes_of(t.dtype))
            kernel[t](x, y, t.kept, t.lines, t.flags, self._by_position(t.x), *self._numbers(t))
        else:
            _drop[t](x, y, t.kept, *self._numbers(t))

    def backward_cpu(self, t):
        if t.dx is None:
            return
        dy, dx = t.dy.reshape(-1), t.dx.reshape(-1)
        if t.training:
            _drop_backward[t](dy, t.kept, dx, self._numbers(t)[-1])
        else:
            _copy[t](dy, dx)

    def forward_cuda(self, t):
        x, y = t.x.reshape(-1), t.y.reshape(-1)
        if not t.training:
            _copy_cuda[t, x.size](x, y)
        elif t.format == "channels_last" and t.x.ndim > 2:
            shape = self._by_position(t.x)
            _drop_channels_last_cuda[t, x.size](x.reshape(shape), y.reshape(shape), t.kept, *self._numbers(t))
        else:
            _drop_cuda[t, blocks_of(x.size)](x, y, t.kept, *self._numbers(t))

    def backward_cuda(self, t):
        if t.dx is None:
            return
        dy, dx = t.dy.reshape(-1), t.dx.reshape(-1)
        if t.training:
            _drop_backward_cuda[t, dx.size](dy, t.kept, dx, self._numbers(t)[-1])
        else:
            _copy_cuda[t, dx.size](dy, dx)

    def _by_position(self, x):
        """(N, S, C) of an array channels last."""
        return x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]

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
