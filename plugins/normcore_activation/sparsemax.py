"""sparsemax: the point of the probability simplex nearest to the input; unlike softmax it has exact zeros.

Forward   y_i = max(x_i - tau, 0), tau such that sum_i y_i = 1
Gradient  dx_i = dy_i - mean of dy over the support S where y_i > 0, else 0
With x sorted in falling order, the support is the largest k with 1 + k x_(k) > x_(1) + .. + x_(k) (the paper's
algorithm 1; `reference`). The kernels find the same tau without sorting: tau = (sum over S - 1) / |S|, starting from
S = all x_i > max - 1, which holds the support; leaving out what is not above tau can only raise it, so S shrinks to
the support in a few passes (Michelot 1986), and each is vector code.
Numerics  The maximum is subtracted first. An entry of -inf gets 0. A line that holds NaN, inf, or nothing but -inf is
          NaN. Sums run in an order that depends on the shape alone.
Shapes: x and y equal, one axis or more, any axis, negative ones counted from the end. float32 and float64. An axis
out of range is a ShapeError.

Source: Martins and Astudillo 2016, "From softmax to sparsemax", arXiv:1602.02068; Michelot 1986, "A finite algorithm
for finding the projection of a point onto the canonical simplex of R^n".
"""

import numpy as np

from normcore.testing.samples import Sample
from normcore_activation.over_axis import OverAxis
from normcore_activation.softmax import BENCHMARKS, ERRORS, SAMPLES
from normcore_activation.sparsemax_cpu import (
    sparsemax_columns,
    sparsemax_columns_backward,
    sparsemax_rows,
    sparsemax_rows_backward,
)
from normcore_activation.sparsemax_cuda import (
    columns_backward_cuda,
    columns_cuda,
    lines_backward_cuda,
    lines_cuda,
)


class Sparsemax(OverAxis, name="sparsemax", source="Martins and Astudillo 2016, arXiv:1602.02068"):
    """y = max(x - tau, 0) with sum 1 along `axis` (1: channels); dx = dy - mean of dy where y > 0, else 0."""

    backward_needs = ("y",)
    scratch_rows = 5
    samples = (
        *SAMPLES,
        Sample("many in the support", shape=(3, 40), low=-0.01, high=0.01),
    )
    error_samples, benchmarks = ERRORS, BENCHMARKS

    def forward_cpu(self, t):
        self.run_cpu(t, sparsemax_rows, sparsemax_columns, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self.run_cpu(t, sparsemax_rows_backward, sparsemax_columns_backward, t.y, t.dy, t.dx)

    def forward_cuda(self, t):
        self.run_cuda(t, lines_cuda, columns_cuda, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self.run_cuda(t, lines_backward_cuda, columns_backward_cuda, t.y, t.dy, t.dx)

    def reference(self, x, **arrays):
        """By sorting, as in the paper."""
        lines = np.moveaxis(np.asarray(x, np.float64), self.axis, -1)
        size = lines.shape[-1]
        bad = (np.isnan(lines) | np.isposinf(lines)).any(-1, keepdims=True) | np.isneginf(lines).all(
            -1, keepdims=True
        )
        falling = -np.sort(-np.where(bad, 0.0, lines), axis=-1)
        sums = np.cumsum(falling, axis=-1)
        inside = 1.0 + np.arange(1, size + 1) * falling > sums
        count = np.max(np.where(inside, np.arange(1, size + 1), 1), axis=-1, keepdims=True)
        tau = (np.take_along_axis(sums, count - 1, -1) - 1.0) / count
        y = np.where(bad, np.nan, np.maximum(np.where(bad, 0.0, lines) - tau, 0.0))
        return np.moveaxis(y, -1, self.axis)

    def in_torch(self, torch, x, *, training, **arrays):
        falling = torch.sort(x, dim=self.axis, descending=True).values
        sums = torch.cumsum(falling, self.axis)
        shape = [1] * x.ndim
        shape[self.axis] = -1
        k = torch.arange(1, x.shape[self.axis] + 1, dtype=x.dtype).reshape(shape)
        count = (1 + k * falling > sums).sum(self.axis, keepdim=True)
        tau = (sums.gather(self.axis, count - 1) - 1) / count
        return torch.relu(x - tau)
