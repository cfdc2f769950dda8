"""Loops that take one cache line of each array a turn.

LLVM makes four vectors a turn of a short loop, which on 512-bit processors are four lines of each array. Where a loop
only streams two arrays or more through memory that is slower: 10 % at 37 MB each, a quarter to a third at 6 MB.

    for i in range(y.size):
        y[i] = a[i] * b[i]
        line_by_line()  # the last statement of the loop's body

Nothing else changes; a loop that sums wants its four partial sums and must not say this.
"""

from typing import Any

from llvmlite import ir

from normcore.kernels.lowered import I32, LINE_BYTES, Lowered
from normcore.kernels.tile import VECTOR_BYTES


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
    module = builder.module
    vectors = ir.Constant(I32, max(1, LINE_BYTES // VECTOR_BYTES))
    # A short loop of known length would be unrolled, and not vectorized.
    stay_rolled(builder, module.add_metadata(["llvm.loop.interleave.count", vectors]))


def stay_rolled(builder: Any, *wishes: Any) -> None:
    """Marks the next jump, which is the one back to a loop's head: not to be unrolled, and what else is wished for."""
    module, branch = builder.module, builder.branch

    def marked(target: Any) -> Any:
        del builder.branch
        jump = branch(target)
        rolled = module.add_metadata(["llvm.loop.unroll.disable"])
        loop = ir.MDValue(module, [rolled], str(len(module.metadata)))
        loop.operands = (loop, *wishes, rolled)  # a loop's identity: its first operand is itself
        jump.set_metadata("llvm.loop", loop)
        return jump

    builder.branch = marked


def _python() -> None:
    """Plain Python takes one element a turn."""


line_by_line = Lowered("line_by_line", "", _python, _emit)
