"""Every second, third or fourth element of a run, in vectors.

    copy_every(target, target_at, source, source_at, step, count)   target[target_at + i] = source[source_at + i * step]

LLVM gathers such elements one by one. Here a vector of them is picked from `step` vectors of the source, the last of which
ends with the last element, so that nothing behind it is read; the last vector of a run lies over the one before. Runs
shorter than a vector, and steps above 4, go element by element. One-dimensional arrays, nothing is checked.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from normcore.kernels.lowered import I32, Lowered, address_of, call_small, element_of, loop, number
from normcore.kernels.tile import lanes

WIDEST = 4  # steps: beyond, most of what would be loaded is not wanted


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, target_at, source, source_at, step, count = values
    element, size = element_of(signature.args[0])
    n = lanes(size)

    def at(b: Any, base: Any, elements: Any, kind: Any) -> Any:
        return b.inttoptr(b.add(base, b.mul(elements, number(size))), kind.as_pointer())

    def pick(b: Any, base: Any, first: Any, apart: int) -> Any:
        """Elements first, first + apart, .. of a vector. Part j of the source begins at starts[j]."""
        vector = ir.VectorType(element, n)
        starts = [min(j * n, (n - 1) * apart + 1 - n) for j in range(apart)]
        picked = ir.Constant(vector, ir.Undefined)
        for j, start in enumerate(starts):
            part = b.load(at(b, base, b.add(first, number(start)), vector), align=size)
            mask = [i if i * apart < j * n else n + i * apart - start for i in range(n)]
            mask = [k if k < 2 * n else 0 for k in mask]  # of a later part
            picked = b.shuffle_vector(picked, part, ir.Constant(ir.VectorType(I32, n), mask))
        return picked

    def emit(b: Any, arguments: Any) -> None:
        to, of, apart, extent = arguments
        long = b.icmp_signed(">=", extent, number(n))
        for known in range(1, WIDEST + 1):
            with b.if_then(b.and_(long, b.icmp_signed("==", apart, number(known)))):
                last = b.sub(extent, number(n))
                with loop(b, extent, n) as (i, _):
                    i = b.select(b.icmp_signed("<", i, last), i, last)
                    picked = pick(b, of, b.mul(i, apart), known)
                    b.store(picked, at(b, to, i, picked.type), align=size)
        few = b.or_(b.not_(long), b.icmp_signed(">", apart, number(WIDEST)))
        with b.if_then(few), loop(b, extent, 1) as (i, _):
            value = b.load(at(b, of, b.mul(i, apart), element), align=size)
            b.store(value, at(b, to, i, element), align=size)

    to = address_of(context, builder, signature.args[0], target, target_at)
    of = address_of(context, builder, signature.args[2], source, source_at)
    call_small(builder, f"normcore_copy_every_{size}", [to, of, step, count], emit)


def _python(target, target_at, source, source_at, step, count):  # type: ignore[no-untyped-def]
    i = np.arange(count)
    target[target_at + i] = source[source_at + i * step]


copy_every = Lowered("copy_every", "aiaiii", _python, _emit)
