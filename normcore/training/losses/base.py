"""What a loss is, and adding up a batch's losses."""

from typing import Any, ClassVar

import numpy as np

from normcore.component import Component
from normcore.errors import PluginError
from normcore.kernels import cu, cuda, inline, wide
from normcore.kernels.warps import block_sum
from normcore.op import Array, Tensor

ROWS = 64  # samples a parallel task takes
BLOCK = 256  # threads of the one block that adds up a batch


class Loss(Component):
    """Base of losses.

    targets(output) says what targets look like for an output. forward_cpu(t) and forward_cuda(t) read t.y (the
    output as a C-contiguous logical array) and t.targets; they write t.total[0] = the sum over samples of
    their losses, t.total[1] = correct answers, t.total[2] = samples counted, t.values (N,), and, when t.training,
    t.dy = the gradient of the mean to y. t.soft: t.shares holds the targets, not t.targets.
    """

    kind: ClassVar[str] = "loss"
    counts_correct: ClassVar[bool] = False  # whether total[1] means anything

    def targets(self, output: Tensor) -> Array:
        raise NotImplementedError(f"loss {self.name!r} does not say what its targets are")

    def classes(self, output: Tensor) -> int | None:
        """The number of classes when targets are class numbers, else None."""
        return None

    def shares(self, output: Tensor) -> Array | None:
        """What targets look like that spread over the classes, as mixup makes them; None when it takes none."""
        return None

    def workspace(self, output: Tensor) -> dict[str, Array]:
        """Scratch arrays that the kernels take as t.<name>."""
        return {}

    def in_torch(self, torch: Any, y: Any, targets: Any) -> Any:
        """The same mean in PyTorch (torch: the module), for comparing; a loss that PyTorch lacks leaves this out."""
        raise PluginError(f"loss {self.name!r} names no counterpart in PyTorch (method in_torch)")


@inline
def add_up(values, right, counted, total):
    """The batch's totals from the samples' losses and whether they are right, in float64 and in order."""
    losses = wide(0)
    answers = 0
    for n in range(values.size):
        losses += wide(values[n])
        answers += right[n]
    total[0] = losses
    total[1] = wide(answers)
    total[2] = wide(counted)


@cuda
def add_up_cuda(values, right, counted, total):
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
