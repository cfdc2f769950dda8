"""Register tiles of dot products: both factors are read along the depth, so neither has to be packed or turned.

    dot_tile(a, a_at, a_stride, b, b_at, b_stride, depth, start, start_at, c, c_at, ldc, fresh, rows, columns)
        c[i, j] = start[j] + sum over k < depth of a[a_at + i * a_stride + k] * b[b_at + j * b_stride + k]

A tile is DOT_ROWS x DOT_COLUMNS sums, each a vector along the depth that is added up at the end. fresh False adds to
c instead of writing start + sum. Only the first `rows` of a and `columns` of b are read and stored; start is read
DOT_COLUMNS wide. Every sum has one order, whatever tile it stands in. Nothing is checked; arrays are
one-dimensional, as in tile.py.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from normcore.kernels.lowered import I32, I64, Lowered, address_of, call_small, element_of, loop, number
from normcore.kernels.tile import VECTOR_BYTES, lanes

# The sums, a vector for each line of the shorter side and one of the other fill 29 of 32 registers, or all 16.
DOT_ROWS, DOT_COLUMNS = (6, 4) if VECTOR_BYTES == 64 else (3, 4)


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
    (a, a_at, a_stride, b, b_at, b_stride, depth) = values[:7]
    (start, start_at, c, c_at, ldc, fresh, rows, columns) = values[7:]
    kinds = signature.args
    element, size = element_of(kinds[9])
    n = lanes(size)
    vector, four = ir.VectorType(element, n), ir.VectorType(element, DOT_COLUMNS)
    zero = ir.Constant(vector, [0.0] * n)

    def lines(kind: Any, array: Any, at: Any, stride: Any, count: int, valid: Any) -> list[Any]:
        """Addresses of neighbouring lines; for those past the last one, the first."""
        base, step = address_of(context, builder, kind, array, at), builder.mul(stride, number(size))
        inside = [builder.icmp_signed("<", number(i), valid) for i in range(count)]
        return [
            builder.add(base, builder.select(known, builder.mul(step, number(i)), number(0)))
            for i, known in enumerate(inside)
        ]

    lefts = lines(kinds[0], a, a_at, a_stride, DOT_ROWS, rows)
    rights = lines(kinds[3], b, b_at, b_stride, DOT_COLUMNS, columns)
    sums = [[cgutils.alloca_once_value(builder, zero) for _ in rights] for _ in lefts]
    by_right = list(zip(*sums))

    def update(offset: Any, kind: Any) -> None:
        def load(address: Any) -> Any:
            value = builder.load(
                builder.inttoptr(builder.add(address, offset), kind.as_pointer()), align=size
            )
            return value if kind is vector else builder.insert_element(zero, value, ir.Constant(I32, 0))

        few, many, totals = (lefts, rights, by_right) if DOT_ROWS < DOT_COLUMNS else (rights, lefts, sums)
        held = [load(address) for address in few]
        for address, line in zip(many, totals):
            one = load(address)
            for total, other in zip(line, held):
                product = builder.fmul(one, other, flags=("contract",))
                builder.store(builder.fadd(builder.load(total), product, flags=("contract",)), total)

    extent = builder.mul(depth, number(size))
    whole_vectors = builder.and_(extent, number(-VECTOR_BYTES))
    with loop(builder, whole_vectors, VECTOR_BYTES) as (k, _):
        update(k, vector)
    with loop(builder, builder.sub(extent, whole_vectors), size) as (k, _):
        update(builder.add(whole_vectors, k), element)

    first, target = (
        address_of(context, builder, kinds[7], start, start_at),
        address_of(context, builder, kinds[9], c, c_at),
    )
    line_step = builder.mul(ldc, number(size))
    whole = builder.and_(
        builder.icmp_signed(">=", rows, number(DOT_ROWS)),
        builder.icmp_signed(">=", columns, number(DOT_COLUMNS)),
    )
    totals = [_added_up(builder, [builder.load(total) for total in line], n) for line in sums]
    with builder.if_else(whole) as (all_of_it, part):
        with all_of_it:
            for i, total in enumerate(totals):
                place = builder.add(target, builder.mul(line_step, number(i)))
                before = builder.inttoptr(builder.select(fresh, first, place), four.as_pointer())
                value = builder.fadd(builder.load(before, align=size), total)
                builder.store(value, builder.inttoptr(place, four.as_pointer()), align=size)
        with part:
            stack = builder.ptrtoint(cgutils.alloca_once(builder, element, size=DOT_ROWS * DOT_COLUMNS), I64)
            for i, total in enumerate(totals):
                place = builder.add(stack, number(i * DOT_COLUMNS * size))
                builder.store(total, builder.inttoptr(place, four.as_pointer()), align=size)

            def edge(b: Any, arguments: Any) -> None:
                stack, first, target, line_step, fresh, rows, columns = arguments
                with loop(b, rows, 1) as (i, _), loop(b, columns, 1) as (j, _):
                    at = b.mul(j, number(size))
                    of = b.add(b.add(stack, b.mul(i, number(DOT_COLUMNS * size))), at)
                    place = b.add(b.add(target, b.mul(i, line_step)), at)
                    before = b.select(b.icmp_signed("!=", fresh, number(0)), b.add(first, at), place)
                    value = b.load(b.inttoptr(before, element.as_pointer()), align=size)
                    value = b.fadd(value, b.load(b.inttoptr(of, element.as_pointer()), align=size))
                    b.store(value, b.inttoptr(place, element.as_pointer()), align=size)

            counts = (
                builder.select(builder.icmp_signed("<", value, number(most)), value, number(most))
                for value, most in ((rows, DOT_ROWS), (columns, DOT_COLUMNS))
            )
            arguments = [stack, first, target, line_step, builder.zext(fresh, I64), *counts]
            call_small(builder, f"normcore_dot_edge_{size}", arguments, edge)


def _added_up(builder: Any, vectors: list[Any], n: int) -> Any:
    """The sums of four vectors of n elements, as one vector: neighbours meet twice, then halves."""

    def chosen(first: Any, second: Any, indices: list[int]) -> Any:
        return builder.shuffle_vector(first, second, ir.Constant(ir.VectorType(I32, len(indices)), indices))

    def neighbours(first: Any, second: Any) -> Any:
        """Sums of neighbours, of both within each 128 bits: what one instruction shuffles."""
        group = min(n, 4)
        starts = [at + g for g in range(0, n, group) for at in (0, n)]
        even = [i for g in starts for i in range(g, g + group, 2)]
        return builder.fadd(chosen(first, second, even), chosen(first, second, [i + 1 for i in even]))

    low, high = neighbours(*vectors[:2]), neighbours(*vectors[2:])
    if n == 2:
        return chosen(low, high, [0, 1, 2, 3])
    found = neighbours(low, high)
    while n > 4:
        n //= 2
        found = builder.fadd(
            chosen(found, found, list(range(n))), chosen(found, found, list(range(n, 2 * n)))
        )
    return found


def _python(a, a_at, a_stride, b, b_at, b_stride, depth, start, start_at, c, c_at, ldc, fresh, rows, columns):
    rows, columns, k = min(rows, DOT_ROWS), min(columns, DOT_COLUMNS), np.arange(depth)
    left = a[a_at + np.arange(rows)[:, None] * a_stride + k]
    right = b[b_at + np.arange(columns)[:, None] * b_stride + k]
    place = c_at + np.arange(rows)[:, None] * ldc + np.arange(columns)
    c[place] = left @ right.T + (start[start_at + np.arange(columns)] if fresh else c[place])


dot_tile = Lowered("dot_tile", "aiiaiiiaiaiibii", _python, _emit)
