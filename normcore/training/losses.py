"""Losses: the mean over a batch and its gradient to the network's output, in one kernel."""

import math
from typing import Any, ClassVar

import numpy as np

from normcore.component import Component
from normcore.errors import ParameterError, ShapeError
from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import ALL, block_sum, warp_sum
from normcore.op import Array, Tensor

ROWS = 64  # samples a parallel task takes
BLOCK = 256  # threads of the one block that adds up a batch


class Loss(Component):
    """Base of losses.

    targets(output) says what targets look like for an output. forward_cpu(t) and forward_cuda(t) read t.y (the
    output as a C-contiguous logical array) and t.targets; they write t.total[0] = the sum over samples of
    their losses, t.total[1] = correct answers, t.total[2] = samples counted, t.values (N,), and, when t.training,
    t.dy = the gradient of the mean to y.
    """

    kind: ClassVar[str] = "loss"
    counts_correct: ClassVar[bool] = False  # whether total[1] means anything

    def targets(self, output: Tensor) -> Array:
        raise NotImplementedError(f"loss {self.name!r} does not say what its targets are")

    def classes(self, output: Tensor) -> int | None:
        """The number of classes when targets are class numbers, else None."""
        return None

    def workspace(self, output: Tensor) -> dict[str, Array]:
        """Scratch arrays that the kernels take as t.<name>."""
        return {}


@inline(reassociate=True)
def _largest(row):
    top = row[0]
    for k in range(row.size):
        top = row[k] if (row[k] > top) | (row[k] != row[k]) else top
    return top


@inline(reassociate=True)
def _exponentials(row, top, out):
    total = real(0)
    for k in range(row.size):
        power = math.exp(row[k] - top)
        out[k] = power
        total += power
    return total


@inline(reassociate=True)
def _sum(row):
    total = real(0)
    for k in range(row.size):
        total += row[k]
    return total


@inline
def _gradient(powers, factor, offset, out):
    for k in range(out.size):
        out[k] = powers[k] * factor - offset


@inline
def _cross_entropy_row(row, target, smoothing, share, training, powers, out):
    """One sample: its loss and whether it is right; the gradient times share into out."""
    classes = row.size
    top = _largest(row)
    total = _exponentials(row, top, powers)
    logarithm = top + math.log(total)
    loss = logarithm - row[target]
    if smoothing > real(0):
        uniform = logarithm - _sum(row) / real(classes)
        loss = (real(1) - smoothing) * loss + smoothing * uniform
    if training:
        _gradient(powers, share / total, share * smoothing / real(classes), out)
        out[target] -= share * (real(1) - smoothing)
    best = 0
    for k in range(classes):
        if row[k] > row[best]:
            best = k
    return loss, best == target


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
    losses = wide(0)
    correct_answers = 0
    for n in range(count):
        losses += wide(values[n])
        correct_answers += right[n]
    total[0] = losses
    total[1] = wide(correct_answers)
    total[2] = wide(counted)


@inline
def _warp_best(value, index):
    """The largest value over a warp's lanes and the lowest index that has it."""
    for k in range(5):
        other = cu.shfl_xor_sync(ALL, value, 16 >> k)
        place = cu.shfl_xor_sync(ALL, index, 16 >> k)
        if other > value or (other == value and place < index):
            value = other
            index = place
    return value, index


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
            top, best = _warp_best(top, best)
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


@cuda
def _total_cuda(values, right, counted, total):
    """One block."""
    scratch = cu.shared.array(32, np.float64)
    losses = wide(0)
    correct = wide(0)
    for n in range(cu.threadIdx.x, values.size, cu.blockDim.x):
        losses += wide(values[n])
        correct += wide(right[n])
    losses = block_sum(losses, scratch)
    correct = block_sum(correct, scratch)
    if cu.threadIdx.x == 0:
        total[0] = losses
        total[1] = correct
        total[2] = wide(counted[0])


