"""The code that gather.py's reductions are made of: vectors of channels, terms read side by side, runs of positions."""

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from normcore.kernels.lowered import I64, LINE_BYTES, address_of, loop, number
from normcore.kernels.prefetch import FIRST, prefetch
from normcore.kernels.streaming import STREAM_BYTES, around_caches

GROUP = 8  # terms that are read side by side, along all channels, where there are more than UNROLLED has
TOGETHER = 4  # vectors whose accumulators stay in registers at once
PAIR = 2  # those left of a position of 32 channels, for instance
FETCHED = 3072  # bytes of a row between what is read and what is asked for: one window takes less time than memory does
UNROLLED = (1, 2, 4, 9)  # numbers of terms with code of their own, without a loop; each costs compile time


def integers(array_type: Any) -> Any:
    return ir.IntType(array_type.dtype.bitwidth)


@dataclass(frozen=True)
class Terms:
    """Those that a body adds to what y holds already; known: their number where the code is made for it, else 0."""

    known: int
    start: Any
    count: Any
    fresh: Any  # y holds nothing yet
    last: Any  # none come after them
    taps: tuple[Any, ...] = ()  # of known terms, read before the loops, which stores keep LLVM from doing


def call(
    builder: Any,
    name: str,
    arguments: list[Any],
    count: int,
    widest: int,
    body: Any,
    block: int = GROUP,
    taps: int | None = None,
) -> None:
    """Call a function that runs body(builder, arguments, (y, x, tap) offsets, lanes, vectors, terms) over a run's
    channels. Its arguments are addresses and numbers, from `count` on: count, channels, run, and the steps of y, x
    and, where there are any, taps, whose table is argument `taps`. Many terms are read in groups, so that memory
    streams instead of being visited in short pieces far apart; of `block` terms where there are more than that."""
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
                    _over_run(b, function.args, count, widest, body, block, few, taps=taps)
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
    b: Any,
    arguments: Any,
    count: int,
    width: int,
    body: Any,
    block: int,
    known: int,
    many: bool = True,
    taps: int | None = None,
) -> None:
    terms, extent, run, *steps, _ = arguments[count:]
    step = width * TOGETHER
    begin = b.mul(b.sdiv(extent, number(step)), number(step)) if many else number(0)
    last = b.sub(extent, number(width))
    found = () if taps is None else tuple(item(b, arguments[taps], number(t), I64, 8) for t in range(known))

    def over_channels(y_move: Any, x_move: Any, tap_move: list[Any], some: Terms) -> None:
        if many:
            with loop(b, begin, step) as (c, _inner):
                body(b, arguments, (b.add(y_move, c), b.add(x_move, c), *tap_move), width, TOGETHER, some)
        rest = b.sub(extent, begin)
        if many:
            with b.if_else(b.icmp_signed("==", rest, number(PAIR * width))) as (pair, single):
                with pair:
                    body(
                        b,
                        arguments,
                        (b.add(y_move, begin), b.add(x_move, begin), *tap_move),
                        width,
                        PAIR,
                        some,
                    )
                with single:
                    one_by_one(y_move, x_move, tap_move, some, rest)
        else:
            one_by_one(y_move, x_move, tap_move, some, rest)

    def one_by_one(y_move: Any, x_move: Any, tap_move: list[Any], some: Terms, rest: Any) -> None:
        with loop(b, rest, width) as (k, _inner):
            c = b.add(begin, k)
            c = b.select(b.icmp_signed("<", c, last), c, last)
            body(b, arguments, (b.add(y_move, c), b.add(x_move, c), *tap_move), width, 1, some)

    with loop(b, run, 1) as (i, _):
        y_move, x_move, *tap_move = (b.mul(i, step_of) for step_of in steps)
        if known:
            yes = ir.Constant(ir.IntType(1), 1)
            some = Terms(known, number(0), number(known), yes, yes, found)
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
                some = Terms(0, start, b.select(is_last, rest, size), fresh, is_last)
                over_channels(y_move, x_move, tap_move, some)


def each_term(b: Any, some: Terms, skip: Any, emit: Any) -> None:
    """emit(t) for the terms but the first `skip`: one after the other where their number is known, t an int, else in a
    loop."""
    if some.known:
        for t in range(skip, some.known):
            emit(t)
    else:
        begin, count = b.add(some.start, skip), b.sub(some.count, skip)
        with loop(b, count, 1) as (t, _):
            emit(b.add(begin, t))


def ahead_of(b: Any, arguments: Any, count: int, width: int, vectors: int, size: int) -> Any:
    """How far from a term lies what to ask for: of the position in the run that lies FETCHED or more away, or of the next
    channels where there is no run."""
    run, x_step = arguments[count + 2], arguments[count + 4]
    step = b.select(b.icmp_signed(">", x_step, number(0)), x_step, number(1))
    positions = b.sdiv(b.add(step, number(FETCHED // size - 1)), step)
    return b.select(b.icmp_signed(">", run, number(1)), b.mul(step, positions), number(width * vectors))


def far_of(b: Any, arguments: Any, count: int, size: int) -> Any:
    """The same without a division, for runs of few vectors."""
    x_step, far = arguments[count + 4], number(FETCHED // size)
    return b.select(b.icmp_signed(">", x_step, far), x_step, far)


class At:
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
                    around_caches(self.b, self.b.store(value, pointer, align=self.width * self.size))
            with cached:
                for v, value in enumerate(values):
                    self.store(value, base, at, v)

    def prefetch(self, base: Any, at: Any, vectors: int) -> None:
        """The cache lines of so many vectors, into the first level."""
        for line in range(0, vectors * self.width * self.size, LINE_BYTES):
            offset = self.b.add(self.b.mul(at, number(self.size)), number(line))
            prefetch(self.b, self.b.add(base, offset), FIRST)

    def splat(self, value: Any) -> Any:
        one = self.b.insert_element(
            ir.Constant(self.type, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.width), [0] * self.width)
        return self.b.shuffle_vector(one, one, mask)


def past_caches(context: Any, b: Any, array_type: Any, y: Any, y_at: Any, channels: Any, y_step: Any) -> Any:
    """1 where y is large and every position of it begins and ends with a cache line, else 0."""
    size = array_type.dtype.bitwidth // 8
    array = cgutils.create_struct_proxy(array_type)(context, b, value=y)
    large = b.icmp_signed(">=", array.nitems, number(STREAM_BYTES // size))
    edges = b.or_(address_of(context, b, array_type, y, y_at), b.mul(b.or_(channels, y_step), number(size)))
    aligned = b.icmp_signed("==", b.and_(edges, number(LINE_BYTES - 1)), number(0))
    return b.zext(b.and_(large, aligned), I64)


def past_of(b: Any, arguments: Any, some: Terms) -> Any:
    return b.and_(b.trunc(arguments[-1], ir.IntType(1)), some.last)


def item(b: Any, base: Any, at: Any, kind: Any, size: int) -> Any:
    at = number(at) if isinstance(at, int) else at
    return b.load(b.inttoptr(b.add(base, b.mul(at, number(size))), kind.as_pointer()), align=size)


def variables(b: Any, kind: Any, vectors: int) -> list[Any]:
    return [cgutils.alloca_once(b, kind) for _ in range(vectors)]
