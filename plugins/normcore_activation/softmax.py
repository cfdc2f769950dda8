"""softmax: the numbers along an axis as probabilities.

Forward   y_i = e^(x_i - m) / sum_j e^(x_j - m), m = max_j x_j
Gradient  dx_i = y_i (dy_i - sum_j dy_j y_j), from the output alone
Numerics  The maximum is subtracted, so nothing overflows and the sum is at least 1. An entry of -inf has probability
          0. A line that holds NaN, inf, or nothing but -inf is NaN, as in PyTorch; its neighbours are not touched.
          Sums run in an order that depends on the shape alone.
Shapes: x and y equal, one axis or more, any axis, negative ones counted from the end. float32 and float64. An axis
out of range is a ShapeError.
"""

import numpy as np

from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.over_axis import OverAxis
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

SAMPLES = (
    Sample("channels of a feature map", shape=(2, 5, 3, 7)),
    Sample("rows with a vector remainder", shape=(3, 37)),
    Sample("a warp's columns side by side", shape=(2, 3, 5, 8)),
    Sample("the batch axis", shape=(5, 70), params={"axis": 0}),
    Sample("a vector", shape=(9,), params={"axis": -1}),
    Sample("an inner axis of a volume", shape=(2, 3, 2, 4, 3), params={"axis": -2}),
    Sample("an empty batch", shape=(0, 4)),
)
BENCHMARKS = (
    Sample("1000 classes", shape=(128, 1000)),
    Sample("attention, about", shape=(8192, 1000), params={"axis": -1}),
    Sample("channels of large maps", shape=(32, 96, 55, 55)),
    Sample("channels of small maps", shape=(32, 256, 14, 14)),
)
ERRORS = (
    ErrorSample("no such axis", {"axis": 4}, (2, 3, 4), "axis 4"),
    ErrorSample("before the first axis", {"axis": -3}, (2, 3), "axis -3"),
    ErrorSample("a vector has no axis 1", {}, (5,), "axis 1"),
    ErrorSample("no whole number", {"axis": 1.5}, None, "axis"),
)


class Softmax(
    OverAxis, name="softmax", source="Bridle 1990, Probabilistic interpretation of feedforward outputs"
):
    """y = exp(x) / sum exp(x) along `axis` (1: channels); dx = y (dy - sum dy y)."""

    backward_needs = ("y",)
    scratch_rows = 2
    samples, error_samples, benchmarks = SAMPLES, ERRORS, BENCHMARKS

    def forward_cpu(self, t):
        self.run_cpu(t, softmax_rows, softmax_columns, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self.run_cpu(t, softmax_rows_backward, softmax_columns_backward, t.y, t.dy, t.dx)

    def forward_cuda(self, t):
        self.run_cuda(t, lines_cuda, columns_cuda, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self.run_cuda(t, lines_backward_cuda, columns_backward_cuda, t.y, t.dy, t.dx)

    def reference(self, x, **arrays):
        """1 / sum_j e^(x_j - x_i): no maximum, no quotient of exponentials."""
        lines = np.moveaxis(np.asarray(x, np.float64), self.axis, -1)
        y = 1.0 / np.sum(np.exp(lines[..., None, :] - lines[..., :, None]), axis=-1)
        y = np.where(np.isneginf(lines) & np.isfinite(lines).any(-1, keepdims=True), 0.0, y)
        y = np.where((np.isnan(lines) | np.isposinf(lines)).any(-1, keepdims=True), np.nan, y)
        return np.moveaxis(y, -1, self.axis)

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.softmax(x, self.axis)
