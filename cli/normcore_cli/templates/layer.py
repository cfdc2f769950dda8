"""my_op: a layer that learns. Check it with `normcore check my_op.py`.

Forward, on every row x of m features:   y_k = x_k + sum_j weight_kj x_j    (a matrix product with a bypass)
Backward:                                dx_j = dy_j + sum_k weight_kj dy_k
                                         dweight_kj = sum over rows of dy_k x_j
A row is the last axis of x, of any rank from 2 on.
"""

import numpy as np

from normcore import Array, Op, Plan, ShapeError, Tensor, hookimpl
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.testing.samples import ErrorSample, Sample


# -- the mathematics, shared by the CPU and CUDA kernels -----------------------------------------------------
@inline(reassociate=True)  # the compiler may reorder the sum, once, so that it becomes vector code
def dot(a, b):
    total = real(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@inline
def add_scaled(row, factor, out):
    for i in range(row.size):
        out[i] += factor * row[i]


@inline
def backward_row(weight, dy, dx):
    for j in range(dx.size):
        dx[j] = dy[j]
    for k in range(dy.size):
        add_scaled(weight[k], dy[k], dx)


@inline
def weight_gradient(x, dy, k, dweight):
    for j in range(dweight.size):
        dweight[j] = real(0)
    for n in range(x.shape[0]):  # in one order, so that the bits do not depend on the threads
        add_scaled(x[n], dy[n, k], dweight)


# -- CPU: rows in parallel, and rows of the weight's gradient ------------------------------------------------
@cpu
def _forward(x, weight, y):
    for n in prange(x.shape[0]):
        for k in range(x.shape[1]):
            y[n, k] = x[n, k] + dot(x[n], weight[k])


@cpu
def _backward(weight, dy, dx):
    for n in prange(dx.shape[0]):
        backward_row(weight, dy[n], dx[n])


@cpu
def _backward_weight(x, dy, dweight):
    for k in prange(dweight.shape[0]):
        weight_gradient(x, dy, k, dweight[k])


# -- CUDA: a thread an element of what is written; no two threads write to one place -------------------------
@cuda
def _forward_cuda(x, weight, y):
    for e in range(cu.grid(1), y.size, cu.gridsize(1)):
        n, k = e // y.shape[1], e % y.shape[1]
        y[n, k] = x[n, k] + dot(x[n], weight[k])


@cuda
def _backward_cuda(weight, dy, dx):
    for e in range(cu.grid(1), dx.size, cu.gridsize(1)):
        n, j = e // dx.shape[1], e % dx.shape[1]
        total = dy[n, j]
        for k in range(dy.shape[1]):
            total += weight[k, j] * dy[n, k]
        dx[n, j] = total


@cuda
def _backward_weight_cuda(x, dy, dweight):
    for e in range(cu.grid(1), dweight.size, cu.gridsize(1)):
        k, j = e // dweight.shape[1], e % dweight.shape[1]
        total = real(0)
        for n in range(x.shape[0]):
            total += dy[n, k] * x[n, j]
        dweight[k, j] = total


class MyOp(Op, name="my_op", learnable=("weight",), source="your paper, or your name and the year"):
    """A square matrix product beside the identity: y = x + weight x, on every row (the last axis)."""

    backward_needs = ("x",)  # what backward reads of x and y; the planner reuses the memory of the rest

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2 or not x.shape[-1]:
            raise ShapeError(f"my_op: expected an input (N, ..., features), got {x.shape}")
        m = x.shape[-1]
        return Plan(
            y=x.shape,
            # fan: how many values one output sums, and the other way; initializers scale by it
            parameters={"weight": Array((m, m), init="he_normal", fan=(m, m))},
            flops=2 * x.size * m,
        )

    def forward_cpu(self, t):
        _forward[t](_rows(t.x), t.weight, _rows(t.y))

    def backward_cpu(self, t):
        if t.dx is not None:  # None: nobody asked for the input's gradient
            _backward[t](t.weight, _rows(t.dy), _rows(t.dx))
        _backward_weight[t](_rows(t.x), _rows(t.dy), t.dweight)

    def forward_cuda(self, t):
        _forward_cuda[t, t.y.size](_rows(t.x), t.weight, _rows(t.y))

    def backward_cuda(self, t):
        if t.dx is not None:
            _backward_cuda[t, t.dx.size](t.weight, _rows(t.dy), _rows(t.dx))
        _backward_weight_cuda[t, t.dweight.size](_rows(t.x), _rows(t.dy), t.dweight)

    def reference(self, x, weight):
        """Plain NumPy in float64, by other algebra than the kernels."""
        return x + np.einsum("kj,...j->...k", weight, x)

    samples = (
        Sample("an odd number of features leaves a vector remainder", shape=(5, 7)),
        Sample("a sequence", shape=(2, 3, 4)),
    )
    error_samples = (ErrorSample("no features", shape=(4,), message_contains="features"),)


def _rows(array):
    return array.reshape(-1, array.shape[-1])


@hookimpl
def normcore_ops():
    return [MyOp]