class CrossEntropy(Loss, name="cross_entropy"):
    """-log softmax(y)[target], from logits (N, classes) and integer targets (N,), averaged over the batch.

    Gradient: (softmax(y) - onehot) / N. The largest logit is subtracted first, so no exponential overflows.
    label_smoothing: the share of the target spread evenly over all classes (Szegedy et al. 2016). ignore_index:
    targets of this value count neither in the loss nor in the mean (PyTorch's convention).
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

    def workspace(self, output: Tensor) -> dict[str, Array]:
        return {
            "powers": Array(output.shape),
            "right": Array(output.shape[:1], "uint8"),
            "counted": Array((1,), "int64"),
        }

    def forward_cpu(self, t: Any) -> None:
        _cross_entropy[t](
            t.y,
            t.targets,
            t.scalar(self.label_smoothing),
            self.ignore_index,
            t.training,
            t.powers,
            t.values,
            t.right,
            t.total,
            t.dy,
        )

    def forward_cuda(self, t: Any) -> None:
        _count_cuda[t, (1, BLOCK)](t.targets, self.ignore_index, t.counted)
        _cross_entropy_cuda[t, 32 * t.y.shape[0]](
            t.y,
            t.targets,
            t.scalar(self.label_smoothing),
            self.ignore_index,
            t.training,
            t.counted,
            t.values,
            t.right,
            t.dy,
        )
        _total_cuda[t, (1, BLOCK)](t.values, t.right, t.counted, t.total)


@cpu
def _mean_squared(y, targets, training, values, total, dy):
    count, size = y.shape
    share = real(2) / real(count * size)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for n in range(chunk * ROWS, min(count, chunk * ROWS + ROWS)):
            values[n] = _squares(y[n], targets[n]) / real(size)
            if training:
                _differences(y[n], targets[n], share, dy[n])
    losses = wide(0)
    for n in range(count):
        losses += wide(values[n])
    total[0] = losses
    total[1] = wide(0)
    total[2] = wide(count)


@inline(reassociate=True)
def _squares(row, target):
    total = real(0)
    for k in range(row.size):
        difference = row[k] - target[k]
        total += difference * difference
    return total


@inline
def _differences(row, target, share, out):
    for k in range(out.size):
        out[k] = share * (row[k] - target[k])


@cuda
def _mean_squared_cuda(y, targets, training, values, dy):
    """One warp a sample."""
    count, size = y.shape
    share = real(2) / real(count * size)
    lane = cu.threadIdx.x % 32
    for n in range(cu.grid(1) // 32, count, cu.gridsize(1) // 32):
        total = real(0)
        for k in range(lane, size, 32):
            difference = y[n, k] - targets[n, k]
            total += difference * difference
            if training:
                dy[n, k] = share * difference
        total = warp_sum(total)
        if lane == 0:
            values[n] = total / real(size)


class MeanSquaredError(Loss, name="mse"):
    """Mean of (y - target)^2 over all elements; targets have the output's shape. Gradient: 2 (y - target) / size."""

    def targets(self, output: Tensor) -> Array:
        return Array(output.shape)

    def workspace(self, output: Tensor) -> dict[str, Array]:
        return {"right": Array(output.shape[:1], "uint8"), "counted": Array((1,), "int64")}

    def forward_cpu(self, t: Any) -> None:
        n = t.y.shape[0]
        _mean_squared[t](
            t.y.reshape(n, -1), t.targets.reshape(n, -1), t.training, t.values, t.total, t.dy.reshape(n, -1)
        )

    def forward_cuda(self, t: Any) -> None:
        n = t.y.shape[0]
        t.right[...] = 0
        t.counted[...] = n
        _mean_squared_cuda[t, 32 * n](
            t.y.reshape(n, -1), t.targets.reshape(n, -1), t.training, t.values, t.dy.reshape(n, -1)
        )
        _total_cuda[t, (1, BLOCK)](t.values, t.right, t.counted, t.total)


BUILT_IN = (CrossEntropy, MeanSquaredError)
