"""log_softmax: the logarithm of the softmax, without the detour.

Forward   y_i = (x_i - m) - log sum_j e^(x_j - m), m = max_j x_j
Gradient  dx_i = dy_i - e^(y_i) sum_j dy_j, from the output alone
Numerics  log(softmax) would be -inf where the probability underflows; this form keeps y right to rounding however
          unlikely an entry is. An entry of -inf stays -inf. A line that holds NaN, inf, or nothing but -inf is NaN,
          as in PyTorch. Sums run in an order that depends on the shape alone.
Shapes: x and y equal, one axis or more, any axis, negative ones counted from the end. float32 and float64. An axis
out of range is a ShapeError.
"""

import numpy as np

from normcore_activation.over_axis import OverAxis
from normcore_activation.softmax import BENCHMARKS, ERRORS, SAMPLES
from normcore_activation.softmax_cpu import (
    log_softmax_columns,
    log_softmax_columns_backward,
    log_softmax_rows,
    log_softmax_rows_backward,
)
from normcore_activation.softmax_cuda import (
    columns_backward_cuda,
    columns_cuda,
    lines_backward_cuda,
    lines_cuda,
)

_lines_cuda = lines_cuda.with_constants(LOG=True)
_columns_cuda = columns_cuda.with_constants(LOG=True)
_lines_backward_cuda = lines_backward_cuda.with_constants(LOG=True)
_columns_backward_cuda = columns_backward_cuda.with_constants(LOG=True)


class LogSoftmax(
    OverAxis, name="log_softmax", source="Bridle 1990; the stable form as in torch.nn.LogSoftmax"
):
    """y = x - log sum exp(x) along `axis` (1: channels); dx = dy - exp(y) sum dy."""

    backward_needs = ("y",)
    scratch_rows = 2
    samples, error_samples, benchmarks = SAMPLES, ERRORS, BENCHMARKS

    def forward_cpu(self, t):
        self.run_cpu(t, log_softmax_rows, log_softmax_columns, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self.run_cpu(t, log_softmax_rows_backward, log_softmax_columns_backward, t.y, t.dy, t.dx)

    def forward_cuda(self, t):
        self.run_cuda(t, _lines_cuda, _columns_cuda, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self.run_cuda(t, _lines_backward_cuda, _columns_backward_cuda, t.y, t.dy, t.dx)

    def reference(self, x, **arrays):
        """Pair by pair: log(e^a + e^b), over the whole line."""
        x = np.asarray(x, np.float64)
        y = x - np.logaddexp.reduce(x, axis=self.axis, keepdims=True)
        return np.where(np.isposinf(x).any(self.axis, keepdims=True), np.nan, y)

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.log_softmax(x, self.axis)
