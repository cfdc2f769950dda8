"""Writing outputs too large for any cache around the caches.

An ordinary store first reads the cache line that it changes, so an output costs its bytes twice. Stores with a
non-temporal hint write whole lines without reading them; on data that would have stayed in a cache they cost more.
Hence `leaves_cache`, and `either_way`, which makes such a function of one that computes flat arrays:

    compute_either_way = either_way(compute, read=["x"], written=["y"])
    ...
    compute_either_way(x, y, leaves_cache(whole_y))

It computes a stretch of STREAM_STEP elements in the first-level cache, moves that, and goes on to the next. Stretches are
short, and taken a line of each array a turn, for memory is read and written by turns then: of 1,024 elements, loops
that read two arrays take a quarter longer.

A kernel whose results lie in pieces gathers them itself, in a block:

    block, lo, hi = stack_block(y), 0, first_stop(y)
    while lo < y.size:
        compute(x[lo:hi], block[: hi - lo])
        stream_run(y, lo, block, hi - lo)
        lo, hi = hi, min(y.size, hi + STREAM_BLOCK)

stream_run(target, target_at, source, count) takes contiguous arrays of any rank and counts elements from their
beginning. No fence follows: other threads see such stores once the writer has done an atomic read-modify-write, and
every threading layer (OpenMP's barrier, TBB's reference counts, workqueue's compare-and-swap) ends a thread's part of
a parallel region with one. Values are the same as by any other way of writing them.
"""

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from normcore.kernels.function import Function
from normcore.kernels.kernel import inline
from normcore.kernels.line_by_line import line_by_line, stay_rolled
from normcore.kernels.lowered import (
    I32,
    I64,
    LINE_BYTES,
    Lowered,
    address_of,
    call_small,
    element_of,
    host_is_zen,
    loop,
    number,
)
from normcore.kernels.prefetch import AHEAD, FIRST, NEAR, SECOND, prefetch
from normcore.kernels.tile import VECTOR_BYTES, lanes
from normcore.kernels.window import window

STREAM_BLOCK = 1024  # elements: 4 or 8 KB of the L1 cache
STREAM_STEP = 128  # elements that `either_way` takes at a time
STREAM_BYTES = 1 << 24  # of an output; with the input that it is made from, this fills 32 MB


@inline(typed=True)
def leaves_cache(y):
    """Whether an output is so large that its beginning is gone from the caches when its end is written."""
    return y.size * y.itemsize >= STREAM_BYTES


def either_way(
    loop: Function, read: Sequence[str], written: Sequence[str], asked: Sequence[str] | None = None
) -> Function:
    """`loop` with one more argument: whether to write its results around the caches.

    loop: a function of flat, contiguous arrays of one size, which it visits element by element, and of other values.
    read, written: the names of the arrays. asked: those that come from memory, where not all do that are read.
    """
    stretch = _a_line_a_turn(loop)
    arguments = [a.arg for a in loop.definition.args.args]
    y = written[0]
    step = {a: f"window({a}, at, at + STREAM_STEP)" for a in read} | {a: f"block_{a}" for a in written}
    rest = {a: f"window({a}, at, {y}.size)" for a in read} | {a: f"rest_{a}" for a in written}
    memory = "".join(f", {a}" for a in (read if asked is None else asked))
    lines = [
        "at = 0",
        *(f"block_{a} = window(stack_block({a}), 0, STREAM_STEP)" for a in written),
        "if far:",
        f"    at = first_line({y})",
        f"    {loop.name}({', '.join(f'window({a}, 0, at)' if a in step else a for a in arguments)})",
        f"    while at + STREAM_STEP <= {y}.size:",
        f"        {stretch.name}({', '.join(step.get(a, a) for a in arguments)})",
        f"        stream_step({y}, at, block_{y}{memory})",
        # Only the first array is known to be at a line's beginning.
        *(f"        stream_run({a}, at, block_{a}, STREAM_STEP)" for a in written[1:]),
        "        at += STREAM_STEP",
        *(f"rest_{a} = window(block_{a}, 0, {y}.size - at) if far else {a}" for a in written),
        f"{loop.name}({', '.join(rest.get(a, a) for a in arguments)})",
        "if far:",
        *(f"    stream_run({a}, at, block_{a}, {y}.size - at)" for a in written),
    ]
    name = f"{loop.name}_either_way"
    text = f"def {name}({', '.join(arguments)}, far):\n" + "".join(f"    {line}\n" for line in lines)
    names = {
        "STREAM_STEP": STREAM_STEP,
        "first_line": first_line,
        "stream_step": stream_step,
        "stack_block": stack_block,
        "stream_run": stream_run,
        "window": window,
        loop.name: loop,
        stretch.name: stretch,
    }
    return Function(name, text, names, typed=True, force=True)


def _a_line_a_turn(loop: Function) -> Function:
    """The same loop, one line of each array a turn."""
    name, mark = f"{loop.name}_stretch", "line_by_line()"
    text = loop.text.replace(f"def {loop.name}(", f"def {name}(", 1).rstrip()
    last = loop.definition.body[-1]
    assert isinstance(last, ast.For), f"{loop.name}: its last statement must be the loop"
    if not text.endswith(mark):
        text += "\n" + " " * last.body[0].col_offset + mark
    return Function(
        name,
        f"{text}\n",
        {**loop.namespace, "line_by_line": line_by_line},
        reassociate=loop.reassociate,
        typed=loop.typed,
        scalar=loop.scalar,
        force=loop.force,
        apart=loop.apart,
    )


