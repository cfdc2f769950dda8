"""Where the largest or smallest element of a run lies.

    extreme_of_run(x, at, count, maximum)   the k < count of which x[at + k] is the first largest (smallest)

A NaN wins over every number, the last one over those before it, as in PyTorch. x: one-dimensional; count: at least 1.
Nothing is checked.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from normcore.kernels.lowered import I32, I64, Lowered, address_of, element_of, loop, number
from normcore.kernels.tile import lanes


def _emit(context: Any, b: Any, signature: Any, values: Any) -> Any:
    """Vectors first, as if there were no NaN: the extreme, then the first place that holds it. A sum tells of NaN."""
    x, at, count, maximum = values
    element, size = element_of(signature.args[0])
    n = lanes(size)
    vector, mask = ir.VectorType(element, n), ir.IntType(n)
    base = address_of(context, b, signature.args[0], x, at)
    found = cgutils.alloca_once_value(b, number(0))

    def load(i: Any, kind: Any) -> Any:
        address = b.add(base, b.mul(i, number(size)))
        return b.load(b.inttoptr(address, kind.as_pointer()), align=size)

    def beyond(value: Any, best: Any) -> Any:
        larger, smaller = b.fcmp_ordered(">", value, best), b.fcmp_ordered("<", value, best)
        return b.select(maximum, larger, smaller)

    def one_by_one() -> None:
        best = cgutils.alloca_once(b, element)
        b.store(load(number(0), element), best)
        b.store(number(0), found)
        with loop(b, count, 1) as (i, _):
            value = load(i, element)
            wins = b.or_(beyond(value, b.load(best)), b.fcmp_unordered("uno", value, value))
            b.store(b.select(wins, value, b.load(best)), best)
            b.store(b.select(wins, i, b.load(found)), found)

    def equal(place: Any, extreme: Any) -> Any:
        return b.bitcast(b.fcmp_ordered("==", load(place, vector), extreme), mask)

    def first_of(bits: Any) -> Any:
        return b.cttz(bits, ir.Constant(ir.IntType(1), 0))

    def in_vectors() -> None:
        best, total = cgutils.alloca_once(b, vector), cgutils.alloca_once(b, vector)
        last = b.sub(count, number(n))
        b.store(load(number(0), vector), best)
        b.store(load(last, vector), total)
        with loop(b, count, n) as (i, _):
            value = load(b.select(b.icmp_signed("<", i, last), i, last), vector)
            old = b.load(best)
            b.store(b.select(beyond(value, old), value, old), best)
            b.store(b.fadd(b.load(total), value), total)
        extreme, distance = b.load(best), n // 2
        while distance:
            order = [(k + distance) % n for k in range(n)]
            other = b.shuffle_vector(extreme, extreme, ir.Constant(ir.VectorType(I32, n), order))
            extreme = b.select(beyond(other, extreme), other, extreme)
            distance //= 2
        with b.if_else(b.icmp_signed("<=", count, number(64))) as (short, long):
            with short:  # one bit an element
                held = cgutils.alloca_once_value(b, number(0))
                with loop(b, count, n) as (i, _):
                    place = b.select(b.icmp_signed("<", i, last), i, last)
                    bits = b.shl(b.zext(equal(place, extreme), I64), place)
                    b.store(b.or_(b.load(held), bits), held)
                b.store(first_of(b.load(held)), found)
            with long:
                b.store(count, found)
                with loop(b, count, n) as (i, _):
                    place = b.select(b.icmp_signed("<", i, last), i, last)
                    first = b.zext(first_of(equal(place, extreme)), I64)  # n where none is
                    k = b.add(place, first)
                    better = b.and_(
                        b.icmp_signed("<", first, number(n)), b.icmp_signed("<", k, b.load(found))
                    )
                    b.store(b.select(better, k, b.load(found)), found)
        sums = b.load(total)
        odd = b.bitcast(b.fcmp_unordered("uno", sums, sums), mask)
        with b.if_then(b.icmp_unsigned("!=", odd, ir.Constant(mask, 0)), likely=False):
            one_by_one()

    with b.if_else(b.icmp_signed(">=", count, number(n))) as (wide, narrow):
        with wide:
            in_vectors()
        with narrow:
            one_by_one()
    return b.load(found)


def _python(x, at, count, maximum):  # type: ignore[no-untyped-def]
    run = x[at : at + count]
    odd = np.flatnonzero(np.isnan(run))
    if odd.size:
        return int(odd[-1])
    return int(np.argmax(run) if maximum else np.argmin(run))


extreme_of_run = Lowered("extreme_of_run", "aiib", _python, _emit, returns=lambda *_: types.intp)
