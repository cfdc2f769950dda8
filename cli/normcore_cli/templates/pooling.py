"""my_op: a pooling over windows. Check it with `normcore check my_op.py`.

Forward, for each window of K pixels:   y = sqrt(mean(x^2))
Backward:                               dx = x * sum over the windows that hold it of dy / (K y)
A window of zeros has no slope; it passes on 0. Backward gathers: each pixel adds up its windows in one order,
so that results do not depend on the threads and nothing is written twice.
"""

import math

import numpy as np

from normcore import Op, Plan, ShapeError, Tensor, hookimpl
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.shapes import per_dimension, windows
from normcore.testing.samples import ErrorSample, Sample


# -- the mathematics of one output and of one input pixel, shared by the CPU and CUDA kernels -----------------
@inline
def window_value(plane, top, left, size):
    total = real(0)
    for i in range(top, top + size):
        for j in range(left, left + size):
            total += plane[i, j] * plane[i, j]
    return math.sqrt(total / real(size * size))


@inline
def pixel_slope(y, dy, i, j, size, stride):
    """The sum over the windows o with o * stride <= i < o * stride + size."""
    total = real(0)
    first_row, first_column = max(0, (i - size + stride) // stride), max(0, (j - size + stride) // stride)
    for o in range(first_row, min(i // stride + 1, y.shape[0])):
        for p in range(first_column, min(j // stride + 1, y.shape[1])):
            if y[o, p] != 0.0:
                total += dy[o, p] / (real(size * size) * y[o, p])
    return total


# -- CPU: planes in parallel ---------------------------------------------------------------------------------
@cpu
def _forward(x, size, stride, y):
    for plane in prange(y.shape[0]):
        for o in range(y.shape[1]):
            for p in range(y.shape[2]):
                y[plane, o, p] = window_value(x[plane], o * stride, p * stride, size)


@cpu
def _backward(x, y, dy, size, stride, dx):
    for plane in prange(x.shape[0]):
        for i in range(x.shape[1]):
            for j in range(x.shape[2]):
                dx[plane, i, j] = x[plane, i, j] * pixel_slope(y[plane], dy[plane], i, j, size, stride)


# -- CUDA: a thread an output, and in backward a thread a pixel; neighbours in memory are neighbours ---------
@cuda
def _forward_cuda(x, size, stride, y):
    for k in range(cu.grid(1), y.size, cu.gridsize(1)):
        plane, rest = k // (y.shape[1] * y.shape[2]), k % (y.shape[1] * y.shape[2])
        o, p = rest // y.shape[2], rest % y.shape[2]
        y[plane, o, p] = window_value(x[plane], o * stride, p * stride, size)


@cuda
def _backward_cuda(x, y, dy, size, stride, dx):
    for k in range(cu.grid(1), x.size, cu.gridsize(1)):
        plane, rest = k // (x.shape[1] * x.shape[2]), k % (x.shape[1] * x.shape[2])
        i, j = rest // x.shape[2], rest % x.shape[2]
        dx[plane, i, j] = x[plane, i, j] * pixel_slope(y[plane], dy[plane], i, j, size, stride)


class MyOp(Op, name="my_op", source="your paper, or your name and the year"):
    """The root mean square of each square window of an image.

    kernel_size: the window's side. stride: from one window to the next, kernel_size when left out.
    """

    kernel_size: int = 2
    stride: int | None = None

    backward_needs = ("x", "y")  # what backward reads of x and y; the planner reuses the memory of the rest

    def check(self):
        per_dimension("kernel_size", self.kernel_size, 2)
        per_dimension("stride", self._stride, 2)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) != 4:
            raise ShapeError(f"my_op: expected images (N, C, H, W), got {x.shape}")
        found = windows(x.shape[2:], self.kernel_size, self._stride, op="my_op")  # raises when none fits
        y = (*x.shape[:2], *(window.out for window in found))
        return Plan(y=y, flops=2 * self.kernel_size**2 * math.prod(y))

    def forward_cpu(self, t):
        _forward[t](_planes(t.x), self.kernel_size, self._stride, _planes(t.y))

    def backward_cpu(self, t):
        if t.dx is not None:  # None: nobody asked for the input's gradient
            planes = map(_planes, (t.x, t.y, t.dy))
            _backward[t](*planes, self.kernel_size, self._stride, _planes(t.dx))

    def forward_cuda(self, t):
        _forward_cuda[t, t.y.size](_planes(t.x), self.kernel_size, self._stride, _planes(t.y))

    def backward_cuda(self, t):
        if t.dx is not None:
            planes = map(_planes, (t.x, t.y, t.dy))
            _backward_cuda[t, t.x.size](*planes, self.kernel_size, self._stride, _planes(t.dx))

    @property
    def _stride(self):
        return self.kernel_size if self.stride is None else self.stride

    def reference(self, x):
        """Plain NumPy in float64, by other algebra than the kernels."""
        size, step = self.kernel_size, self._stride
        found = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::step, ::step]
        return np.linalg.norm(found.reshape(*found.shape[:4], -1), axis=-1) / size

    samples = (
        Sample("odd sides: the last row and column belong to no window", shape=(2, 3, 5, 7)),
        Sample("windows that overlap", shape=(2, 2, 7, 6), params={"kernel_size": 3, "stride": 2}),
        Sample("windows with gaps", shape=(1, 2, 8, 9), params={"kernel_size": 2, "stride": 3}),
    )
    error_samples = (
        ErrorSample("no pixel in a window", {"kernel_size": 0}, message_contains="kernel_size"),
        ErrorSample("not an image", shape=(4, 5), message_contains="images"),
        ErrorSample("no window fits", {"kernel_size": 6}, (1, 1, 5, 5), "no window fits"),
    )


def _planes(array):
    return array.reshape(-1, *array.shape[2:])


@hookimpl
def normcore_ops():
    return [MyOp]
