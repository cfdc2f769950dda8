"""Embedding: a learned vector for each whole number.

Forward:  y[.., :] = weight[x[..]]
Backward: dweight[k] = sum of dy over the places where x is k, in their order; nothing flows to x

x may hold whole numbers (int64) or, as in a network whose input is of one dtype, floats of whole value. Each is
checked on the CPU: outside 0 .. num - 1 it is a ShapeError that names the first wrong place. On CUDA, where a check
would wait for the device, such a place gives NaN and takes no gradient.
Numerics: a row's gradient is added up by one task in the order of the places: no atomics, the same bits for any
number of threads.

Shapes: x (N, ..) of any rank from 1 on, y (N, .., dim), weight (num, dim), drawn from N(0, 1) as in PyTorch. float32
and float64.

Source: Bengio, Ducharme, Vincent and Jauvin 2003, "A neural probabilistic language model"; PyTorch's Embedding.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.streaming import leaves_cache, stream_run
from normcore.kernels.warps import ALL
from normcore.testing.samples import ErrorSample, Sample

ROWS = 16  # rows of the output, or of the table, that a parallel task fills
AHEAD = 2  # rows that are asked for before they are needed: the processor does not foresee where they lie


@inline
def copy_row(source, target):
    for i in range(target.size):
        target[i] = source[i]


@inline
def add_row(source, target):
    for i in range(target.size):
        target[i] += source[i]


@inline
def clear_row(target):
    for i in range(target.size):
        target[i] = real(0)


@cpu
def _check(x, num, wrong):
    """wrong[0]: the first place without a whole number from 0 to num - 1, or -1."""
    wrong[0] = -1
    for i in range(x.size):
        if not (x[i] >= 0 and x[i] < num) or np.int64(x[i]) != x[i]:
            wrong[0] = i
            break


@cpu
def _forward(x, weight, y):
    """x (M,), y (M, dim)."""
    dim = y.shape[1]
    far = leaves_cache(y)
    for task in prange((x.size + ROWS - 1) // ROWS):
        for i in range(task * ROWS, min(x.size, task * ROWS + ROWS)):
            prefetch_lines(weight, np.int64(x[min(i + AHEAD, x.size - 1)]) * dim, dim)
            if far:
                stream_run(y, i * dim, weight[np.int64(x[i])], dim)
            else:
                copy_row(weight[np.int64(x[i])], y[i])


@cpu
def _order(x, first, order):
    """The places of each row of the table, in their order: order[first[k] : first[k + 1]]. Counting sort."""
    for k in range(first.size):
        first[k] = 0
    for i in range(x.size):
        first[np.int64(x[i]) + 1] += 1
    for k in range(1, first.size):
        first[k] += first[k - 1]
    for i in range(x.size):
        k = np.int64(x[i])
        order[first[k]] = i
        first[k] += 1
    for k in range(first.size - 1, 0, -1):  # each is where the one after it began
        first[k] = first[k - 1]
    first[0] = 0


@cpu
def _backward(dy, first, order, dweight):
    """Each row of the table has one owner, who adds what it gets in the order of the places."""
    num, dim = dweight.shape
    for task in prange((num + ROWS - 1) // ROWS):
        for k in range(task * ROWS, min(num, task * ROWS + ROWS)):
            if first[k] == first[k + 1]:
                clear_row(dweight[k])
            for j in range(first[k], first[k + 1]):
                prefetch_lines(dy, order[min(j + AHEAD, order.size - 1)] * dim, dim)
                if j == first[k]:
                    copy_row(dy[order[j]], dweight[k])
                else:
                    add_row(dy[order[j]], dweight[k])


@cuda
def _forward_cuda(x, weight, y):
    num, dim = weight.shape
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        row = i // dim
        k = np.int64(x[row])
        y[row, i - row * dim] = weight[k, i - row * dim] if k >= 0 and k < num else real(math.nan)


@cuda
def _backward_cuda(x, dy, dweight):
    """A warp a row of the table: it looks at 32 places at once and stops at those that hold the row's number."""
    num, dim = dweight.shape
    lane = cu.threadIdx.x % 32
    warps = cu.blockDim.x // 32
    for k in range(cu.blockIdx.x * warps + cu.threadIdx.x // 32, num, cu.gridDim.x * warps):
        for d in range(lane, dim, 32):
            dweight[k, d] = real(0)
        for first in range(0, x.size, 32):
            at = first + lane
            found = cu.ballot_sync(ALL, at < x.size and np.int64(x[min(at, x.size - 1)]) == k)
            if found != 0:
                for bit in range(32):
                    if (np.int64(found) >> bit) & 1 == 1:
                        for d in range(lane, dim, 32):
                            dweight[k, d] += dy[first + bit, d]


class Embedding(
    Op, name="embedding", learnable=("weight",), source="Bengio et al. 2003; PyTorch's Embedding"
):
    """A learned vector of `dim` numbers for each whole number from 0 to num - 1."""

    num: int
    dim: int

    input_dtypes = ("int64",)
    backward_needs = ("x",)

    samples = (
        Sample("tokens of sequences", shape=(3, 5), params={"num": 7, "dim": 4}, integers={"x": 7}),
        Sample("one number a sample", shape=(6,), params={"num": 3, "dim": 5}, integers={"x": 3}),
        Sample(
            "rows that are never asked for", shape=(2, 2), params={"num": 90, "dim": 1}, integers={"x": 5}
        ),
    )
    benchmarks = (
        Sample(
            "a transformer's tokens",
            shape=(32, 512),
            params={"num": 10000, "dim": 256},
            integers={"x": 10000},
        ),
    )
    error_samples = (
        ErrorSample("no vectors", {"num": 0, "dim": 3}, None, "at least 1"),
        ErrorSample("no numbers", {"num": 2, "dim": 0}, None, "at least 1"),
    )

    def check(self):
        for name in ("num", "dim"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(name, "a whole number, at least 1", value)

    def plan(self, x: Tensor) -> Plan:
        weight = Array((self.num, self.dim), init={"normal": {"std": 1.0}}, fan=(self.num, self.dim))
        return Plan(
            y=(*x.shape, self.dim),
            parameters={"weight": weight},
            workspace={
                "wrong": Array((1,), "int64"),
                "first": Array((self.num + 1,), "int64"),
                "order": Array((x.size,), "int64"),
            },
            flops=x.size * self.dim,
        )

    def forward_cpu(self, t):
        x = t.x.reshape(-1)
        _check[t](x, self.num, t.wrong)
        if t.wrong[0] >= 0:
            place = tuple(int(i) for i in np.unravel_index(int(t.wrong[0]), t.x.shape))
            raise ShapeError(
                f"{self.name}: expected whole numbers from 0 to {self.num - 1}, got {t.x[place]} at {place}; "
                "raise num, or map such numbers to known ones"
            )
        _forward[t](x, t.weight, t.y.reshape(-1, self.dim))

    def backward_cpu(self, t):
        _order[t](t.x.reshape(-1), t.first, t.order)
        _backward[t](t.dy.reshape(-1, self.dim), t.first, t.order, t.dweight)
        self._nothing(t)

    def forward_cuda(self, t):
        _forward_cuda[t, t.y.size](t.x.reshape(-1), t.weight, t.y.reshape(-1, self.dim))

    def backward_cuda(self, t):
        extent = (min(65535, -(-self.num // 4)), 128)
        _backward_cuda[t, extent](t.x.reshape(-1), t.dy.reshape(-1, self.dim), t.dweight)
        self._nothing(t)

    def _nothing(self, t):
        if t.dx is not None:  # x came as floats
            t.dx[...] = 0

    def in_torch(self, torch, x, *, training, weight, **arrays):
        return torch.nn.functional.embedding(x.long(), weight)

    def reference(self, x, weight, **arrays):
        hot = np.asarray(x)[..., None] == np.arange(self.num)
        return hot.astype(np.float64) @ weight
