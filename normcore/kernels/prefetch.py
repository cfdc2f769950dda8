"""Asking for memory before it is needed, where the processor cannot guess what comes next.

    prefetch_lines(x, at, count)        the cache lines of x[at : at + count]

x: one-dimensional. Nothing changes; an address outside x does no harm.
"""

from typing import Any

from llvmlite import ir

from normcore.kernels.lowered import I32, Lowered, address_of, element_of, loop, number
from normcore.kernels.streaming import LINE_BYTES

_BYTE = ir.IntType(8).as_pointer()
_KIND = ir.FunctionType(ir.VoidType(), [_BYTE, I32, I32, I32])


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
    x, at, count = values
    _, size = element_of(signature.args[0])
    fetch = builder.module.declare_intrinsic("llvm.prefetch", [_BYTE], _KIND)
    base = address_of(context, builder, signature.args[0], x, at)
    read, keep, data = (ir.Constant(I32, n) for n in (0, 3, 1))
    with loop(builder, builder.mul(count, number(size)), LINE_BYTES) as (i, _):
        builder.call(fetch, [builder.inttoptr(builder.add(base, i), _BYTE), read, keep, data])


def _python(x, at, count):  # type: ignore[no-untyped-def]
    """Nothing to ask for."""


prefetch_lines = Lowered("prefetch_lines", "aii", _python, _emit)
