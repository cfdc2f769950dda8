"""Reductions over gathered positions, all channels of a position at once: what every pooling is made of.

    pick_largest(y, arg, y_at, x, places, taps, count, channels, run, y_step, x_step, tap_step)
                                     y: the largest of x[places[t] + c], arg: its tap
    pick_smallest(...)               the same with the smallest
    sum_matching(y, y_at, x, arg, places, taps, count, channels, run, y_step, x_step, tap_step)
                                     y: the sum of x where arg is taps[t]
    sum_divided(y, y_at, x, places, weights, count, channels, run, y_step, x_step)
                                     y: the sum of x, divided by weights[0]
    sum_weighted(...)                y: the sum of x * weights[t]
    sum_squares(...)                 y: the sum of x * x, divided by weights[0]

    settle()                         after the last of them in a task

Arrays are one-dimensional; t counts terms, c channels; y_at and places are the offsets of a position's first channel.
A run of positions y_step apart is done at once; from one to the next all places move by x_step, taps by tap_step.
The first of equal values is picked, and NaN over every number. Terms are added in order, in blocks of 128, so that
the rounding error does not grow with their number. No terms make a sum of 0; a pick needs one. Nothing is checked.

In compiled kernels each is one function of vector code: a channel's terms meet in registers and every output is
written once, past the caches where it is large. The last vector overlaps the one before it, so outputs must not overlap inputs.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from normcore.kernels.lowered import I32, I64, Lowered, address_of, element_of, loop, number
from normcore.kernels.tile import lanes

GROUP = 8  # terms that are read side by side, along all channels, where there are more than UNROLLED has
TOGETHER = 4  # vectors whose accumulators stay in registers at once
LINE = 64  # bytes of a cache line
STREAMED = 1 << 24  # bytes of an output that caches will not hold until it is read: it is written past them
BLOCK = 128  # terms added before their sum joins the total


def _integers(array_type: Any) -> Any:
    return ir.IntType(array_type.dtype.bitwidth)


UNROLLED = (
    1,
    4,
    9,
)  # numbers of terms with code of their own, without a loop over them; each costs compile time


@dataclass(frozen=True)
class _Terms:
    """Those that a body adds to what y holds already; known: their number where the code is made for it, else 0."""

    known: int
    start: Any
    count: Any
    fresh: Any  # y holds nothing yet
    last: Any  # none come after them


def _call(
    builder: Any, name: str, arguments: list[Any], count: int, widest: int, body: Any, block: int = GROUP
) -> None:
    """Call a function that runs body(builder, arguments, (y, x, tap) offsets, lanes, vectors, terms) over a run's
    channels. Its arguments are addresses and numbers, from `count` on: count, channels, run, and the steps of y, x
    and, where there are any, taps. Many terms are read in groups, so that memory streams instead of being visited in
    short pieces far apart; of `block` terms where there are more than that."""
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * len(arguments)), name)
        function.linkage = "linkonce_odr"
        for attribute in ("noinline", "nounwind"):
            function.attributes.add(attribute)
        b = ir.IRBuilder(function.append_basic_block())
        terms, extent = function.args[count], function.args[count + 1]
        with b.if_then(b.icmp_signed(">=", extent, number(widest))):
            for few in UNROLLED:
                with b.if_then(b.icmp_signed("==", terms, number(few))):
                    _over_run(b, function.args, count, widest, body, block, few)
                    b.ret_void()
        width = widest
        while width >= 1:
            with b.if_then(b.icmp_signed(">=", extent, number(width))):
                _over_run(b, function.args, count, width, body, block, 0, width == widest)
                b.ret_void()
            width //= 2
        b.ret_void()
    builder.call(function, arguments)


def _over_run(
    b: Any, arguments: Any, count: int, width: int, body: Any, block: int, known: int, many: bool = True
) -> None:
    terms, extent, run, *steps, _ = arguments[count:]
    step = width * TOGETHER
    begin = b.mul(b.sdiv(extent, number(step)), number(step)) if many else number(0)
    last = b.sub(extent, number(width))

    def over_channels(y_move: Any, x_move: Any, tap_move: list[Any], some: _Terms) -> None:
        if many:
            with loop(b, begin, step) as (c, _inner):
                body(b, arguments, (b.add(y_move, c), b.add(x_move, c), *tap_move), width, TOGETHER, some)
        with loop(b, b.sub(extent, begin), width) as (k, _inner):
            c = b.add(begin, k)
            c = b.select(b.icmp_signed("<", c, last), c, last)
            body(b, arguments, (b.add(y_move, c), b.add(x_move, c), *tap_move), width, 1, some)

    with loop(b, run, 1) as (i, _):
        y_move, x_move, *tap_move = (b.mul(i, step_of) for step_of in steps)
        if known:
            yes = ir.Constant(ir.IntType(1), 1)
            some = _Terms(known, number(0), number(known), yes, yes)
            over_channels(y_move, x_move, tap_move, some)
        else:
            # A vector that overlaps the one before it must not be added to twice: then all terms are one group.
            whole = b.icmp_signed("==", b.srem(extent, number(width)), number(0))
            end = b.select(b.icmp_signed(">", terms, number(1)), terms, number(1))  # no terms make a sum, too
            size = b.select(b.icmp_signed(">", terms, number(block)), number(block), number(GROUP))
            size = b.select(whole, size, end)
            with cgutils.for_range_slice(b, number(0), end, size, intp=I64) as (start, _outer):
                rest = b.sub(terms, start)
                is_last = b.icmp_signed("<=", rest, size)
                fresh = b.icmp_signed("==", start, number(0))
                some = _Terms(0, start, b.select(is_last, rest, size), fresh, is_last)
                over_channels(y_move, x_move, tap_move, some)


def _each_term(b: Any, some: _Terms, skip: Any, emit: Any) -> None:
    """emit(t) for the terms but the first `skip`: one after the other where their number is known, else in a loop."""
    if some.known:
        for t in range(skip, some.known):
            emit(number(t))
    else:
        begin, count = b.add(some.start, skip), b.sub(some.count, skip)
        with loop(b, count, 1) as (t, _):
            emit(b.add(begin, t))


def _ahead(b: Any, arguments: Any, count: int, width: int, vectors: int) -> Any:
    """How far from a term lies what the next call of a body but for that term's neighbours reads."""
    run, x_step = arguments[count + 2], arguments[count + 4]
    return b.select(b.icmp_signed(">", run, number(1)), x_step, number(width * vectors))