def around_caches(builder: Any, store: Any) -> None:
    """Give a store of a whole aligned vector the non-temporal hint."""
    store.set_metadata("nontemporal", builder.module.add_metadata([ir.Constant(I32, 1)]))


def _emit_block(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np.arrayobj import make_array, populate_array  # slow to import, and only compiling needs it

    element, size = element_of(signature.args[0])
    data = cgutils.alloca_once(builder, element, size=number(STREAM_BLOCK))
    data.align = LINE_BYTES
    array = make_array(signature.return_type)(context, builder)
    populate_array(
        array,
        data=data,
        shape=[number(STREAM_BLOCK)],
        strides=[number(size)],
        itemsize=number(size),
        meminfo=None,
    )
    return array._getvalue()


def _emit_stream(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, target_at, source, count = values
    element, size = element_of(signature.args[0])
    vector = ir.VectorType(element, lanes(size))

    def emit(b: Any, arguments: Any) -> None:
        """Elements up to a line of the target, whole lines, the elements that are left."""
        to, of, extent = arguments

        def move(offset: Any, kind: Any, whole: bool) -> None:
            value = b.load(b.inttoptr(b.add(of, offset), kind.as_pointer()), align=size)
            place = b.inttoptr(b.add(to, offset), kind.as_pointer())
            written = b.store(value, place, align=VECTOR_BYTES if whole else size)
            if whole:
                around_caches(b, written)

        ahead = b.and_(b.sub(number(0), to), number(LINE_BYTES - 1))
        ahead = b.select(b.icmp_signed("<", ahead, extent), ahead, extent)
        lines = b.and_(b.sub(extent, ahead), number(-LINE_BYTES))
        with loop(b, ahead, size) as (i, _):
            move(i, element, False)
        with loop(b, lines, LINE_BYTES) as (i, _):
            for part in range(0, LINE_BYTES, VECTOR_BYTES):
                move(b.add(ahead, b.add(i, number(part))), vector, True)
        done = b.add(ahead, lines)
        with loop(b, b.sub(extent, done), size) as (i, _):
            move(b.add(done, i), element, False)

    to = address_of(context, builder, signature.args[0], target, target_at)
    of = address_of(context, builder, signature.args[2], source, number(0))
    call_small(builder, f"normcore_stream_{size}", [to, of, builder.mul(count, number(size))], emit)


def _emit_first(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np.arrayobj import make_array

    array = make_array(signature.args[0])(context, builder, value=values[0])
    _, size = element_of(signature.args[0])
    behind = builder.and_(builder.ptrtoint(array.data, I64), number(LINE_BYTES - 1))
    stop = builder.sub(number(STREAM_BLOCK), builder.lshr(behind, number(size.bit_length() - 1)))
    return builder.select(builder.icmp_signed("<", array.nitems, stop), array.nitems, stop)


def _emit_line(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np.arrayobj import make_array

    array = make_array(signature.args[0])(context, builder, value=values[0])
    _, size = element_of(signature.args[0])
    ahead = builder.and_(builder.neg(builder.ptrtoint(array.data, I64)), number(LINE_BYTES - 1))
    stop = builder.lshr(ahead, number(size.bit_length() - 1))
    return builder.select(builder.icmp_signed("<", array.nitems, stop), array.nitems, stop)


def _emit_stream_step(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, at, source, *asked = values
    element, size = element_of(signature.args[0])
    width = lanes(size)
    far, keep = (AHEAD, SECOND) if len(asked) == 1 else (NEAR, FIRST)
    ahead = []
    if not host_is_zen():
        for kind, array in zip(signature.args[3:], asked):
            ahead.append(address_of(context, builder, kind, array, builder.add(at, number(far))))
    vector = ir.VectorType(element, width)
    to = address_of(context, builder, signature.args[0], target, at)
    of = address_of(context, builder, signature.args[2], source, number(0))
    # One load and one store, over and over: unrolled, the processor foresees less of either.
    with loop(builder, number(STREAM_STEP * size), LINE_BYTES) as (i, _):
        for address in ahead:
            prefetch(builder, builder.add(address, i), keep)
        for part in range(0, LINE_BYTES, VECTOR_BYTES):
            here = builder.add(i, number(part))
            value = builder.load(builder.inttoptr(builder.add(of, here), vector.as_pointer()), align=size)
            place = builder.inttoptr(builder.add(to, here), vector.as_pointer())
            around_caches(builder, builder.store(value, place, align=VECTOR_BYTES))
        stay_rolled(builder)


def _python_step(target, at, source, *asked):
    """STREAM_STEP elements; target[at] begins a line. asked: arrays whose elements from at on are being read, and whose
    next ones will be."""
    target[at : at + STREAM_STEP] = source


def _python_stream(target, target_at, source, count):
    target.reshape(-1)[target_at : target_at + count] = source[:count]


# End of the first block, such that all further ones begin with a cache line.
first_stop = Lowered(
    "first_stop",
    "a",
    lambda y: min(y.size, STREAM_BLOCK - y.ctypes.data % LINE_BYTES // y.itemsize),
    _emit_first,
    returns=lambda y: types.intp,
)
stack_block = Lowered(
    "stack_block",
    "a",
    lambda like: np.empty(STREAM_BLOCK, like.dtype),
    _emit_block,
    returns=lambda like: types.Array(like.dtype, 1, "C"),
)
first_line = Lowered(
    "first_line",
    "a",
    lambda y: min(y.size, -y.ctypes.data % LINE_BYTES // y.itemsize),
    _emit_line,
    returns=lambda y: types.intp,
)
stream_step = Lowered("stream_step", "aiaa*", _python_step, _emit_stream_step)
stream_run = Lowered("stream_run", "aiai", _python_stream, _emit_stream)
