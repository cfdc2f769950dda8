"""The largest or smallest elements of windows, a vector of windows at once.

    extreme_of_window(s, at, values, taps, to, planes, rows, columns, plane_step, row_step, column_step,
                      first_tap, plane_taps, row_taps, maximum)

s holds a vector (lanes(itemsize) elements, one of each window) at every position. The window covers `planes` x `rows` x
`columns` of them from s[at] on, so many elements apart; tap numbers begin at first_tap and grow by plane_taps, row_taps
and 1. The extremes go to values[to:], the number of the first tap that holds each (of the last NaN, as PyTorch) to
taps[to:], integers as wide as the elements. Nothing is checked.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from normcore.kernels.lowered import Lowered, address_of, element_of, loop, number
from normcore.kernels.tile import lanes


def _emit(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
    s, at, values, taps, to, planes, rows, columns, *numbers, maximum = arguments
    plane_step, row_step, column_step, first_tap, plane_taps, row_taps = numbers
    element, size = element_of(signature.args[0])
    n = lanes(size)
    vector, integer = ir.VectorType(element, n), ir.IntType(8 * size)
    tap_vector = ir.VectorType(integer, n)
    base = address_of(context, builder, signature.args[0], s, at)

    def splat(value: Any) -> Any:
        single = builder.insert_element(
            ir.Constant(tap_vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n)
        return builder.shuffle_vector(single, ir.Constant(tap_vector, ir.Undefined), zeros)

    def narrow(value: Any) -> Any:
        return value if size == 8 else builder.trunc(value, integer)

    worst = builder.select(
        maximum,
        ir.Constant(vector, [float("-inf")] * n),
        ir.Constant(vector, [float("inf")] * n),
    )
    best = cgutils.alloca_once(builder, vector)
    best_tap = cgutils.alloca_once(builder, tap_vector)
    builder.store(worst, best)
    builder.store(splat(narrow(first_tap)), best_tap)
    with loop(builder, planes, 1) as (d, _), loop(builder, rows, 1) as (h, _):
        row = builder.add(builder.mul(d, plane_step), builder.mul(h, row_step))
        tap_row = builder.add(builder.mul(d, plane_taps), builder.mul(h, row_taps))
        tap_row = builder.add(first_tap, tap_row)
        with loop(builder, columns, 1) as (w, _):
            place = builder.add(row, builder.mul(w, column_step))
            address = builder.add(base, builder.mul(place, number(size)))
            value = builder.load(builder.inttoptr(address, vector.as_pointer()), align=size)
            tap = splat(narrow(builder.add(tap_row, w)))
            before = builder.load(best)
            beyond = builder.select(
                maximum,
                builder.fcmp_ordered(">", value, before),
                builder.fcmp_ordered("<", value, before),
            )
            takes = builder.or_(beyond, builder.fcmp_unordered("uno", value, value))
            builder.store(builder.select(takes, value, before), best)
            builder.store(builder.select(takes, tap, builder.load(best_tap)), best_tap)
    for array, kind, found in ((2, vector, best), (3, tap_vector, best_tap)):
        target = address_of(context, builder, signature.args[array], (values, taps)[array - 2], to)
        builder.store(builder.load(found), builder.inttoptr(target, kind.as_pointer()), align=size)


def _python(
    s, at, values, taps, to, planes, rows, columns, plane_step, row_step, column_step, first_tap, plane_taps, row_taps,
    maximum,
):  # fmt: skip
    n = lanes(s.itemsize)
    best = np.full(n, -np.inf if maximum else np.inf, s.dtype)
    tap = np.full(n, first_tap)
    for d, h, w in np.ndindex(int(planes), int(rows), int(columns)):
        place = at + d * plane_step + h * row_step + w * column_step
        value = s[place : place + n]
        takes = (value > best if maximum else value < best) | np.isnan(value)
        best = np.where(takes, value, best)
        tap = np.where(takes, first_tap + d * plane_taps + h * row_taps + w, tap)
    values[to : to + n], taps[to : to + n] = best, tap


extreme_of_window = Lowered("extreme_of_window", "aiaaiiiiiiiiiib", _python, _emit)
