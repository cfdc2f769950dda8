"""Writing outputs too large for any cache around the caches.

An ordinary store first reads the cache line that it changes, so an output costs its bytes twice. Stores with a
non-temporal hint write whole lines without reading them; on data that would have stayed in a cache they cost more.
Hence `leaves_cache`, and a kernel that finds it true computes a block at a time into `stack_block` and moves that:

    block, lo, hi = stack_block(y), 0, first_stop(y)
    while lo < y.size:
        compute(x[lo:hi], block[: hi - lo])
        stream_run(y, lo, block, hi - lo)
        lo, hi = hi, min(y.size, hi + STREAM_BLOCK)

`either_way` makes such a function of one that computes flat arrays:

    compute_either_way = either_way(compute, read=["x"], written=["y"])
    ...
    compute_either_way(x, y, leaves_cache(whole_y))

stream_run(target, target_at, source, count) takes contiguous arrays of any rank and counts elements from their
beginning. No fence follows: other threads see such stores once the writer has done an atomic read-modify-write, and
every threading layer (OpenMP's barrier, TBB's reference counts, workqueue's compare-and-swap) ends a thread's part of
a parallel region with one. Values are the same as by any other way of writing them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from normcore.kernels.function import Function
from normcore.kernels.kernel import inline
from normcore.kernels.lowered import (
    I32,
    I64,
    Lowered,
    address_of,
    call_small,
    element_of,
    loop,
    number,
)
from normcore.kernels.tile import VECTOR_BYTES, lanes
from normcore.kernels.window import window

STREAM_BLOCK = 1024  # elements: 4 or 8 KB of the L1 cache
STREAM_BYTES = 1 << 24  # of an output; with the input that it is made from, this fills 32 MB
LINE_BYTES = 64


@inline(typed=True)
def leaves_cache(y):
    """Whether an output is so large that its beginning is gone from the caches when its end is written."""
    return y.size * y.itemsize >= STREAM_BYTES


def either_way(loop: Function, read: Sequence[str], written: Sequence[str]) -> Function:
    """`loop` with one more argument: whether to write its results around the caches.

    loop: a function of flat, contiguous arrays of one size, which it visits element by element, and of other values.
    read, written: the names of the arrays.
    """
    arguments = [a.arg for a in loop.definition.args.args]
    places = {a: f"window({a}, lo, hi)" for a in read} | {a: f"to_{a}" for a in written}
    y = written[0]
    lines = [
        *(f"block_{a} = stack_block({a})" for a in written),
        f"lo, hi = 0, first_stop({y}) if far else {y}.size",
        f"while lo < {y}.size:",
        *(f"    to_{a} = window(block_{a}, 0, hi - lo) if far else window({a}, lo, hi)" for a in written),
        f"    {loop.name}({', '.join(places.get(a, a) for a in arguments)})",
        "    if far:",
        *(f"        stream_run({a}, lo, block_{a}, hi - lo)" for a in written),
        f"    lo, hi = hi, min({y}.size, hi + STREAM_BLOCK)",
    ]
    name = f"{loop.name}_either_way"
    text = f"def {name}({', '.join(arguments)}, far):\n" + "".join(f"    {line}\n" for line in lines)
    names = {
        "STREAM_BLOCK": STREAM_BLOCK,
        "first_stop": first_stop,
        "stack_block": stack_block,
        "stream_run": stream_run,
        "window": window,
        loop.name: loop,
    }
    return Function(name, text, names, typed=True, force=True)


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
stream_run = Lowered("stream_run", "aiai", _python_stream, _emit_stream)
