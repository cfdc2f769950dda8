"""hardmax: 1 at the first maximum along an axis, 0 elsewhere. Forward only: its gradient is 0 almost everywhere.

Forward   y_i = 1 for the smallest i with x_i = max_j x_j, else 0
Numerics  Infinities are ordinary numbers here. A line that holds NaN is NaN, as softmax's is.
Shapes: x and y equal, one axis or more, any axis, negative ones counted from the end. float32 and float64. An axis
out of range is a ShapeError.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.testing.samples import Sample
from normcore_activation.axis_cpu import column_max, fill, row_max
from normcore_activation.over_axis import OverAxis
from normcore_activation.softmax import ERRORS, SAMPLES
from normcore_activation.softmax_cuda import LOWEST, WARPS, block_max

NAN = math.nan


@inline
def poison(x):
    """NaN for NaN, else 0; a sum of it tells whether a line holds one."""
    return real(0) if x == x else x


@inline(reassociate=True)
def row_poison(x):
    total = real(0)
    for i in range(x.size):
        total += poison(x[i])
    return total


@inline
def first_of(x, m):
    for i in range(x.size):
        if x[i] == m:
            return i
    return -1


@cpu
def _rows(x, y):
    for r in prange(x.shape[0]):
        spoiled = row_poison(x[r])
        fill(y[r], spoiled)
        if spoiled == 0.0:
            y[r, first_of(x[r], row_max(x[r], real(1)))] = real(1)


@inline
def add_poison(x, spoiled):
    for i in range(spoiled.size):
        spoiled[i] += poison(x[i])


@inline
def mark(x, m, spoiled, free, y):
    for i in range(free.size):
        hit = free[i] if x[i] == m[i] else real(0)
        free[i] -= hit
        y[i] = hit + spoiled[i]


@cpu
def _columns(x, y, scratch, width):
    blocks = (x.shape[2] + width - 1) // width
    tasks, parts = x.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(x.shape[2], lo + width)
            m, spoiled, free = scratch[p, 0, : hi - lo], scratch[p, 1, : hi - lo], scratch[p, 2, : hi - lo]
            column_max(x, o, lo, hi, m, real(1))
            fill(spoiled, real(0))
            fill(free, real(1))
            for a in range(x.shape[1]):
                add_poison(x[o, a, lo:hi], spoiled)
            for a in range(x.shape[1]):
                mark(x[o, a, lo:hi], m, spoiled, free, y[o, a, lo:hi])


@cuda
def _lines_cuda(x, y):
    """A block for each line: its maximum, then the smallest index that reaches it."""
    scratch = cu.shared.array(WARPS, real)
    places = cu.shared.array(WARPS, np.int32)
    size, inner = x.shape[1], x.shape[2]
    o = cu.blockIdx.x // inner
    i = cu.blockIdx.x - o * inner
    m = real(LOWEST)
    bad = np.int32(0)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        v = x[o, a, i]
        m = v if v > m else m
        bad = np.int32(1) if v != v else bad
    m = block_max(m, scratch)
    bad = block_max(bad, places)
    place = np.int32(-size)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        if x[o, a, i] == m and -a > place:
            place = np.int32(-a)
    first = -block_max(place, places)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        hit = real(1) if a == first else real(0)
        y[o, a, i] = real(NAN) if bad > 0 else hit


@cuda
def _columns_cuda(x, y):
    outer, size, inner = x.shape
    for c in range(cu.grid(1), outer * inner, cu.gridsize(1)):
        o = c // inner
        i = c - o * inner
        best = x[o, 0, i]
        first = 0
        spoiled = real(0)
        for a in range(size):
            v = x[o, a, i]
            spoiled += poison(v)
            if v > best:
                best = v
                first = a
        for a in range(size):
            y[o, a, i] = spoiled + (real(1) if a == first else real(0))


class Hardmax(OverAxis, name="hardmax", source="ONNX, operator Hardmax"):
    """1 at the first maximum along `axis` (1: channels), 0 elsewhere. It has no gradient."""

    backward_needs = ()
    differentiable = False
    scratch_rows = 3
    samples = (*SAMPLES, Sample("ties", shape=(3, 9), make=lambda rng: (rng.integers(0, 3, (3, 9)) * 1.0,)))
    error_samples = ERRORS

    def forward_cpu(self, t):
        self.run_cpu(t, _rows, _columns, t.x, t.y)

    def forward_cuda(self, t):
        self.run_cuda(t, _lines_cuda, _columns_cuda, t.x, t.y)

    def reference(self, x, **arrays):
        x = np.asarray(x, np.float64)
        y = np.zeros(x.shape)
        if x.size:
            np.put_along_axis(y, np.argmax(x, axis=self.axis, keepdims=True), 1.0, self.axis)
        return np.where(np.isnan(x).any(self.axis, keepdims=True), np.nan, y)

    def in_torch(self, torch, x, *, training, **arrays):
        first = x.argmax(self.axis, keepdim=True)
        return torch.zeros_like(x).scatter_(self.axis, first, 1.0)
