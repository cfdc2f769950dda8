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
from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import block_sum
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation.gated import inlined
from normcore_activation.leaky_relu import leaky_relu

CHUNK = 16384  # numbers a task takes
ROWS = 64  # rows of channels that are summed before float64 takes over
PARTS = 64  # of the rows, each with its own sums
THREADS = 256

_scalars = leaky_relu.scalars[""]
_value, _slope = inlined(_scalars.forward), inlined(_scalars.derivatives[0])


@inline
def slope_gradient(x, dy):
    return 0.0 if x > 0.0 else x * dy


# -- CPU, one slope for a run of numbers: x (P, L), plane p of channel p % C -----------------------------------


@inline
def forward_run(x, w, y):
    for i in range(y.size):
        y[i] = _value(x[i], w)


@inline
def gradient_run(x, dy, w, dx):
    for i in range(dx.size):
        dx[i] = dy[i] * _slope(x[i], real(0), w)


@inline(reassociate=True)
def slope_gradient_sum(x, dy):
    total = real(0)
    for i in range(x.size):
        total += slope_gradient(x[i], dy[i])
    return total


@cpu
def _forward_planes(x, weight, y):
    length = x.shape[1]
    pieces = (length + CHUNK - 1) // CHUNK
    for task in prange(x.shape[0] * pieces):
        p = task // pieces
        lo = (task - p * pieces) * CHUNK
        hi = min(length, lo + CHUNK)
        forward_run(x[p, lo:hi], weight[p % weight.size], y[p, lo:hi])


@cpu
def _backward_planes(x, dy, weight, dx, wanted, partial, dweight):
    """partial (P, pieces)."""
    length = x.shape[1]
    pieces = partial.shape[1]
    channels = weight.size
    for task in prange(x.shape[0] * pieces):
        p = task // pieces
        k = task - p * pieces
        lo = k * CHUNK
        hi = min(length, lo + CHUNK)
        if wanted:
            gradient_run(x[p, lo:hi], dy[p, lo:hi], weight[p % channels], dx[p, lo:hi])
        partial[p, k] = wide(slope_gradient_sum(x[p, lo:hi], dy[p, lo:hi]))
    for c in range(channels):
        total = wide(0)
        for p in range(c, x.shape[0], channels):
            for k in range(pieces):
                total += partial[p, k]
        dweight[c] = real(total)


# -- CPU, a slope for each number of a row: x (M, C) -----------------------------------------------------------


@inline
def forward_row(x, w, y):
    for i in range(w.size):
        y[i] = _value(x[i], w[i])


@inline
def gradient_row(x, dy, w, dx):
    for i in range(w.size):
        dx[i] = dy[i] * _slope(x[i], real(0), w[i])


@inline
def add_row(x, dy, total):
    for i in range(total.size):
        total[i] += slope_gradient(x[i], dy[i])


@inline
def fold(short, long):
    for c in range(long.size):
        long[c] += wide(short[c])
        short[c] = real(0)