class _At:
    """Vectors of one array of a function whose arguments are addresses."""

    def __init__(self, b: Any, kind: Any, size: int, width: int):
        self.b, self.size, self.width = b, size, width
        self.type = ir.VectorType(kind, width)

    def _pointer(self, base: Any, at: Any, v: int) -> Any:
        offset = self.b.mul(self.b.add(at, number(v * self.width)), number(self.size))
        return self.b.inttoptr(self.b.add(base, offset), self.type.as_pointer())

    def load(self, base: Any, at: Any, v: int) -> Any:
        return self.b.load(self._pointer(base, at, v), align=self.size)

    def store(self, value: Any, base: Any, at: Any, v: int) -> None:
        self.b.store(value, self._pointer(base, at, v), align=self.size)

    def store_past(self, values: list[Any], base: Any, at: Any, past: Any) -> None:
        """Vectors one after the other; past the caches where `past` says so and all addresses are aligned."""
        with self.b.if_else(past) as (streamed, cached):
            with streamed:
                for v, value in enumerate(values):
                    pointer = self._pointer(base, at, v)
                    stored = self.b.store(value, pointer, align=self.width * self.size)
                    one = self.b.module.add_metadata([ir.Constant(I32, 1)])
                    stored.set_metadata("nontemporal", one)
            with cached:
                for v, value in enumerate(values):
                    self.store(value, base, at, v)

    def prefetch(self, base: Any, at: Any, vectors: int) -> None:
        """The cache lines of so many vectors."""
        byte = ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, I32, I32, I32])
        fetch = self.b.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        for line in range(0, vectors * self.width * self.size, LINE):
            address = self.b.add(base, self.b.add(self.b.mul(at, number(self.size)), number(line)))
            read, keep, data = (ir.Constant(I32, n) for n in (0, 3, 1))
            self.b.call(fetch, [self.b.inttoptr(address, byte), read, keep, data])

    def splat(self, value: Any) -> Any:
        one = self.b.insert_element(
            ir.Constant(self.type, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.b.shuffle_vector(one, one, mask)


def _past_caches(context: Any, b: Any, array_type: Any, y: Any, y_at: Any, channels: Any, y_step: Any) -> Any:
    """1 where y is large and every position of it begins and ends with a cache line, else 0."""
    size = array_type.dtype.bitwidth // 8
    array = cgutils.create_struct_proxy(array_type)(context, b, value=y)
    large = b.icmp_signed(">=", array.nitems, number(STREAMED // size))
    edges = b.or_(address_of(context, b, array_type, y, y_at), b.mul(b.or_(channels, y_step), number(size)))
    aligned = b.icmp_signed("==", b.and_(edges, number(LINE - 1)), number(0))
    return b.zext(b.and_(large, aligned), I64)


def _past(b: Any, arguments: Any, some: _Terms) -> Any:
    return b.and_(b.trunc(arguments[-1], ir.IntType(1)), some.last)


def _item(b: Any, base: Any, at: Any, kind: Any, size: int) -> Any:
    return b.load(b.inttoptr(b.add(base, b.mul(at, number(size))), kind.as_pointer()), align=size)


def _variables(b: Any, kind: Any, vectors: int) -> list[Any]:
    return [cgutils.alloca_once(b, kind) for _ in range(vectors)]


def _emit_pick(order: str, name: str) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        types = signature.args
        element, size = element_of(types[0])
        arg_kind = _integers(types[1])
        arg_size = types[1].dtype.bitwidth // 8
        tap_kind = ir.IntType(8 * size)  # as wide as the values, so that one mask serves both

        def body(b: Any, arguments: Any, moves: Any, width: int, vectors: int, some: _Terms) -> None:
            y, arg, y_at, x, places, taps = arguments[:6]
            to, of, tap_move = moves
            data, kept = _At(b, element, size, width), _At(b, arg_kind, arg_size, width)
            tapped = _At(b, tap_kind, size, width)
            best, tap = _variables(b, data.type, vectors), _variables(b, tapped.type, vectors)
            ahead = _ahead(b, arguments, 6, width, vectors)

            def term(t: Any) -> tuple[Any, Any]:
                number_of = b.add(_item(b, taps, t, I64, 8), tap_move)
                if size < 8:
                    number_of = b.trunc(number_of, tap_kind)
                at = b.add(_item(b, places, t, I64, 8), of)
                data.prefetch(x, b.add(at, ahead), vectors)
                return at, tapped.splat(number_of)

            to = b.add(y_at, to)
            at, first = term(some.start)
            for v in range(vectors):
                value, number_of = data.load(x, at, v), first
                if not some.known:
                    held = kept.load(arg, to, v)
                    held = b.zext(held, tapped.type) if arg_size < size else held
                    value = b.select(some.fresh, value, data.load(y, to, v))
                    number_of = b.select(some.fresh, first, held)
                b.store(value, best[v])
                b.store(number_of, tap[v])

            def compare(t: Any) -> None:
                at, now = term(t)
                for v in range(vectors):
                    value, old = data.load(x, at, v), b.load(best[v])
                    wins = b.or_(b.fcmp_ordered(order, value, old), b.fcmp_unordered("uno", value, value))
                    b.store(b.select(wins, value, old), best[v])
                    b.store(b.select(wins, now, b.load(tap[v])), tap[v])

            _each_term(b, some, 1 if some.known else b.zext(some.fresh, I64), compare)
            data.store_past([b.load(best[v]) for v in range(vectors)], y, to, _past(b, arguments, some))
            for v in range(vectors):
                found = b.load(tap[v])
                kept.store(b.trunc(found, kept.type) if arg_size < size else found, arg, to, v)

        y, arg, y_at, x, places, taps = values[:6]
        past = _past_caches(context, builder, types[0], y, y_at, values[7], values[9])
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
        _call(builder, f"normcore_{name}_{size}_{arg_size}", arguments, 6, lanes(size), body)

    return emit


def _emit_matching(context: Any, builder: Any, signature: Any, values: Any) -> None:
    types = signature.args
    element, size = element_of(types[0])
    arg_kind, arg_size = _integers(types[3]), types[3].dtype.bitwidth // 8

    def body(b: Any, arguments: Any, moves: Any, width: int, vectors: int, some: _Terms) -> None:
        y, y_at, x, arg, places, taps = arguments[:6]
        to, of, tap_move = moves
        data, kept = _At(b, element, size, width), _At(b, arg_kind, arg_size, width)
        zero = ir.Constant(data.type, [0.0] * width)
        total = _variables(b, data.type, vectors)
        to = b.add(y_at, to)
        for v in range(vectors):
            b.store(zero if some.known else b.select(some.fresh, zero, data.load(y, to, v)), total[v])

        def add(t: Any) -> None:
            at = b.add(_item(b, places, t, I64, 8), of)
            wanted = kept.splat(b.trunc(b.add(_item(b, taps, t, I64, 8), tap_move), arg_kind))
            for v in range(vectors):
                match = b.icmp_unsigned("==", kept.load(arg, at, v), wanted)
                part = b.select(match, data.load(x, at, v), zero)
                b.store(b.fadd(b.load(total[v]), part), total[v])

        _each_term(b, some, 0 if some.known else number(0), add)
        data.store_past([b.load(total[v]) for v in range(vectors)], y, to, _past(b, arguments, some))

    y, y_at, x, arg, places, taps = values[:6]
    past = _past_caches(context, builder, types[0], y, y_at, values[7], values[9])
    zero = number(0)
    arguments = [
        address_of(context, builder, types[0], y, zero),
        y_at,
        address_of(context, builder, types[2], x, zero),
        address_of(context, builder, types[3], arg, zero),
        address_of(context, builder, types[4], places, zero),
        address_of(context, builder, types[5], taps, zero),
        *values[6:],
        past,
    ]
    _call(builder, f"normcore_sum_matching_{size}_{arg_size}", arguments, 6, lanes(size), body)


def _emit_sum(weighted: bool, name: str, squared: bool = False) -> Any:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        types = signature.args
        element, size = element_of(types[0])

        def body(b: Any, arguments: Any, moves: Any, width: int, vectors: int, some: _Terms) -> None:
            y, y_at, x, places, weights, count = arguments[:6]
            to, of = b.add(y_at, moves[0]), moves[1]
            data = _At(b, element, size, width)
            zero = ir.Constant(data.type, [0.0] * width)
            total, block = _variables(b, data.type, vectors), _variables(b, data.type, vectors)
            ahead = _ahead(b, arguments, 5, width, vectors)
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
                at = b.add(_item(b, places, t, I64, 8), of)
                data.prefetch(x, b.add(at, ahead), vectors)
                weight = data.splat(_item(b, weights, t, element, size)) if weighted else None
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
                _each_term(b, some, 0, add)
                add_block()
            else:
                with loop(b, some.count, BLOCK) as (start, _outer):
                    rest = b.sub(some.count, start)
                    whole = b.icmp_signed(">", rest, number(BLOCK))
                    part = b.select(whole, number(BLOCK), rest)
                    _each_term(b, replace(some, start=b.add(some.start, start), count=part), number(0), add)
                    add_block()
            results = []
            for v in range(vectors):
                value = b.load(total[v])
                if not weighted:
                    divided = b.fdiv(value, data.splat(_item(b, weights, number(0), element, size)))
                    value = divided if some.known else b.select(some.last, divided, value)
                results.append(value)
            data.store_past(results, y, to, _past(b, arguments, some))

        y, y_at, x, places, weights = values[:5]
        past = _past_caches(context, builder, types[0], y, y_at, values[6], values[8])
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
        _call(builder, f"normcore_{name}_{size}", arguments, 5, lanes(size), body, BLOCK)

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


def _python_sum(weighted: bool, squared: bool = False) -> Any:
    def add(y, y_at, x, places, weights, count, channels, run, y_step, x_step):
        to, of = _moves(channels, run, y_step, x_step)
        total = np.zeros(of.shape, y.dtype)
        for start in range(0, count, BLOCK):
            block = np.zeros(of.shape, y.dtype)
            for t in range(start, min(count, start + BLOCK)):
                value = x[places[t] + of]
                block += value * (weights[t] if weighted else value if squared else 1)
            total += block
        y[y_at + to] = total if weighted else total / weights[0]

    add.__doc__ = "The sum of the gathered values (or their squares), weighted or divided, for each channel."
    return add


def _emit_settle(context: Any, builder: Any, signature: Any, values: Any) -> None:
    builder.fence("seq_cst")


def _python_settle():
    """Outputs written past the caches become visible to other threads."""


settle = Lowered("settle", "", _python_settle, _emit_settle)
pick_largest = Lowered(
    "pick_largest", "aaiaaaiiiiii", _python_pick(np.greater), _emit_pick(">", "pick_largest")
)
pick_smallest = Lowered(
    "pick_smallest", "aaiaaaiiiiii", _python_pick(np.less), _emit_pick("<", "pick_smallest")
)
sum_matching = Lowered("sum_matching", "aiaaaaiiiiii", _python_matching, _emit_matching)
sum_divided = Lowered("sum_divided", "aiaaaiiiii", _python_sum(False), _emit_sum(False, "sum_divided"))
sum_weighted = Lowered("sum_weighted", "aiaaaiiiii", _python_sum(True), _emit_sum(True, "sum_weighted"))
sum_squares = Lowered(
    "sum_squares", "aiaaaiiiii", _python_sum(False, True), _emit_sum(False, "sum_squares", True)
)
