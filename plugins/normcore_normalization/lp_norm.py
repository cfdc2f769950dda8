"""Lp normalization: every vector along an axis divided by its length.

Forward:  n = (sum |x_i|^p)^(1/p)        d = max(n, eps)        y_i = x_i / d
Backward: dx_i = dy_i / d - s_i / d * sum dy_j * y_j, with s_i = d n / d x_i = sign(x_i) (|x_i| / n)^(p - 1);
a vector shorter than eps is divided by a constant and has no second term. s_i at x_i = 0 is 0, for p <= 1 too.
p = inf: n is the largest |x_i|, and s_i is shared evenly among all that reach it. All of this as PyTorch's F.normalize.

Numerics: p = 1 and 2 are sums in blocks, blocks in float64; where float32's squares overflow or vanish (values near
1e30 or 1e-30), and for any other p, the sum is of |x_i| divided by the largest, in float64. A NaN stays in its vector.

Shapes: any of rank 1 or more with that axis; y as x. float32 and float64, on CUDA stored in 16 bits too.

Source: PyTorch's torch.nn.functional.normalize; ONNX's LpNormalization.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample
from normcore_normalization import lp_columns_cuda, lp_powers_cuda, lp_rows_cuda
from normcore_normalization.lp_kernels import (
    LONGEST,
    STRIP,
    backward_rows,
    backward_strips,
    forward_rows,
    forward_strips,
    strip_of,
)

TASKS = 64


class LpNorm(
    Op,
    name="lp_norm",
    aliases=("l2_norm", "normalize"),
    source="PyTorch's F.normalize; ONNX's LpNormalization",
):
    """Divide each vector along an axis by its p-norm, or by eps where that is larger.

    p: any number above 0, infinity (.inf in YAML) included. axis: of the vectors. eps: the least length.
    """

    p: float = 2.0
    axis: int = 1
    eps: float = 1e-12

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    stores_16_bits = True

    samples = (
        Sample("channels of a map", shape=(2, 7, 3, 5)),
        Sample("dense features", shape=(5, 37)),
        Sample("p = 1", shape=(3, 6, 4), params={"p": 1.0}),
        Sample("the largest", shape=(3, 6, 4), params={"p": math.inf}),
        Sample("a fractional p along the last axis", shape=(2, 4, 5), params={"p": 2.5, "axis": -1}),
        Sample("p below 1, rows of a map", shape=(2, 3, 4, 5), params={"p": 0.7, "axis": 2}, low=0.5, high=2),
        Sample("vectors shorter than eps", shape=(3, 4), params={"eps": 100.0}),
    )
    error_samples = (
        ErrorSample("p is 0", {"p": 0.0}, None, "p"),
        ErrorSample("no such axis", {"axis": 3}, (3, 4), "axis"),
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
    )
    benchmarks = (
        Sample("channels of maps", shape=(32, 96, 55, 55)),
        Sample("embeddings", shape=(8192, 768)),
    )

    def check(self):
        if not self.p > 0:
            raise ParameterError("p", "a number above 0, or infinity", self.p)
        if not 0 <= self.eps < math.inf:
            raise ParameterError("eps", "a number of at least 0", self.eps)

    def plan(self, x: Tensor) -> Plan:
        rank = len(x.shape)
        if not -rank <= self.axis < rank:
            raise ShapeError(f"{self.name}: expected an input that has axis {self.axis}, got {x.shape}")
        vectors = x.size // max(1, x.shape[self.axis])
        width = max(STRIP, min(LONGEST, vectors))
        return Plan(
            y=x.shape,
            saved={"norm": Array((vectors,), "float64")},
            workspace={
                "lines": Array((TASKS, 2, width)),
                "totals": Array((TASKS, width), "float64"),
                "shares": Array((vectors,)),
            },
            flops=3 * x.size,
        )

    def forward_cpu(self, t):
        if not t.x.size:
            return
        shape, norm = self._view(t)
        x, y = t.x.reshape(shape), t.y.reshape(shape)
        if shape[2] == 1:
            forward = forward_rows.with_constants(KIND=self._kind())
            forward[t](x, x.reshape(shape[:2]), y.reshape(shape[:2]), norm, float(self.p), self.eps)
        else:
            forward = forward_strips.with_constants(KIND=self._kind())
            forward[t](x, y, norm, t.lines, strip_of(shape), float(self.p), self.eps)

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        shape, norm = self._view(t)
        x, dy, dx = t.x.reshape(shape), t.dy.reshape(shape), t.dx.reshape(shape)
        if shape[2] == 1:
            rows = [a.reshape(shape[:2]) for a in (x, dy, dx)]
            backward_rows.with_constants(KIND=self._kind())[t](x, *rows, norm, float(self.p), self.eps)
        else:
            backward = backward_strips.with_constants(KIND=self._kind())
            backward[t](x, dy, dx, norm, t.lines, t.totals, STRIP, float(self.p), self.eps)

    def forward_cuda(self, t):
        if not t.x.size:
            return
        shape, norm = self._view(t)
        x, y, eps = t.x.reshape(-1), t.y.reshape(-1), np.float64(self.eps)
        if self._kind() == 0:
            lp_powers_cuda.norms(t, shape, x, norm, np.float64(self.p))
        kernels = lp_rows_cuda if shape[2] == 1 else lp_columns_cuda
        kernels.forward(t, self._kind(), shape, x, y, norm, eps)

    def backward_cuda(self, t):
        if t.dx is None or not t.dx.size:
            return
        shape, norm = self._view(t)
        x, dy, dx = (a.reshape(-1) for a in (t.x, t.dy, t.dx))
        shares, eps = t.shares.reshape(norm.shape), np.float64(self.eps)
        kernels = lp_rows_cuda if shape[2] == 1 else lp_columns_cuda
        kernels.backward(t, self._kind(), shape, x, dy, dx, norm, shares, eps)
        if self._kind() == 0:
            lp_powers_cuda.input_gradient(t, shape, x, dy, dx, norm, shares, np.float64(self.p), eps)

    def _kind(self):
        return {1.0: 1, 2.0: 2, math.inf: 3}.get(float(self.p), 0)

    def _view(self, t):
        """The shape (A, M, B) whose middle axis the norm is taken along, and norm (A, B)."""
        shape, rank = t.x.shape, t.x.ndim
        axis = self.axis % rank
        if t.format == "channels_last" and rank > 2 and axis:
            axis = rank - 1 if axis == 1 else axis - 1
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        return (outer, shape[axis], inner), t.norm.reshape(outer, inner)

    def reference(self, x, **_):
        length = np.linalg.norm(np.moveaxis(np.asarray(x, np.float64), self.axis, -1), self.p, axis=-1)
        return x / np.expand_dims(np.maximum(length, self.eps), self.axis)

    def in_torch(self, torch, x, *, training, **_):
        return torch.nn.functional.normalize(x, self.p, self.axis, self.eps)
