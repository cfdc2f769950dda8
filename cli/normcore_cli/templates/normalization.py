"""my_op: a normalization with a learned scale. Check it with `normcore check my_op.py`.

Forward, for each row x of m features:   r = sqrt(mean(x^2) + eps)    y_i = gamma_i x_i / r
Backward, with h_i = gamma_i dy_i:       dx_i = (h_i - x_i a) / r,  a = mean(h x) / r^2
                                         dgamma_i = sum over rows of dy_i x_i / r
A row is the last axis of x, of any rank from 2 on.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor, hookimpl
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.testing.samples import ErrorSample, Sample


# -- the mathematics of one row, shared by the CPU and CUDA kernels ------------------------------------------
@inline(reassociate=True)  # the compiler may reorder the sum, once, so that it becomes vector code
def dot(a, b):
    total = real(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@inline(reassociate=True)
def dot_of_three(a, b, c):
    total = real(0)
    for i in range(a.size):
        total += a[i] * b[i] * c[i]
    return total


@inline
def forward_row(x, gamma, eps, y):
    r = math.sqrt(dot(x, x) / real(x.size) + eps)
    for i in range(x.size):
        y[i] = gamma[i] * (x[i] / r)
    return r


@inline
def backward_row(x, gamma, r, dy, dx):
    a = dot_of_three(gamma, dy, x) / real(x.size) / (r * r)
    for i in range(x.size):
        dx[i] = (gamma[i] * dy[i] - x[i] * a) / r


@inline
def gamma_gradient(x, r, dy, i):
    total = real(0)
    for n in range(x.shape[0]):  # in one order, so that the bits do not depend on the threads
        total += dy[n, i] * (x[n, i] / r[n])
    return total


# -- CPU: rows in parallel -----------------------------------------------------------------------------------
@cpu
def _forward(x, gamma, eps, r, y):
    for n in prange(x.shape[0]):
        r[n] = forward_row(x[n], gamma, real(eps), y[n])


@cpu
def _backward(x, gamma, r, dy, dx):
    for n in prange(x.shape[0]):
        backward_row(x[n], gamma, r[n], dy[n], dx[n])


@cpu
def _backward_gamma(x, r, dy, dgamma):
    for i in prange(x.shape[1]):
        dgamma[i] = gamma_gradient(x, r, dy, i)


# -- CUDA: a thread a row, and a thread a feature for dgamma -------------------------------------------------
@cuda
def _forward_cuda(x, gamma, eps, r, y):
    for n in range(cu.grid(1), x.shape[0], cu.gridsize(1)):
        r[n] = forward_row(x[n], gamma, real(eps), y[n])


@cuda
def _backward_cuda(x, gamma, r, dy, dx):
    for n in range(cu.grid(1), x.shape[0], cu.gridsize(1)):
        backward_row(x[n], gamma, r[n], dy[n], dx[n])


@cuda
def _backward_gamma_cuda(x, r, dy, dgamma):
    for i in range(cu.grid(1), x.shape[1], cu.gridsize(1)):
        dgamma[i] = gamma_gradient(x, r, dy, i)


class MyOp(Op, name="my_op", learnable=("gamma",), source="your paper, or your name and the year"):
    """Divide each row (the last axis) by its root mean square, then scale it: gamma x / sqrt(mean(x^2) + eps).

    eps: added to the mean square, so that a row of zeros stays one.
    """

    eps: float = 1e-5

    backward_needs = ("x",)  # what backward reads of x and y; the planner reuses the memory of the rest

    def check(self):
        if not self.eps > 0:
            raise ParameterError("eps", "a number above 0", self.eps)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2 or not x.shape[-1]:
            raise ShapeError(f"my_op: expected an input (N, ..., features), got {x.shape}")
        return Plan(
            y=x.shape,
            parameters={"gamma": Array((x.shape[-1],), init="ones")},
            saved={"r": Array((x.size // x.shape[-1],))},  # written by forward, read by backward
            flops=4 * x.size,
        )

    def forward_cpu(self, t):
        _forward[t](_rows(t.x), t.gamma, self.eps, t.r, _rows(t.y))

    def backward_cpu(self, t):
        if t.dx is not None:  # None: nobody asked for the input's gradient
            _backward[t](_rows(t.x), t.gamma, t.r, _rows(t.dy), _rows(t.dx))
        _backward_gamma[t](_rows(t.x), t.r, _rows(t.dy), t.dgamma)

    def forward_cuda(self, t):
        _forward_cuda[t, t.r.size](_rows(t.x), t.gamma, self.eps, t.r, _rows(t.y))

    def backward_cuda(self, t):
        if t.dx is not None:
            _backward_cuda[t, t.r.size](_rows(t.x), t.gamma, t.r, _rows(t.dy), _rows(t.dx))
        _backward_gamma_cuda[t, t.gamma.size](_rows(t.x), t.r, _rows(t.dy), t.dgamma)

    def reference(self, x, gamma):
        """Plain NumPy in float64, by other algebra than the kernels."""
        return gamma * x * (np.mean(x**2, axis=-1, keepdims=True) + self.eps) ** -0.5

    samples = (
        Sample("an odd number of features leaves a vector remainder", shape=(5, 7)),
        Sample("a sequence", shape=(2, 3, 4), params={"eps": 0.5}),
    )
    error_samples = (
        ErrorSample(
            "eps keeps a row of zeros from dividing by zero", {"eps": 0.0}, message_contains="above 0"
        ),
        ErrorSample("no features", shape=(4,), message_contains="features"),
    )


def _rows(array):
    return array.reshape(-1, array.shape[-1])


@hookimpl
def normcore_ops():
    return [MyOp]
