"""Reductions over gathered positions, all channels of a position at once: what every pooling is made of.

    pick_largest(y, arg, y_at, x, places, taps, count, channels, run, y_step, x_step, tap_step)
                                     y: the largest of x[places[t] + c], arg: its tap
    pick_smallest(...)               the same with the smallest
    sum_matching(y, y_at, x, arg, places, taps, count, channels, run, y_step, x_step, tap_step)
                                     y: the sum of x where arg is taps[t]
    sum_shared(y, y_at, x, arg, places, taps, weights, count, channels, run, y_step, x_step, tap_step)
                                     y: the sum of x * weights[0] where arg is taps[t], of x * weights[1] elsewhere
    sum_divided(y, y_at, x, places, weights, count, channels, run, y_step, x_step)
                                     y: the sum of x, divided by weights[0]
    sum_weighted(...)                y: the sum of x * weights[t]
    sum_squares(...)                 y: the sum of x * x, divided by weights[0]
    sum_scaled(...)                  y: the sum of x, times weights at y's own place

Arrays are one-dimensional; t counts terms, c channels; y_at and places are the offsets of a position's first channel.
A run of positions y_step apart is done at once; from one to the next all places move by x_step, taps by tap_step.
The first of equal values is picked, and NaN over every number. Terms are added in order, in blocks of 128, so that
the rounding error does not grow with their number. No terms make a sum of 0; a pick needs one. Nothing is checked.

In compiled kernels each is one function of vector code: a channel's terms meet in registers and every output is
written once, past the caches where it is large (picks: PICKS_PAST_CACHES). The last vector overlaps the one before
it, so outputs must not overlap inputs.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from llvmlite import ir

from normcore.kernels.gather_code import (
    At,
    Terms,
    ahead_of,
    call,
    each_term,
    far_of,
    integers,
    item,
    past_caches,
    past_of,
    variables,
)
from normcore.kernels.lowered import I64, LINE_BYTES, Lowered, address_of, element_of, loop, number
from normcore.kernels.tile import VECTOR_BYTES, lanes

MANY = 9  # terms whose NaN is looked for once, after a quicker comparison; code for both costs compile time
# Two stores around the caches, then two ordinary ones of taps, over and over, by two cores at once: on a Zen 3 that takes
# three times as long as ordinary stores alone, while either core alone or without taps gains by it. Processors with 512-bit
# vectors, whose taps fill a line, gain.
PICKS_PAST_CACHES = VECTOR_BYTES == LINE_BYTES
BLOCK = 128  # terms added before their sum joins the total


def _emit_pick(order: str, name: str) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        types = signature.args
        element, size = element_of(types[0])
        arg_kind = integers(types[1])
        arg_size = types[1].dtype.bitwidth // 8
        tap_kind = ir.IntType(8 * size)  # as wide as the values, so that one mask serves both

        def body(b: Any, arguments: Any, moves: Any, width: int, vectors: int, some: Terms) -> None:
            y, arg, y_at, x, places, taps = arguments[:6]
            to, of, tap_move = moves
            data, kept = At(b, element, size, width), At(b, arg_kind, arg_size, width)
            tapped = At(b, tap_kind, size, width)
            best, tap = variables(b, data.type, vectors), variables(b, tapped.type, vectors)
            ahead = ahead_of(b, arguments, 6, width, vectors, size)

            def narrow(value: Any) -> Any:
                return b.trunc(value, tap_kind) if size < 8 else value

            def term(t: Any) -> tuple[Any, Any]:
                """Where its values lie, and its tap but for how far the run has moved it."""
                tap_of = some.taps[t] if some.known else item(b, taps, t, I64, 8)
                at = b.add(item(b, places, t, I64, 8), of)
                data.prefetch(x, b.add(at, ahead), vectors)
                return at, tapped.splat(narrow(tap_of))

            moved = tapped.splat(narrow(tap_move))

            to = b.add(y_at, to)
            at, first = term(0 if some.known else some.start)
            for v in range(vectors):
                value, number_of = data.load(x, at, v), first
                if not some.known:
                    held = kept.load(arg, to, v)
                    held = b.sub(b.zext(held, tapped.type) if arg_size < size else held, moved)
                    value = b.select(some.fresh, value, data.load(y, to, v))
                    number_of = b.select(some.fresh, first, held)
                b.store(value, best[v])
                b.store(number_of, tap[v])

            def compare(t: Any) -> None:
                """Without NaN."""
                at, now = term(t)
                for v in range(vectors):
                    value, old = data.load(x, at, v), b.load(best[v])
                    wins = b.fcmp_ordered(order, value, old)
                    b.store(b.select(wins, value, old), best[v])
                    b.store(b.select(wins, now, b.load(tap[v])), tap[v])
                    b.store(b.fadd(b.load(seen[v]), value), seen[v])

            def compare_all(t: Any) -> None:
                at, now = term(t)
                for v in range(vectors):
                    value, old = data.load(x, at, v), b.load(best[v])
                    wins = b.or_(b.fcmp_ordered(order, value, old), b.fcmp_unordered("uno", value, value))
                    b.store(b.select(wins, value, old), best[v])
                    b.store(b.select(wins, now, b.load(tap[v])), tap[v])

            skip = 1 if some.known else b.zext(some.fresh, I64)
            if some.known >= MANY:
                seen = variables(b, data.type, vectors)
                for v in range(vectors):
                    b.store(b.load(best[v]), seen[v])
                each_term(b, some, skip, compare)
                total = b.load(seen[0])
                for v in range(1, vectors):
                    total = b.fadd(total, b.load(seen[v]))
                odd = b.fcmp_unordered("uno", total, total)
                odd = b.icmp_unsigned(
                    "!=", b.bitcast(odd, ir.IntType(width)), ir.Constant(ir.IntType(width), 0)
                )
                with b.if_then(odd, likely=False):
                    at, first = term(0)
                    for v in range(vectors):
                        b.store(data.load(x, at, v), best[v])
                        b.store(first, tap[v])
                    each_term(b, some, skip, compare_all)
            else:
                each_term(b, some, skip, compare_all)
            data.store_past([b.load(best[v]) for v in range(vectors)], y, to, past_of(b, arguments, some))
            for v in range(vectors):
                found = b.add(b.load(tap[v]), moved)
                kept.store(b.trunc(found, kept.type) if arg_size < size else found, arg, to, v)

        y, arg, y_at, x, places, taps = values[:6]
        past = number(0)
        if PICKS_PAST_CACHES:
            past = past_caches(context, builder, types[0], y, y_at, values[7], values[9])
        zero = number(0)
        arguments = [
            address_of(context, builder, types[0], y, zero),
            address_of(context, builder, types[1], arg, zero),
            y_at,
            address_of(context, builder, types[3], x, zero),
            address_of(context, builder, types[4], places, zero),
            address_of(context, builder, types[5], taps, zero),
            *values[6:],
            past,
        ]
        call(builder, f"normcore_{name}_{size}_{arg_size}", arguments, 6, lanes(size), body, taps=5)

    return emit


def _emit_matching(shared: bool, name: str) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        types = signature.args
        element, size = element_of(types[0])
        head = 7 if shared else 6  # arrays and numbers before the count
        arg_kind, arg_size = integers(types[3]), types[3].dtype.bitwidth // 8

        def body(b: Any, arguments: Any, moves: Any, width: int, vectors: int, some: Terms) -> None:
            y, y_at, x, arg, places, taps, *weights = arguments[:head]
            to, of, tap_move = moves
            data, kept = At(b, element, size, width), At(b, arg_kind, arg_size, width)
            zero = ir.Constant(data.type, [0.0] * width)
            moved = kept.splat(b.trunc(tap_move, arg_kind))
            total = variables(b, data.type, vectors)
            ahead = far_of(b, arguments, head, size)
            shares = [data.splat(item(b, weights[0], number(k), element, size)) for k in (0, 1) if shared]
            to = b.add(y_at, to)
            for v in range(vectors):
                b.store(zero if some.known else b.select(some.fresh, zero, data.load(y, to, v)), total[v])

            def add(t: Any) -> None:
                at = b.add(item(b, places, t, I64, 8), of)
                if not some.known or t == some.known - 1:  # the others were read for the rows before
                    data.prefetch(x, b.add(at, ahead), vectors)
                tap_of = some.taps[t] if some.known else item(b, taps, t, I64, 8)
                wanted = b.add(kept.splat(b.trunc(tap_of, arg_kind)), moved)
                for v in range(vectors):
                    match = b.icmp_unsigned("==", kept.load(arg, at, v), wanted)
                    value = data.load(x, at, v)
                    if shared:
                        part = b.fmul(value, b.select(match, *shares), flags=["contract"])
                    else:
                        part = b.select(match, value, zero)
                    b.store(b.fadd(b.load(total[v]), part, flags=["contract"]), total[v])

            each_term(b, some, 0 if some.known else number(0), add)
            data.store_past([b.load(total[v]) for v in range(vectors)], y, to, past_of(b, arguments, some))

        y, y_at, x, arg, places, taps, *weights = values[:head]
        past = past_caches(context, builder, types[0], y, y_at, values[head + 1], values[head + 3])
        zero = number(0)
        arguments = [
            address_of(context, builder, types[0], y, zero),
            y_at,
            address_of(context, builder, types[2], x, zero),
            address_of(context, builder, types[3], arg, zero),
            address_of(context, builder, types[4], places, zero),
            address_of(context, builder, types[5], taps, zero),
            *(address_of(context, builder, types[6], w, zero) for w in weights),
            *values[head:],
            past,
        ]
        call(builder, f"normcore_{name}_{size}_{arg_size}", arguments, head, lanes(size), body, taps=5)

    return emit


def _emit_sum(name: str, weighted: bool = False, squared: bool = False, scaled: bool = False) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        types = signature.args
        element, size = element_of(types[0])

        def body(b: Any, arguments: Any, moves: Any, width: int, vectors: int, some: Terms) -> None:
            y, y_at, x, places, weights, count = arguments[:6]
            to, of = b.add(y_at, moves[0]), moves[1]
            data = At(b, element, size, width)
            zero = ir.Constant(data.type, [0.0] * width)
            total, block = variables(b, data.type, vectors), variables(b, data.type, vectors)
            ahead = ahead_of(b, arguments, 5, width, vectors, size)
            for v in range(vectors):
                if not some.known:  # up to BLOCK terms go on with the sum, further blocks are added to it
                    prior = b.select(some.fresh, zero, data.load(y, to, v))
                    single = b.icmp_signed("<=", count, number(BLOCK))
                    b.store(b.select(single, zero, prior), total[v])
                    b.store(b.select(single, prior, zero), block[v])
                else:
                    b.store(zero, total[v])
                    b.store(zero, block[v])

            def add(t: Any) -> None:
                at = b.add(item(b, places, t, I64, 8), of)
                data.prefetch(x, b.add(at, ahead), vectors)
                weight = data.splat(item(b, weights, t, element, size)) if weighted else None
                for v in range(vectors):
                    value = data.load(x, at, v)
                    if weighted:
                        value = b.fmul(value, weight, flags=["contract"])
                    if squared:
                        value = b.fmul(value, value, flags=["contract"])
                    b.store(b.fadd(b.load(block[v]), value, flags=["contract"]), block[v])

            def add_block() -> None:
                for v in range(vectors):
                    b.store(b.fadd(b.load(total[v]), b.load(block[v])), total[v])
                    b.store(zero, block[v])

            if some.known:
                each_term(b, some, 0, add)
                add_block()
            else:
                with loop(b, some.count, BLOCK) as (start, _outer):
                    rest = b.sub(some.count, start)
                    whole = b.icmp_signed(">", rest, number(BLOCK))
                    part = b.select(whole, number(BLOCK), rest)
                    each_term(b, replace(some, start=b.add(some.start, start), count=part), number(0), add)
                    add_block()
            results = []
            for v in range(vectors):
                value = b.load(total[v])
                if not weighted:
                    if scaled:
                        whole = b.fmul(value, data.load(weights, to, v))
                    else:
                        whole = b.fdiv(value, data.splat(item(b, weights, number(0), element, size)))
                    value = whole if some.known else b.select(some.last, whole, value)
                results.append(value)
            data.store_past(results, y, to, past_of(b, arguments, some))

        y, y_at, x, places, weights = values[:5]
        past = past_caches(context, builder, types[0], y, y_at, values[6], values[8])
        zero = number(0)
        arguments = [
            address_of(context, builder, types[0], y, zero),
            y_at,
            address_of(context, builder, types[2], x, zero),
            address_of(context, builder, types[3], places, zero),
            address_of(context, builder, types[4], weights, zero),
            *values[5:],
            past,
        ]
        call(builder, f"normcore_{name}_{size}", arguments, 5, lanes(size), body, BLOCK)

    return emit


def _moves(channels: int, run: int, y_step: int, x_step: int) -> Any:
    """Offsets from y_at and from a place, of every channel of every position of a run."""
    i, c = np.arange(run)[:, None], np.arange(channels)
    return i * y_step + c, i * x_step + c


def _python_pick(better: Any) -> Any:
    def pick(y, arg, y_at, x, places, taps, count, channels, run, y_step, x_step, tap_step):
        to, of = _moves(channels, run, y_step, x_step)
        moved = np.arange(run)[:, None] * tap_step
        best, tap = x[places[0] + of], np.zeros_like(of) + (taps[0] + moved)
        for t in range(1, count):
            value = x[places[t] + of]
            wins = better(value, best) | (value != value)
            best, tap = np.where(wins, value, best), np.where(wins, taps[t] + moved, tap)
        y[y_at + to], arg[y_at + to] = best, tap

    pick.__doc__ = "The largest (or smallest) of the gathered values and its tap, for each channel."
    return pick


def _python_matching(y, y_at, x, arg, places, taps, count, channels, run, y_step, x_step, tap_step):
    to, of = _moves(channels, run, y_step, x_step)
    moved = np.arange(run)[:, None] * tap_step
    total = np.zeros(of.shape, y.dtype)
    for t in range(count):
        total += np.where(arg[places[t] + of] == taps[t] + moved, x[places[t] + of], 0)
    y[y_at + to] = total


def _python_shared(y, y_at, x, arg, places, taps, weights, count, channels, run, y_step, x_step, tap_step):
    to, of = _moves(channels, run, y_step, x_step)
    moved = np.arange(run)[:, None] * tap_step
    total = np.zeros(of.shape, y.dtype)
    for t in range(count):
        match = arg[places[t] + of] == taps[t] + moved
        total += x[places[t] + of] * np.where(match, weights[0], weights[1])
    y[y_at + to] = total


def _python_sum(weighted: bool = False, squared: bool = False, scaled: bool = False) -> Any:
    def add(y, y_at, x, places, weights, count, channels, run, y_step, x_step):
        to, of = _moves(channels, run, y_step, x_step)
        total = np.zeros(of.shape, y.dtype)
        for start in range(0, count, BLOCK):
            block = np.zeros(of.shape, y.dtype)
            for t in range(start, min(count, start + BLOCK)):
                value = x[places[t] + of]
                block += value * (weights[t] if weighted else value if squared else 1)
            total += block
        y[y_at + to] = total if weighted else total * weights[y_at + to] if scaled else total / weights[0]

    add.__doc__ = (
        "The sum of the gathered values (or squares), weighted, divided or scaled, for each channel."
    )
    return add


pick_largest = Lowered(
    "pick_largest", "aaiaaaiiiiii", _python_pick(np.greater), _emit_pick(">", "pick_largest")
)
pick_smallest = Lowered(
    "pick_smallest", "aaiaaaiiiiii", _python_pick(np.less), _emit_pick("<", "pick_smallest")
)
sum_matching = Lowered(
    "sum_matching", "aiaaaaiiiiii", _python_matching, _emit_matching(False, "sum_matching")
)
sum_shared = Lowered("sum_shared", "aiaaaaaiiiiii", _python_shared, _emit_matching(True, "sum_shared"))
sum_divided = Lowered("sum_divided", "aiaaaiiiii", _python_sum(), _emit_sum("sum_divided"))
sum_weighted = Lowered(
    "sum_weighted", "aiaaaiiiii", _python_sum(weighted=True), _emit_sum("sum_weighted", weighted=True)
)
sum_squares = Lowered(
    "sum_squares", "aiaaaiiiii", _python_sum(squared=True), _emit_sum("sum_squares", squared=True)
)
sum_scaled = Lowered(
    "sum_scaled", "aiaaaiiiii", _python_sum(scaled=True), _emit_sum("sum_scaled", scaled=True)
)
