"""Spatial dropout: in training each channel of a sample is kept whole with probability 1 - p, or set to zero.

Forward:  y = x * keep[n, c] / (1 - p), keep = 1 where u[n, c] >= p, else 0; u uniform in [0, 1)
Backward: dx = dy * keep[n, c] / (1 - p), with the same keep
Inference: y = x. Neighbouring pixels of a map say nearly the same, so that dropping them one by one hardly regularizes;
here the whole map goes.

u[n, c] is that of the index n * C + c in the layer's Philox stream, with 24 bits, as in dropout: the same for any
memory format, device, dtype and number of threads, drawn again in backward. NaN times 0 stays NaN, as in PyTorch.
Shapes: x (N, C, *spatial) with any number of spatial dimensions from 1 on. float32 and float64.

Source: Tompson, Goroshin, Jain, LeCun and Bregler 2015, "Efficient object localization using convolutional networks",
arXiv:1411.4280, section 3.2; PyTorch's Dropout1d to Dropout3d.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.random import uniform, uniform_32
from normcore.testing.samples import ErrorSample, Sample
from normcore_basic.dropout import LEVELS, factor

PIECE = 4096  # positions of a map, or numbers of a row of positions, that a parallel task takes at most


@inline
def channel_factor(plane, key, call, limit, scale, training):
    if not training:
        return real(1)
    return factor(uniform_32(key, plane, call, 0), limit, scale)


@inline
def multiply_run(x, y, by):
    for i in range(x.size):
        y[i] = x[i] * by


@cpu
def _drop_planes(x, y, key, call, limit, scale, training):
    """x, y (P, L), a plane a row."""
    planes, length = x.shape
    pieces = max(1, (length + PIECE - 1) // PIECE)
    for task in prange(planes * pieces):
        p = np.int64(task) // pieces
        lo = (np.int64(task) - p * pieces) * PIECE
        by = channel_factor(p, key, call, limit, scale, training)
        multiply_run(x[p, lo : lo + PIECE], y[p, lo : lo + PIECE], by)


@inline
def multiply_rows(x, y, by):
    for i in range(x.size):
        y[i] = x[i] * by[i]


@cpu
def _drop_positions(x, y, factors, key, call, limit, scale, training):
    """x, y (N, L, C); factors (N, C) scratch."""
    batch, length, channels = x.shape
    step = max(1, PIECE // max(1, channels))
    pieces = (length + step - 1) // step
    for n in prange(batch):
        for c in range(channels):
            factors[n, c] = channel_factor(
                np.int64(n) * channels + c, key, call, limit, scale, training
            )  # fmt: skip
    for task in prange(batch * pieces):
        n = np.int64(task) // pieces
        lo = (np.int64(task) - n * pieces) * step
        for i in range(lo, min(length, lo + step)):
            multiply_rows(x[n, i], y[n, i], factors[n])


@cuda
def _drop_planes_cuda(x, y, key, call, limit, scale, training):
    length = x.shape[1]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        p = i // length
        by = channel_factor(p, key, call, limit, scale, training)
        y[p, i - p * length] = x[p, i - p * length] * by


@cuda
def _factors_cuda(factors, key, call, limit, scale, training):
    for i in range(cu.grid(1), factors.size, cu.gridsize(1)):
        n = i // factors.shape[1]
        factors[n, i - n * factors.shape[1]] = channel_factor(i, key, call, limit, scale, training)


@cuda
def _drop_positions_cuda(x, y, factors):
    length, channels = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        row = i // channels
        n = row // length
        c = i - row * channels
        y[n, row - n * length, c] = x[n, row - n * length, c] * factors[n, c]


class SpatialDropout(Op, name="spatial_dropout", source="Tompson et al. 2015, arXiv:1411.4280, section 3.2"):
    """Set each channel of a sample to zero with probability p in training and divide the others by 1 - p; identity
    in inference."""

    p: float = 0.5

    formats = ("channels_first", "channels_last")
    backward_needs = ()
    stochastic = True

    samples = (
        Sample("maps", shape=(3, 7, 4, 5)),
        Sample("sequences", shape=(4, 5, 9), params={"p": 0.2}),
        Sample("everything dropped", shape=(2, 3, 4), params={"p": 1.0}),
        Sample("inference is the identity", shape=(3, 5, 2, 2, 3), training=False),
    )
    benchmarks = (Sample("AlexNet, first map", shape=(32, 96, 55, 55)),)
    error_samples = (
        ErrorSample("no probability", {"p": 1.5}, None, "0 to 1"),
        ErrorSample("no map", {}, (2, 3), "dropout"),
    )

    def check(self):
        if not 0 <= self.p <= 1:
            raise ParameterError("p", "a probability from 0 to 1", self.p)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 3:
            raise ShapeError(
                f"{self.name}: expected (N, C, *spatial), got {x.shape}; without spatial dimensions use dropout"
            )
        return Plan(y=x.shape, workspace={"factors": Array(x.shape[:2])}, flops=x.size)

    def forward_cpu(self, t):
        self._run(t, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self._run(t, t.dy, t.dx)

    def forward_cuda(self, t):
        self._run(t, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self._run(t, t.dy, t.dx)

    def _run(self, t, x, y):
        if not x.size:
            return
        limit = math.ceil(self.p * LEVELS) / LEVELS
        scale = 1.0 / (1.0 - self.p) if self.p < 1 else 0.0
        numbers = (t.key, t.call, np.float32(limit), np.dtype(t.dtype).type(scale), t.training)
        first = t.format == "channels_first"
        shape = (x.shape[0] * x.shape[1], math.prod(x.shape[2:]))
        if not first:
            shape = (x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])
        x, y = x.reshape(shape), y.reshape(shape)
        if t.device.name == "cpu":
            if first:
                _drop_planes[t](x, y, *numbers)
            else:
                _drop_positions[t](x, y, t.factors, *numbers)
        elif first:
            _drop_planes_cuda[t, x.size](x, y, *numbers)
        else:
            _factors_cuda[t, t.factors.size](t.factors, *numbers)
            _drop_positions_cuda[t, x.size](x, y, t.factors)

    def in_torch(self, torch, x, *, training, **arrays):
        return getattr(torch.nn.functional, f"dropout{x.dim() - 2}d")(x, self.p, training)

    def reference(self, x, *, training=True, key=0, call=0, **arrays):
        """The mask from the array half of the generator."""
        x = np.asarray(x, np.float64)
        if not training or self.p == 0:
            return x.copy()
        kept = uniform(int(key), x.shape[:2], "float32", call).astype(np.float64) >= self.p
        kept = kept.reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
        return np.where(kept, x, 0.0 * x) / (1.0 - self.p if self.p < 1 else 1.0)
