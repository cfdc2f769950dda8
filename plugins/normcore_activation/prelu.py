"""prelu: a leaky relu whose negative slope is learned, one for all channels or one each.

Forward   y = x for x > 0, else w_c x
Gradient  dx = dy for x > 0, else w_c dy;  dw_c = sum of dy x over the x <= 0 of channel c
`init` is w's first value; the layer's `weight_init` (any initializer) goes before it. Weight decay on w pulls the
slope to 0, which the paper advises against.
Numerics  dw is summed in runs of at most 16384 products, which are added up in float64, in an order that depends on
          the shape alone.
Shapes: x (N, C, *spatial), with num_parameters=1 any shape; y the same; weight (num_parameters,). float32 and
float64. num_parameters other than 1 and C is a ShapeError.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels.streaming import STREAM_BYTES
from normcore.layout import rows_together
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.prelu_cpu import (
    CHUNK,
    ROWS,
    backward_planes,
    backward_rows,
    forward_planes,
    forward_rows,
)
from normcore_activation.prelu_cuda import (
    THREADS,
    finish_cuda,
    forward_cuda,
    planes_backward_cuda,
    rows_backward_cuda,
)

PARTS = 64  # into which rows are cut, each with its own sums
LINE = 512  # numbers that short rows together make at most


class Prelu(Op, name="prelu", learnable=("weight",), source="He, Zhang, Ren and Sun 2015, arXiv:1502.01852"):
    """y = x for x > 0, else weight * x. num_parameters: 1 slope, or one for each channel; init: its first value."""

    num_parameters: int = 1
    init: float = 0.25

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)

    samples = (
        Sample("one slope", shape=(2, 3, 4, 7)),
        Sample("a slope for each channel", shape=(3, 5, 4, 7), params={"num_parameters": 5}),
        Sample("features", shape=(9, 37), params={"num_parameters": 37, "init": 0.1}),
        Sample("a vector", shape=(17,)),
        Sample("volumes", shape=(2, 3, 2, 4, 3), params={"num_parameters": 3, "init": -0.5}),
    )
    benchmarks = (
        Sample("large maps, one slope", shape=(32, 96, 55, 55)),
        Sample("large maps, a slope a channel", shape=(32, 96, 55, 55), params={"num_parameters": 96}),
        Sample("small maps, a slope a channel", shape=(32, 256, 14, 14), params={"num_parameters": 256}),
        Sample("features", shape=(128, 1000), params={"num_parameters": 1000}),
    )
    error_samples = (
        ErrorSample("neither one nor one a channel", {"num_parameters": 3}, (2, 4, 5), "4 channels"),
        ErrorSample("a vector has no channels", {"num_parameters": 4}, (4,), "(N, C"),
        ErrorSample("no slope", {"num_parameters": 0}, None, "num_parameters"),
        ErrorSample("no number", {"init": math.nan}, None, "init"),
    )

    def check(self):
        count = self.num_parameters
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ParameterError("num_parameters", "1, or the number of channels", count)
        if not math.isfinite(self.init):
            raise ParameterError("init", "a finite number", self.init)

    def plan(self, x: Tensor) -> Plan:
        count = self.num_parameters
        if count > 1:
            if len(x.shape) < 2:
                raise ShapeError(
                    f"prelu: num_parameters {count} needs an input (N, C, *spatial), got {x.shape}"
                )
            if x.shape[1] != count:
                raise ShapeError(
                    f"prelu: num_parameters must be 1 or the number of channels; got {count} for an input {x.shape} "
                    f"of {x.shape[1]} channels"
                )
        planes = x.shape[0] * count if count > 1 else 1
        pieces = -(-(x.size // max(1, planes)) // CHUNK)
        rows = x.size // count
        parts = max(1, min(PARTS, rows // ROWS))
        workspace = {"partial": Array((max(planes * pieces, parts * count, 1),), "float64")}
        if count > 1:
            workspace["short"] = Array((parts, count))
            workspace["slopes"] = Array((LINE // count * count,))
        weight = Array((count,), init={"constant": {"value": float(self.init)}})
        return Plan(y=x.shape, parameters={"weight": weight}, workspace=workspace, flops=2 * x.size)

    def forward_cpu(self, t):
        (x, y), rows = self._flat(t, t.x, t.y)
        if x.nbytes >= STREAM_BYTES and rows:
            slopes = self._slopes(t, x.shape[0])
            forward_rows[t](x.reshape(-1, slopes.size), slopes, y.reshape(-1, slopes.size))
        elif x.size:
            (forward_rows if rows else forward_planes)[t](x, t.weight, y)

    def backward_cpu(self, t):
        wanted = t.dx is not None
        (x, dy, dx), rows = self._flat(t, t.x, t.dy, t.dx if wanted else t.dy)
        if not x.size:
            t.dweight[:] = 0
        elif rows:
            parts = t.short.shape[0]
            partial = t.partial[: parts * t.weight.size].reshape(parts, -1)
            backward_rows[t](x, dy, t.weight, dx, wanted, t.short, partial, t.dweight)
        else:
            pieces = -(-x.shape[1] // CHUNK)
            partial = t.partial[: x.shape[0] * pieces].reshape(x.shape[0], pieces)
            backward_planes[t](x, dy, t.weight, dx, wanted, partial, t.dweight)

    def forward_cuda(self, t):
        if t.x.size:
            length = self._channels(t, t.x)[0].shape[2]
            forward_cuda[t, t.x.size](t.x.reshape(-1), t.weight, length, t.y.reshape(-1))

    def backward_cuda(self, t):
        wanted = t.dx is not None
        channels = t.weight.size
        x, dy, dx = self._channels(t, t.x, t.dy, t.dx if wanted else t.dy)
        chunks = max(1, min(t.partial.size // channels, 512))
        sums = t.partial[: chunks * channels].reshape(chunks, channels)
        if x.shape[2] == 1:
            extent = (chunks * -(-channels // 32), THREADS)
            rows_backward_cuda[t, extent](x, dy, t.weight, dx, wanted, sums)
        else:
            planes_backward_cuda[t, (chunks * channels, THREADS)](x, dy, t.weight, dx, wanted, sums)
        finish_cuda[t, channels](sums, t.dweight)

    def _flat(self, t, *arrays):
        """Arrays as runs of one slope each, (P, L), or as rows of all channels, (M, C); and whether rows."""
        x, count = arrays[0], self.num_parameters
        rows = count > 1 and (x.ndim == 2 or t.format == "channels_last")
        shape = (1, x.size) if count == 1 else (x.size // count, count) if rows else None
        if shape is None:
            shape = (x.shape[0] * count, math.prod(x.shape[2:]))
        return tuple(a.reshape(shape) for a in arrays), rows

    def _slopes(self, t, rows):
        """The slopes of as many rows as are taken together, side by side."""
        count = t.weight.size
        together = rows_together(rows, count, LINE)
        if together == 1:
            return t.weight
        slopes = t.slopes[: together * count]
        slopes.reshape(together, count)[:] = t.weight
        return slopes

    def _channels(self, t, *arrays):
        """Arrays as (N, C, L)."""
        x, count = arrays[0], self.num_parameters
        if count == 1:
            shape = (1, 1, x.size)
        elif x.ndim == 2 or t.format == "channels_last":
            shape = (x.size // count, count, 1)
        else:
            shape = (x.shape[0], count, math.prod(x.shape[2:]))
        return tuple(a.reshape(shape) for a in arrays)

    def reference(self, x, weight, **arrays):
        x = np.asarray(x, np.float64)
        shape = (1, -1) + (1,) * (x.ndim - 2) if self.num_parameters > 1 else (1,)
        return np.maximum(x, 0.0) + np.reshape(weight, shape) * np.minimum(x, 0.0)

    def in_torch(self, torch, x, *, training, weight, **arrays):
        return torch.nn.functional.prelu(x, weight)
