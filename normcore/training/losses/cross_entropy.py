"""Cross-entropy of logits, with the softmax inside: one kernel gives the loss and its gradient."""

import math
from typing import Any

import numpy as np

from normcore.errors import ParameterError, ShapeError
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.warps import block_sum, warp_best, warp_sum
from normcore.op import Array, Tensor
from normcore.training.losses.base import BLOCK, ROWS, Loss, add_up, add_up_cuda
from normcore.training.losses.rows import exponentials, first_best, largest, row_sum
from normcore.training.losses.soft_targets import cross_entropy_shares, cross_entropy_shares_cuda


@inline
def _gradient(powers, factor, offset, out):
    for k in range(out.size):
        out[k] = powers[k] * factor - offset


@inline
def _cross_entropy_row(row, target, smoothing, share, training, powers, out):
    """One sample: its loss and whether it is right; the gradient times share into out."""
    classes = row.size
    top = largest(row)
    total = exponentials(row, top, powers)
    logarithm = top + math.log(total)
    loss = logarithm - row[target]
    if smoothing > real(0):
        uniform = logarithm - row_sum(row) / real(classes)
        loss = (real(1) - smoothing) * loss + smoothing * uniform
    if training:
        _gradient(powers, share / total, share * smoothing / real(classes), out)
        out[target] -= share * (real(1) - smoothing)
    return loss, first_best(row) == target


@cpu
def _cross_entropy(y, targets, smoothing, ignored, training, powers, values, right, total, dy):
    count, classes = y.shape
    counted = 0
    for n in range(count):
        counted += targets[n] != ignored
    share = real(1) / real(counted)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for n in range(chunk * ROWS, min(count, chunk * ROWS + ROWS)):
            values[n] = real(0)
            right[n] = 0
            if targets[n] == ignored:
                if training:
                    for k in range(classes):
                        dy[n, k] = real(0)
            else:
                loss, correct = _cross_entropy_row(
                    y[n], targets[n], smoothing, share, training, powers[n], dy[n]
                )
                values[n] = loss
                right[n] = correct
    add_up(values, right, counted, total)


@cuda
def _cross_entropy_cuda(y, targets, smoothing, ignored, training, counted, values, right, dy):
    """One warp a sample."""
    count, classes = y.shape
    share = real(1) / real(counted[0])
    lane = cu.threadIdx.x % 32
    for n in range(cu.grid(1) // 32, count, cu.gridsize(1) // 32):
        target = targets[n]
        if target == ignored:
            if lane == 0:
                values[n] = real(0)
                right[n] = 0
            if training:
                for k in range(lane, classes, 32):
                    dy[n, k] = real(0)
        else:
            top = real(-math.inf)
            best = classes
            plain = real(0)
            for k in range(lane, classes, 32):
                plain += y[n, k]
                if y[n, k] > top:
                    top = y[n, k]
                    best = k
            top, best = warp_best(top, best)
            plain = warp_sum(plain)
            if plain != plain:  # a NaN: let it into the loss
                top = plain
            total = real(0)
            for k in range(lane, classes, 32):
                total += math.exp(y[n, k] - top)
            total = warp_sum(total)
            if lane == 0:
                logarithm = top + math.log(total)
                loss = (real(1) - smoothing) * (logarithm - y[n, target])
                if smoothing > real(0):
                    loss += smoothing * (logarithm - plain / real(classes))
                values[n] = loss
                right[n] = best == target
            if training:
                for k in range(lane, classes, 32):
                    expected = share * smoothing / real(classes)
                    if k == target:
                        expected += share * (real(1) - smoothing)
                    dy[n, k] = math.exp(y[n, k] - top) * (share / total) - expected


@cuda
def _count_cuda(targets, ignored, counted):
    """One block."""
    scratch = cu.shared.array(32, np.int64)
    found = 0
    for n in range(cu.threadIdx.x, targets.size, cu.blockDim.x):
        if targets[n] != ignored:
            found += 1
    found = block_sum(found, scratch)
    if cu.threadIdx.x == 0:
        counted[0] = found


class CrossEntropy(Loss, name="cross_entropy"):
    """-log softmax(y)[target], from logits (N, classes) and integer targets (N,), averaged over the batch.

    Gradient: (softmax(y) - onehot) / N. The largest logit is subtracted first, so no exponential overflows.
    label_smoothing: the share of the target spread evenly over all classes (Szegedy et al. 2016). ignore_index:
    targets of this value count neither in the loss nor in the mean (PyTorch's convention). Targets may be shares
    of the classes instead, (N, classes), as the augmentation mixup makes them (Zhang et al. 2017).
    """

    label_smoothing: float = 0.0
    ignore_index: int = -100
    counts_correct = True

    def check(self) -> None:
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ParameterError("label_smoothing", "a number from 0 to 1", self.label_smoothing)

    def targets(self, output: Tensor) -> Array:
        if len(output.shape) != 2:
            raise ShapeError(
                f"cross_entropy: expected an output of shape (N, classes), the network ends in {output.shape}; "
                "end it with flatten and dense: <classes>"
            )
        return Array(output.shape[:1], "int64")

    def classes(self, output: Tensor) -> int | None:
        return output.shape[1]

    def shares(self, output: Tensor) -> Array | None:
        return Array(output.shape)

    def workspace(self, output: Tensor) -> dict[str, Array]:
        return {
            "powers": Array(output.shape),
            "right": Array(output.shape[:1], "uint8"),
            "counted": Array((1,), "int64"),
        }

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        options = {} if targets.is_floating_point() else {"ignore_index": self.ignore_index}
        return torch.nn.functional.cross_entropy(y, targets, label_smoothing=self.label_smoothing, **options)

    def forward_cpu(self, t: Any) -> None:
        smoothing, results = t.scalar(self.label_smoothing), (t.powers, t.values, t.right, t.total, t.dy)
        if t.soft:
            cross_entropy_shares[t](t.y, t.shares, smoothing, t.training, *results)
        else:
            _cross_entropy[t](t.y, t.targets, smoothing, self.ignore_index, t.training, *results)

    def forward_cuda(self, t: Any) -> None:
        count, smoothing = t.y.shape[0], t.scalar(self.label_smoothing)
        results = (t.values, t.right, t.dy)
        if t.soft:
            t.counted[...] = count
            cross_entropy_shares_cuda[t, 32 * count](t.y, t.shares, smoothing, t.training, *results)
        else:
            _count_cuda[t, (1, BLOCK)](t.targets, self.ignore_index, t.counted)
            _cross_entropy_cuda[t, 32 * count](
                *(t.y, t.targets, smoothing, self.ignore_index, t.training, t.counted), *results
            )
        add_up_cuda[t, (1, BLOCK)](t.values, t.right, t.counted, t.total)
