"""softmin: the softmax of the negated input; the smallest number gets the largest probability.

Forward   y_i = e^(m - x_i) / sum_j e^(m - x_j), m = min_j x_j
Gradient  dx_i = -y_i (dy_i - sum_j dy_j y_j)
Everything else is as in softmax.py: softmin(x) = softmax(-x), NaN for lines with NaN, -inf, or nothing but inf.
"""

import numpy as np

from normcore_activation.over_axis import OverAxis
from normcore_activation.softmax import BENCHMARKS, ERRORS, SAMPLES, Softmax
from normcore_activation.softmax_cpu import (
    softmax_columns,
    softmax_columns_backward,
    softmax_rows,
    softmax_rows_backward,
)
from normcore_activation.softmax_cuda import (
    columns_backward_cuda,
    columns_cuda,
    lines_backward_cuda,
    lines_cuda,
)

_rows = softmax_rows.with_constants(SIGN=-1)
_columns = softmax_columns.with_constants(SIGN=-1)
_rows_backward = softmax_rows_backward.with_constants(SIGN=-1)
_columns_backward = softmax_columns_backward.with_constants(SIGN=-1)
_lines_cuda = lines_cuda.with_constants(SIGN=-1)
_columns_cuda = columns_cuda.with_constants(SIGN=-1)
_lines_backward_cuda = lines_backward_cuda.with_constants(SIGN=-1)
_columns_backward_cuda = columns_backward_cuda.with_constants(SIGN=-1)


class Softmin(OverAxis, name="softmin", source="torch.nn.Softmin"):
    """y = exp(-x) / sum exp(-x) along `axis` (1: channels); dx = -y (dy - sum dy y)."""

    backward_needs = ("y",)
    scratch_rows = 2
    samples, error_samples, benchmarks = SAMPLES, ERRORS, BENCHMARKS

    def forward_cpu(self, t):
        self.run_cpu(t, _rows, _columns, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self.run_cpu(t, _rows_backward, _columns_backward, t.y, t.dy, t.dx)

    def forward_cuda(self, t):
        self.run_cuda(t, _lines_cuda, _columns_cuda, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self.run_cuda(t, _lines_backward_cuda, _columns_backward_cuda, t.y, t.dy, t.dx)

    def reference(self, x, **arrays):
        return Softmax(self.axis).reference(-np.asarray(x, np.float64))

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.nn.functional.softmin(x, self.axis)
