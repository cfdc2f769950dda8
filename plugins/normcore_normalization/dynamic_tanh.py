"""Dynamic tanh: a normalization layer's place taken by a squashing curve, without any statistics.

Forward:  t = tanh(alpha * x)        y = gamma * t + beta
Backward, with g = dy * gamma * (1 - t^2):
    dx = alpha * g        dalpha = sum of g * x, over everything
    dgamma = sum of dy * t        dbeta = sum of dy, both over the dimensions before axis

alpha is one learned number, which starts at `alpha`; gamma and beta span the dimensions from axis to the end,
as in layer_norm. affine=False leaves gamma and beta out, not alpha. Every element is on its own: the op works
for any batch, and a NaN stays where it is.

Numerics: backward computes tanh again instead of keeping it. Sums are taken per column over at most 64 rows in the
kernel's precision and added up in float64, in an order that is a matter of the shape alone.

Shapes: x, y (N, ...) of any rank from 2 on; alpha (1,); gamma, beta x.shape[axis:]. axis from 1 or from the end.
float32 and float64.

Source: Zhu, Chen, He, LeCun and Liu 2025, "Transformers without normalization", arXiv:2503.10622.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.layout import rows_together
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization import dynamic_tanh_cuda
from normcore_normalization.channel_scalars import THREADS
from normcore_normalization.dynamic_tanh_kernels import (
    backward_rows,
    collect,
    forward_rows,
    spread,
)

CHUNKS, STRIPS = 16, 16  # into which backward cuts rows and columns at most
STRIP = (
    1024  # columns of a strip, at most: three sums of them and the rows they come from stay in the L1 cache
)


class DynamicTanh(
    Op,
    name="dynamic_tanh",
    aliases=("dyt",),
    learnable=("alpha", "gamma", "beta"),
    source="Zhu, Chen, He, LeCun and Liu 2025, arXiv:2503.10622",
):
    """gamma * tanh(alpha * x) + beta with one learned alpha.

    alpha: where it starts. axis: gamma and beta span the dimensions from it to the end. affine: learn gamma and
    beta.
    """

    alpha: float = 0.5
    axis: int = -1
    affine: bool = True

    stores_16_bits = True
    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)

    samples = (
        Sample("rows of odd length", shape=(5, 37)),
        Sample("a sequence", shape=(2, 5, 7), params={"alpha": 0.9}),
        Sample("channels and space", shape=(3, 4, 3, 5), params={"axis": 1}),
        Sample("the last two of four", shape=(2, 3, 4, 5), params={"axis": 2}),
        Sample("alpha alone", shape=(4, 3, 5), params={"affine": False}),
        Sample("rows beyond one block", shape=(150, 3)),
        Sample("a prime number of short rows", shape=(67, 3, 5), params={"axis": 2}),
    )
    error_samples = (
        ErrorSample("alpha is not a number", {"alpha": math.nan}, None, "alpha"),
        ErrorSample("the batch", {"axis": 0}, (3, 4), "axis"),
        ErrorSample("no such axis", {"axis": 2}, (3, 4), "axis"),
    )
    benchmarks = (
        Sample("a transformer's tokens", shape=(8192, 768)),
        Sample("feature maps", shape=(32, 96, 55, 55)),
    )

    def check(self):
        if not math.isfinite(self.alpha):
            raise ParameterError("alpha", "a finite number", self.alpha)

    def plan(self, x: Tensor) -> Plan:
        rank = len(x.shape)
        axis = self.axis + rank if self.axis < 0 else self.axis
        if rank < 2 or not 1 <= axis < rank:
            raise ShapeError(
                f"{self.name}: expected an input of two axes or more and an axis from 1 on, which the batch is "
                f"before; got {x.shape} and axis {self.axis}"
            )
        spanned = Array(x.shape[axis:])
        columns = math.prod(x.shape[axis:])
        # Channels last, every column comes once for each channel.
        widths = (columns, columns * x.shape[1]) if rank > 2 and axis > 1 else (columns,)
        columns = max(width * rows_together(x.size // max(1, width), width, STRIP) for width in widths)
        chunks = max(1, min(CHUNKS, x.size // max(1, columns) // 16))
        strips = max(1, min(64, -(-columns // STRIP)))
        parameters = {"alpha": Array((1,), init={"constant": {"value": self.alpha}})}
        if self.affine:
            parameters |= {"gamma": Array(spanned.shape, init="ones"), "beta": spanned}
        return Plan(
            y=x.shape,
            parameters=parameters,
            workspace={
                "spread": Array((2, columns if self.affine else 0)),
                "lines": Array((chunks * strips, 3, -(-columns // strips))),
                "sums": Array((chunks, 3, columns), "float64"),
            },
            flops=12 * x.size,
        )

    def forward_cpu(self, t):
        x, y, gamma, beta = self._rows(t, t.y)
        if x.size:
            forward_rows[t](x, y, t.alpha, gamma, beta)

    def backward_cpu(self, t):
        wanted = t.dx is not None
        x, dy, gamma, _ = self._rows(t, t.dy)
        dx = t.dx.reshape(x.shape) if wanted else dy
        sums = self._sums(t, x.shape[1])
        backward_rows[t](x, dy, dx, t.alpha, gamma, t.lines, sums, wanted)
        none = t.alpha[:0]
        dgamma, dbeta = (t.dgamma.reshape(-1), t.dbeta.reshape(-1)) if self.affine else (none, none)
        collect[t](sums, t.dalpha, dgamma, dbeta, *self._order(t))

    def forward_cuda(self, t):
        x, y, gamma, beta = self._rows(t, t.y)
        if x.size:
            dynamic_tanh_cuda.forward(t, x, y, gamma, beta)

    def backward_cuda(self, t):
        wanted = t.dx is not None
        x, dy, gamma, _ = self._rows(t, t.dy)
        dx = t.dx.reshape(x.shape) if wanted else dy
        sums = self._sums(t, x.shape[1])
        dynamic_tanh_cuda.backward(t, x, dy, dx, gamma, sums, wanted)
        none = t.alpha[:0]
        dgamma, dbeta = (t.dgamma.reshape(-1), t.dbeta.reshape(-1)) if self.affine else (none, none)
        order = self._order(t)
        grid = (1 + -(-dgamma.size // THREADS), THREADS)
        dynamic_tanh_cuda.collect_cuda[t, grid](sums, t.dalpha, dgamma, dbeta, *order)

    def _order(self, t):
        """(positions, channels, spans): how columns in memory belong to parameters, see `spread`."""
        rank = t.x.ndim
        axis = self.axis + rank if self.axis < 0 else self.axis
        if t.format == "channels_first" or rank == 2:
            return math.prod(t.x.shape[axis:]), 1, True
        channels = t.x.shape[-1]
        if axis == 1:
            return math.prod(t.x.shape[1:-1]), channels, True
        return math.prod(t.x.shape[axis - 1 : -1]), channels, False

    def _rows(self, t, other):
        """x and another array as (rows, columns), and gamma and beta column by column, or empty."""
        positions, channels, spans = self._order(t)
        columns = positions * channels
        rows = t.x.size // max(1, columns)
        together = rows_together(rows, columns, STRIP) if t.device.name == "cpu" else 1
        shape = (rows // together, together * columns)
        gamma = beta = t.alpha[:0]
        if self.affine:
            gamma, beta = t.gamma.reshape(-1), t.beta.reshape(-1)
            if channels > 1 or together > 1:
                columns *= together
                given = (gamma, beta)
                gamma, beta = t.spread[0, :columns], t.spread[1, :columns]
                if t.device.name == "cpu":
                    spread[t](*given, gamma, beta, positions, channels, spans)
                elif columns:
                    dynamic_tanh_cuda.spread_cuda[t, columns](*given, gamma, beta, positions, channels, spans)
        return t.x.reshape(shape), other.reshape(shape), gamma, beta

    def _sums(self, t, columns):
        chunks = t.sums.shape[0]
        return t.sums.reshape(-1)[: chunks * 3 * columns].reshape(chunks, 3, columns)

    def reference(self, x, alpha, gamma=None, beta=None, **_):
        with np.errstate(over="ignore"):
            t = 1.0 - 2.0 / (np.exp(2.0 * alpha[0] * np.asarray(x, np.float64)) + 1.0)
        return t if gamma is None else gamma * t + beta

    def in_torch(self, torch, x, *, training, alpha, gamma=None, beta=None, **_):
        y = torch.tanh(alpha * x)
        return y if gamma is None else y * gamma + beta