@cpu
def _forward_rows(x, weight, y):
    group = max(1, CHUNK // weight.size)
    for task in prange((x.shape[0] + group - 1) // group):
        for r in range(task * group, min(x.shape[0], task * group + group)):
            forward_row(x[r], weight, y[r])


@cpu
def _backward_rows(x, dy, weight, dx, wanted, short, partial, dweight):
    """short and partial (parts, C), in the kernel's precision and in float64."""
    parts = partial.shape[0]
    rows = x.shape[0]
    for p in prange(parts):
        for c in range(weight.size):
            short[p, c] = real(0)
            partial[p, c] = wide(0)
        last = rows * (p + 1) // parts
        for lo in range(rows * p // parts, last, ROWS):
            for r in range(lo, min(last, lo + ROWS)):
                if wanted:
                    gradient_row(x[r], dy[r], weight, dx[r])
                add_row(x[r], dy[r], short[p])
            fold(short[p], partial[p])
    for c in range(weight.size):
        total = wide(0)
        for p in range(parts):
            total += partial[p, c]
        dweight[c] = real(total)


# -- CUDA: x (N, C, L); channels last and features are (M, C, 1) ------------------------------------------------


@cuda
def _forward_cuda(x, weight, y):
    channels, length = x.shape[1], x.shape[2]
    flat, out = x.reshape(x.size), y.reshape(y.size)
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        out[i] = _value(flat[i], weight[i // length % channels])


@cuda
def _planes_backward_cuda(x, dy, weight, dx, wanted, sums):
    """Block (k, c) takes part k of channel c; sums (chunks, C)."""
    channels, length = x.shape[1], x.shape[2]
    chunks = sums.shape[0]
    c = cu.blockIdx.x % channels
    k = cu.blockIdx.x // channels
    scratch = cu.shared.array(THREADS // 32, np.float64)
    count = x.shape[0] * length
    step = (count + chunks - 1) // chunks
    w = weight[c]
    total = wide(0)
    for q in range(k * step + cu.threadIdx.x, min(count, k * step + step), cu.blockDim.x):
        n = q // length
        i = q - n * length
        v, g = x[n, c, i], dy[n, c, i]
        if wanted:
            dx[n, c, i] = g * _slope(v, real(0), w)
        total += wide(slope_gradient(v, g))
    total = block_sum(total, scratch)
    if cu.threadIdx.x == 0:
        sums[k, c] = total


@cuda
def _rows_backward_cuda(x, dy, weight, dx, wanted, sums):
    """Block (k, b) takes part k of the rows, channels 32 b .. 32 b + 31: a warp a row, whole lines at once."""
    rows, channels = x.shape[0], x.shape[1]
    chunks = sums.shape[0]
    scratch = cu.shared.array(THREADS, np.float64)
    k = cu.blockIdx.x % chunks
    c = cu.blockIdx.x // chunks * 32 + cu.threadIdx.x % 32
    step = (rows + chunks - 1) // chunks
    total = wide(0)
    if c < channels:
        w = weight[c]
        for r in range(k * step + cu.threadIdx.x // 32, min(rows, k * step + step), cu.blockDim.x // 32):
            v, g = x[r, c, 0], dy[r, c, 0]
            if wanted:
                dx[r, c, 0] = g * _slope(v, real(0), w)
            total += wide(slope_gradient(v, g))
    scratch[cu.threadIdx.x] = total
    cu.syncthreads()
    if cu.threadIdx.x < 32 and c < channels:
        for w in range(1, cu.blockDim.x // 32):
            total += scratch[cu.threadIdx.x + 32 * w]
        sums[k, c] = total


@cuda
def _finish_cuda(sums, dweight):
    for c in range(cu.grid(1), dweight.size, cu.gridsize(1)):
        total = wide(0)
        for k in range(sums.shape[0]):
            total += sums[k, c]
        dweight[c] = real(total)


# -- the op ----------------------------------------------------------------------------------------------------


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
        weight = Array((count,), init={"constant": {"value": float(self.init)}})
        return Plan(y=x.shape, parameters={"weight": weight}, workspace=workspace, flops=2 * x.size)

    def forward_cpu(self, t):
        (x, y), rows = self._flat(t, t.x, t.y)
        if x.size:
            (_forward_rows if rows else _forward_planes)[t](x, t.weight, y)

    def backward_cpu(self, t):
        wanted = t.dx is not None
        (x, dy, dx), rows = self._flat(t, t.x, t.dy, t.dx if wanted else t.dy)
        if not x.size:
            t.dweight[:] = 0
        elif rows:
            parts = t.short.shape[0]
            partial = t.partial[: parts * t.weight.size].reshape(parts, -1)
            _backward_rows[t](x, dy, t.weight, dx, wanted, t.short, partial, t.dweight)
        else:
            pieces = -(-x.shape[1] // CHUNK)
            partial = t.partial[: x.shape[0] * pieces].reshape(x.shape[0], pieces)
            _backward_planes[t](x, dy, t.weight, dx, wanted, partial, t.dweight)

    def forward_cuda(self, t):
        if t.x.size:
            x, y = self._channels(t, t.x, t.y)
            _forward_cuda[t, x.size](x, t.weight, y)

    def backward_cuda(self, t):
        wanted = t.dx is not None
        channels = t.weight.size
        x, dy, dx = self._channels(t, t.x, t.dy, t.dx if wanted else t.dy)
        chunks = max(1, min(t.partial.size // channels, 512))
        sums = t.partial[: chunks * channels].reshape(chunks, channels)
        if x.shape[2] == 1:
            extent = (chunks * -(-channels // 32), THREADS)
            _rows_backward_cuda[t, extent](x, dy, t.weight, dx, wanted, sums)
        else:
            _planes_backward_cuda[t, (chunks * channels, THREADS)](x, dy, t.weight, dx, wanted, sums)
        _finish_cuda[t, channels](sums, t.dweight)

    def _flat(self, t, *arrays):
        """Arrays as runs of one slope each, (P, L), or as rows of all channels, (M, C); and whether rows."""
        x, count = arrays[0], self.num_parameters
        rows = count > 1 and (x.ndim == 2 or t.format == "channels_last")
        shape = (1, x.size) if count == 1 else (x.size // count, count) if rows else None
        if shape is None:
            shape = (x.shape[0] * count, math.prod(x.shape[2:]))
        return tuple(a.reshape(shape) for a in arrays), rows

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
