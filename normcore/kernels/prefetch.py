"""Asking for memory before it is needed, where the processor cannot guess what comes next.

    prefetch_lines(x, at, count)        the cache lines of x.reshape(-1)[at : at + count], into the second-level cache
    prefetch_once(x, at, count)         the same for what is read once: on Zen into the first level only, so that the
                                        others keep what they hold; elsewhere it is prefetch_lines

x: contiguous, of any rank. Nothing changes; an address outside x does no harm. NEXT is for kernels that take a part of
an array through two passes: while the second writes this part they ask for the next one, else memory is only read in one
pass and only written in the other (asks_for_next: where that pays).

Processors differ. Intel's (measured on two of 2024) read at half the rate what they were asked to keep in the first level
only. What reads one array to write another (streaming.py) gains a tenth to two thirds there by asking 8 KB ahead; what
reads several by turns, up to two fifths by asking 4 KB ahead, the more the longer its arithmetic takes, for memory would
stand still meanwhile. Zen asks for itself. About 16 requests are open at a time, and who makes more at once waits: what has
something to compute asks a few lines a turn.
"""

from typing import Any

from llvmlite import ir

from normcore.kernels.caches import second_level_bytes
from normcore.kernels.kernel import inline
from normcore.kernels.lowered import (
    I32,
    LINE_BYTES,
    Lowered,
    address_of,
    element_of,
    host_is_zen,
    loop,
    number,
)

SHORT = 1024  # elements of a run after which the processor does not foresee where the next one lies
AHEAD = 2048  # elements: how far ahead of what is read such runs are asked for
NEAR = 1024  # elements: the same where several arrays are read by turns
FIRST, SECOND, ONCE = 3, 2, 0  # where a line is kept, as LLVM's llvm.prefetch counts
# Elements of a part at most: two of float32 must fit the second-level cache. Of 2 MB, parts that fill more than the half
# gained nothing, or lost an eighth (two passes over x and dy of batch_norm).
NEXT = min(second_level_bytes(), 1 << 20) // 8


@inline(typed=True)
def asks_for_next(size, part):
    """Whether to ask for the next part of arrays with so many elements together: not where they lie in the caches anyway,
    nor where two parts would not fit there."""
    return part <= NEXT and size > 2 * NEXT


_BYTE = ir.IntType(8).as_pointer()
_KIND = ir.FunctionType(ir.VoidType(), [_BYTE, I32, I32, I32])


def prefetch(builder: Any, address: Any, keep: int = SECOND) -> None:
    """Emit the request for the line at an address, a 64-bit integer. The first level has few requests open at a time, and
    what asks for more waits: norms of planes were a quarter slower with it. It is for what is needed some hundred cycles
    later and lies in the second level by then."""
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE], _KIND)
    read, kept, data = (ir.Constant(I32, n) for n in (0, keep, 1))
    builder.call(fetch, [builder.inttoptr(address, _BYTE), read, kept, data])


def _emit(keep_on_zen: int, keep_elsewhere: int) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        keep = keep_on_zen if host_is_zen() else keep_elsewhere
        x, at, count = values
        _, size = element_of(signature.args[0])
        base = address_of(context, builder, signature.args[0], x, at)
        with loop(builder, builder.mul(count, number(size)), LINE_BYTES) as (i, _):
            prefetch(builder, builder.add(base, i), keep)

    return emit


def _python(x, at, count):  # type: ignore[no-untyped-def]
    """Nothing to ask for."""


prefetch_lines = Lowered("prefetch_lines", "aii", _python, _emit(SECOND, SECOND))
prefetch_once = Lowered("prefetch_once", "aii", _python, _emit(ONCE, SECOND))
