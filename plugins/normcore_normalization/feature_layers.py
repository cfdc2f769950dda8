"""What layer_norm and rms_norm share: rows over the dimensions from `axis` on, and how their kernels are called."""

import math

from normcore import Array, Op, ParameterError, Plan, ShapeError
from normcore_normalization import feature_rows, feature_rows_cuda

LONG = 16384  # elements: longer rows sum dgamma by columns; a line for each chunk would leave the cache


def rows_of(op, x):
    """(number of rows, shape of a row) for the dimensions axis..end of an input."""
    rank = len(x.shape)
    axis = op.axis + rank if op.axis < 0 else op.axis
    if not 1 <= axis < rank:
        raise ShapeError(
            f"{op.name}: axis {op.axis} must name a dimension of one sample (1 to {rank - 1}, or counted from the "
            f"end -1 to {1 - rank}); got an input {x.shape}"
        )
    shape = tuple(x.shape[axis:])
    if math.prod(shape) == 0:
        raise ShapeError(f"{op.name}: expected at least one element in the dimensions {axis}.. of {x.shape}")
    return math.prod(x.shape[:axis]), shape


class FeatureNormalization(Op):
    """Base of the norms whose gamma and beta have a row's shape."""

    stores_16_bits = True

    def check(self):
        if self.eps is not None and not self.eps >= 0:
            raise ParameterError("eps", "a number of at least 0", self.eps)

    def plan_rows(self, x, parameters):
        rows, shape = rows_of(self, x)
        size = math.prod(shape)
        chunks = max(1, min(64, rows // 32), -(-rows // 256))
        tiles = self._by_columns(rows, size)
        per_row = Array((rows,))
        return Plan(
            y=x.shape,
            parameters=parameters,
            saved={"shift": per_row, "rest": per_row, "scale": per_row},
            workspace={
                "partial": Array((1 if tiles else chunks, 2, size if parameters else 0)),
                "line": Array((size if parameters else 0,), "float64"),
                "sums": Array((min(chunks, 64), 2, size if parameters else 0), "float64"),
            },
            flops=8 * x.size,
        )

    def _by_columns(self, rows, size):
        return size > LONG or rows < 64

    def _constants(self, t):
        """Compile-time flags, and gamma, beta and their gradients or empty arrays in their place."""
        names = vars(t)
        none = t.shift[:0]
        flags = {"CENTERED": self.centered, "AFFINE": "gamma" in names, "BIAS": "beta" in names}
        get = [names[n].reshape(-1) if n in names else none for n in ("gamma", "beta", "dgamma", "dbeta")]
        return flags, get

    def _eps(self, t):
        return float(self.eps)

    def _rows(self, t, array):
        rows = t.shift.size
        return array.reshape(rows, array.size // rows if rows else self._size(t))

    def _size(self, t):
        return max(
            1, math.prod(t.x.shape[self.axis :] if self.axis > 0 else t.x.shape[t.x.ndim + self.axis :])
        )

    def forward_cpu(self, t):
        flags, (gamma, beta, _, _) = self._constants(t)
        saved = (t.shift, t.rest, t.scale, t.shift[:0])
        kernel = feature_rows.forward_rows.with_constants(**flags)
        kernel[t](self._rows(t, t.x), self._rows(t, t.y), gamma, beta, *saved, self._eps(t), t.e)

    def backward_cpu(self, t):
        flags, parameters = self._constants(t)
        x, dy = self._rows(t, t.x), self._rows(t, t.dy)
        wanted = t.dx is not None
        dx = self._rows(t, t.dx) if wanted else dy
        saved = (t.shift, t.rest, t.scale)
        tiles = self._by_columns(*x.shape)
        kernel = feature_rows.backward_rows.with_constants(**flags)
        kernel[t](x, dy, dx, *parameters, *saved, t.partial, t.line, wanted, tiles, t.e)

    def forward_cuda(self, t):
        flags, (gamma, beta, _, _) = self._constants(t)
        x = self._rows(t, t.x)
        feature_rows_cuda.forward(t, flags, x, self._rows(t, t.y), gamma, beta, self._eps(t))

    def backward_cuda(self, t):
        flags, parameters = self._constants(t)
        x, dy = self._rows(t, t.x), self._rows(t, t.dy)
        dx = None if t.dx is None else self._rows(t, t.dx)
        feature_rows_cuda.backward(t, flags, x, dy, dx, *parameters)
