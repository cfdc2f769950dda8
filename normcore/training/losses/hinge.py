"""The multi-class hinge loss of support vector machines."""

from typing import Any

from normcore.errors import ParameterError, ShapeError
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.warps import warp_sum
from normcore.op import Array, Tensor
from normcore.training.losses.base import BLOCK, ROWS, Loss, add_up, add_up_cuda


@inline
def _excess(y, own, margin):
    """How far a wrong class reaches into the margin."""
    v = margin - own + y
    return real(0) if v < real(0) else v


@inline
def _cost(v, squared):
    return v * v if squared else v


@inline
def _slope(v, squared):
    if squared:
        return real(2) * v
    return real(1) if v > real(0) else real(0)


@cpu
def _hinge(y, targets, margin, squared, training, values, right, total, dy):
    count, classes = y.shape
    share = real(1) / real(count * classes)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for n in range(chunk * ROWS, min(count, chunk * ROWS + ROWS)):
            own = y[n, targets[n]]
            loss = real(0)
            pull = real(0)
            best = 0
            for k in range(classes):
                best = k if y[n, k] > y[n, best] else best
                v = _excess(y[n, k], own, margin) if k != targets[n] else real(0)
                loss += _cost(v, squared)
                pull += _slope(v, squared)
                if training:
                    dy[n, k] = share * _slope(v, squared)
            if training:
                dy[n, targets[n]] = -share * pull
            values[n] = loss / real(classes)
            right[n] = best == targets[n]
    add_up(values, right, count, total)


@cuda
def _hinge_cuda(y, targets, margin, squared, training, values, right, dy):
    """One warp a sample."""
    count, classes = y.shape
    share = real(1) / real(count * classes)
    lane = cu.threadIdx.x % 32
    for n in range(cu.grid(1) // 32, count, cu.gridsize(1) // 32):
        target = targets[n]
        own = y[n, target]
        loss = real(0)
        pull = real(0)
        ahead = 0  # classes that an arg-max would choose before the right one
        for k in range(lane, classes, 32):
            if y[n, k] > own or (y[n, k] == own and k < target):
                ahead += 1
            v = real(0)
            if k != target:
                v = _excess(y[n, k], own, margin)
            loss += _cost(v, squared)
            pull += _slope(v, squared)
            if training and k != target:
                dy[n, k] = share * _slope(v, squared)
        loss = warp_sum(loss)
        pull = warp_sum(pull)
        ahead = warp_sum(ahead)
        if lane == 0:
            if training:
                dy[n, target] = -share * pull
            values[n] = loss / real(classes)
            right[n] = ahead == 0


class Hinge(Loss, name="hinge"):
    """Mean over the classes of max(0, margin - y[target] + y[k]) for k other than target; averaged over the batch.

    From scores (N, classes) and integer targets (N,). squared: the squares of these. Crammer and Singer 2001 with
    the sum in place of their maximum (Weston and Watkins 1999), as torch.nn.MultiMarginLoss.
    """

    margin: float = 1.0
    squared: bool = False
    counts_correct = True

    def check(self) -> None:
        if not self.margin > 0:
            raise ParameterError("margin", "a number > 0", self.margin)

    def targets(self, output: Tensor) -> Array:
        if len(output.shape) != 2:
            raise ShapeError(
                f"hinge: expected an output of shape (N, classes), the network ends in {output.shape}; "
                "end it with flatten and dense: <classes>"
            )
        return Array(output.shape[:1], "int64")

    def classes(self, output: Tensor) -> int | None:
        return output.shape[1]

    def workspace(self, output: Tensor) -> dict[str, Array]:
        return {"right": Array(output.shape[:1], "uint8"), "counted": Array((1,), "int64")}

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        power = 2 if self.squared else 1
        return torch.nn.functional.multi_margin_loss(y, targets, p=power, margin=self.margin)

    def forward_cpu(self, t: Any) -> None:
        _hinge[t](
            *(
                t.y,
                t.targets,
                t.scalar(self.margin),
                self.squared,
                t.training,
                t.values,
                t.right,
                t.total,
                t.dy,
            )
        )

    def forward_cuda(self, t: Any) -> None:
        t.counted[...] = t.y.shape[0]
        _hinge_cuda[t, 32 * t.y.shape[0]](
            *(t.y, t.targets, t.scalar(self.margin), self.squared, t.training, t.values, t.right, t.dy)
        )
        add_up_cuda[t, (1, BLOCK)](t.values, t.right, t.counted, t.total)
