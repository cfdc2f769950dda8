"""Losses that compare outputs with targets of the same shape, element by element: each is two scalar functions.

    value(y, target, c)    the loss of one element
    slope(y, target, c)    its derivative to y
with c the loss's parameters as a tuple. The loss of a batch is the mean over all elements.
"""

import math
from typing import Any, ClassVar

from normcore.errors import ParameterError
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.function import Inline
from normcore.kernels.warps import warp_sum
from normcore.op import Array, Tensor
from normcore.training.losses.base import BLOCK, ROWS, Loss, add_up, add_up_cuda

CHECKS = (
    False  # whether answers are right or wrong: both sides of the threshold, 0 for y and one half for targets
)


def value(y, target, c):
    """Stands in the kernels' text for a loss's own function."""
    raise NotImplementedError


slope = value


@inline(reassociate=True)
def _row(y, target, c):
    total = real(0)
    for k in range(y.size):
        total += value(y[k], target[k], c)
    return total


@inline
def _gradient(y, target, share, c, out):
    for k in range(out.size):
        out[k] = share * slope(y[k], target[k], c)


@inline
def _wrong(y, target):
    return (y > real(0)) != (target > real(0.5))


@inline
def _right(y, target):
    wrong = 0
    for k in range(y.size):
        wrong += _wrong(y[k], target[k])
    return wrong == 0


@cpu
def _pointwise(y, targets, c, training, values, right, total, dy):
    count, size = y.shape
    share = real(1) / real(count * size)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for n in range(chunk * ROWS, min(count, chunk * ROWS + ROWS)):
            values[n] = _row(y[n], targets[n], c) / real(size)
            right[n] = CHECKS and _right(y[n], targets[n])
            if training:
                _gradient(y[n], targets[n], share, c, dy[n])
    add_up(values, right, count, total)


@cuda
def _pointwise_cuda(y, targets, c, training, values, right, dy):
    """One warp a sample."""
    count, size = y.shape
    share = real(1) / real(count * size)
    lane = cu.threadIdx.x % 32
    for n in range(cu.grid(1) // 32, count, cu.gridsize(1) // 32):
        total = real(0)
        wrong = 0
        for k in range(lane, size, 32):
            total += value(y[n, k], targets[n, k], c)
            if CHECKS and _wrong(y[n, k], targets[n, k]):
                wrong += 1
            if training:
                dy[n, k] = share * slope(y[n, k], targets[n, k], c)
        total = warp_sum(total)
        wrong = warp_sum(wrong)
        if lane == 0:
            values[n] = total / real(size)
            right[n] = CHECKS and wrong == 0


class PointwiseLoss(Loss):
    """Base of the losses above; `scalars` are value and slope."""

    scalars: ClassVar[tuple[Inline, Inline]]

    def constants(self) -> tuple[float, ...]:
        return (0.0,)

    def targets(self, output: Tensor) -> Array:
        return Array(output.shape)

    def workspace(self, output: Tensor) -> dict[str, Array]:
        return {"right": Array(output.shape[:1], "uint8"), "counted": Array((1,), "int64")}

    def _specialized(self, kernel: Any) -> Any:
        value, slope = self.scalars
        return kernel.with_constants(value=value, slope=slope, CHECKS=self.counts_correct)

    def forward_cpu(self, t: Any) -> None:
        y, targets, dy = (a.reshape(a.shape[0], -1) for a in (t.y, t.targets, t.dy))
        c = tuple(map(t.scalar, self.constants()))
        self._specialized(_pointwise)[t](y, targets, c, t.training, t.values, t.right, t.total, dy)

    def forward_cuda(self, t: Any) -> None:
        y, targets, dy = (a.reshape(a.shape[0], -1) for a in (t.y, t.targets, t.dy))
        c = tuple(map(t.scalar, self.constants()))
        t.counted[...] = y.shape[0]
        kernel = self._specialized(_pointwise_cuda)
        kernel[t, 32 * y.shape[0]](y, targets, c, t.training, t.values, t.right, dy)
        add_up_cuda[t, (1, BLOCK)](t.values, t.right, t.counted, t.total)


@inline
def _square(y, target, c):
    return (y - target) * (y - target)


@inline
def _square_slope(y, target, c):
    return 2.0 * (y - target)


class MeanSquaredError(PointwiseLoss, name="mse"):
    """Mean of (y - target)^2 over all elements; targets have the output's shape. Gradient: 2 (y - target) / size."""

    scalars = (_square, _square_slope)

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        return torch.nn.functional.mse_loss(y, targets)


@inline
def _absolute(y, target, c):
    return abs(y - target)


@inline
def _sign(y, target, c):
    d = y - target
    s = 1.0 if d > real(0) else 0.0
    s = -1.0 if d < real(0) else s
    return s if d == d else d


class MeanAbsoluteError(PointwiseLoss, name="mae", aliases=("l1",)):
    """Mean of |y - target| over all elements. Gradient: sign(y - target) / size, 0 where they are equal."""

    scalars = (_absolute, _sign)

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        return torch.nn.functional.l1_loss(y, targets)


@inline
def _huber(y, target, c):
    d = abs(y - target)
    return c[0] * (d - 0.5 * c[0]) if d > c[0] else 0.5 * d * d


@inline
def _huber_slope(y, target, c):
    d = y - target
    d = c[0] if d > c[0] else d
    return -c[0] if d < -c[0] else d


class Huber(PointwiseLoss, name="huber"):
    """Half the squared error up to delta, a line beyond it: outliers pull no harder than delta. Huber 1964.

    d = y - target: d^2 / 2 for |d| <= delta, else delta (|d| - delta / 2). Gradient: d cut to [-delta, delta].
    """

    scalars = (_huber, _huber_slope)
    delta: float = 1.0

    def check(self) -> None:
        if not self.delta > 0:
            raise ParameterError("delta", "a number > 0", self.delta)

    def constants(self) -> tuple[float, ...]:
        return (self.delta,)

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        return torch.nn.functional.huber_loss(y, targets, delta=self.delta)


@inline
def _logistic(y, target, c):
    top = real(0) if y < real(0) else y
    return top - y * target + math.log1p(math.exp(-abs(y)))


@inline
def _logistic_slope(y, target, c):
    e = math.exp(-abs(y))
    return (e if y < real(0) else 1.0) / (1.0 + e) - target


class BinaryCrossEntropy(PointwiseLoss, name="binary_cross_entropy_with_logits", aliases=("bce",)):
    """-target log s(y) - (1 - target) log(1 - s(y)), s the logistic function; targets from 0 to 1 of the output's shape.

    Computed as max(y, 0) - y target + log(1 + e^-|y|), which never overflows. Gradient: (s(y) - target) / size.
    A sample counts as correct when every logit lies on its target's side: y > 0 where target > 0.5.
    """

    scalars = (_logistic, _logistic_slope)
    counts_correct = True

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(y, targets)
