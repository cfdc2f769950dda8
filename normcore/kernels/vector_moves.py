"""Moving runs and blocks of elements between one-dimensional arrays.

    copy_run(target, target_at, source, source_at, count)       target[target_at + i] = source[source_at + i]
    copy_strided(target, target_at, target_stride, source, source_at, source_stride, count)
    clear_run(target, target_at, count)                         zeros
    transpose_block(target, target_at, target_stride, source, source_at, source_stride)
        target[j, i] = source[i, j] for one block of lanes x lanes elements
    transpose_block_past(..., past)             the same; past: around the caches, where each row of the block is a cache line
    transpose_integers(..., beside)             the same of integers, in blocks as large as vectors of the array `beside`

In compiled kernels the first three are calls of one small function each, which keeps kernels quick to compile;
the last two are shuffles between registers. Nothing is checked.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from normcore.kernels.lowered import I32, Lowered, address_of, call_small, element_of, loop, number
from normcore.kernels.streaming import around_caches
from normcore.kernels.tile import VECTOR_BYTES, lanes


def _emit_copy(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, target_at, source, source_at, count = values
    element, size = element_of(signature.args[0])
    vector = ir.VectorType(element, lanes(size))

    def emit(b: Any, arguments: Any) -> None:
        """Whole vectors, the last one overlapping; runs shorter than a vector element by element."""
        to, of, extent = arguments

        def move(offset: Any, kind: Any) -> None:
            value = b.load(b.inttoptr(b.add(of, offset), kind.as_pointer()), align=size)
            b.store(value, b.inttoptr(b.add(to, offset), kind.as_pointer()), align=size)

        with b.if_else(b.icmp_signed(">=", extent, number(VECTOR_BYTES))) as (wide, narrow):
            with wide:
                last = b.sub(extent, number(VECTOR_BYTES))
                with loop(b, last, VECTOR_BYTES) as (i, _):
                    move(i, vector)
                move(last, vector)
            with narrow, loop(b, extent, size) as (i, _):
                move(i, element)

    to = address_of(context, builder, signature.args[0], target, target_at)
    of = address_of(context, builder, signature.args[2], source, source_at)
    call_small(builder, f"normcore_copy_{size}", [to, of, builder.mul(count, number(size))], emit)


def _emit_strided(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, target_at, target_stride, source, source_at, source_stride, count = values
    element, size = element_of(signature.args[0])

    def emit(b: Any, arguments: Any) -> None:
        to, to_step, of, of_step, times = arguments
        with loop(b, times, 1) as (i, _):
            value = b.load(b.inttoptr(b.add(of, b.mul(i, of_step)), element.as_pointer()), align=size)
            b.store(value, b.inttoptr(b.add(to, b.mul(i, to_step)), element.as_pointer()), align=size)

    to = address_of(context, builder, signature.args[0], target, target_at)
    of = address_of(context, builder, signature.args[3], source, source_at)
    to_step, of_step = builder.mul(target_stride, number(size)), builder.mul(source_stride, number(size))
    call_small(builder, f"normcore_copy_strided_{size}", [to, to_step, of, of_step, count], emit)


def _emit_clear(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, target_at, count = values
    element, size = element_of(signature.args[0])

    def emit(b: Any, arguments: Any) -> None:
        to, extent = arguments
        with loop(b, extent, size) as (i, _):
            b.store(ir.Constant(element, 0.0), b.inttoptr(b.add(to, i), element.as_pointer()), align=size)

    to = address_of(context, builder, signature.args[0], target, target_at)
    call_small(builder, f"normcore_clear_{size}", [to, builder.mul(count, number(size))], emit)


def _emit_transpose(context: Any, builder: Any, signature: Any, values: Any) -> None:
    element, size = element_of(signature.args[0])
    vector = ir.VectorType(element, lanes(size))
    _transpose(builder, vector, size, *_places(context, builder, signature, values), None)


def _emit_transpose_past(context: Any, builder: Any, signature: Any, values: Any) -> None:
    element, size = element_of(signature.args[0])
    vector = ir.VectorType(element, lanes(size))
    _transpose(builder, vector, size, *_places(context, builder, signature, values), values[6])


def _emit_transpose_integers(context: Any, builder: Any, signature: Any, values: Any) -> None:
    """Blocks are as large as vectors of the array that stands last."""
    size = signature.args[0].dtype.bitwidth // 8
    vector = ir.VectorType(ir.IntType(8 * size), lanes(signature.args[-1].dtype.bitwidth // 8))
    _transpose(builder, vector, size, *_places(context, builder, signature, values), None)


def _places(context: Any, builder: Any, signature: Any, values: Any) -> tuple[Any, Any]:
    """Address and stride of the target, and of the source."""
    target, target_at, target_stride, source, source_at, source_stride = values[:6]
    to = address_of(context, builder, signature.args[0], target, target_at)
    of = address_of(context, builder, signature.args[3], source, source_at)
    return (to, target_stride), (of, source_stride)


def _transpose(builder: Any, vector: Any, size: int, target: Any, source: Any, past: Any) -> None:
    """Stage d swaps blocks of d x d: row i takes from row i + d what lies on the other side of the diagonal."""

    def pointer(place: tuple[Any, Any], i: int) -> Any:
        base, stride = place
        offset = builder.mul(stride, number(i * size))
        return builder.inttoptr(builder.add(base, offset), vector.as_pointer())

    n = vector.count
    rows = [builder.load(pointer(source, i), align=size) for i in range(n)]
    distance = 1
    while distance < n:
        upper = [j if not j & distance else n + j - distance for j in range(n)]
        lower = [j + distance if not j & distance else n + j for j in range(n)]
        upper_mask, lower_mask = (ir.Constant(ir.VectorType(I32, n), mask) for mask in (upper, lower))
        for i in range(n):
            if not i & distance:
                first, second = rows[i], rows[i + distance]
                rows[i] = builder.shuffle_vector(first, second, upper_mask)
                rows[i + distance] = builder.shuffle_vector(first, second, lower_mask)
        distance *= 2
    places = [pointer(target, i) for i in range(n)]
    if past is None:
        for row, place in zip(rows, places, strict=True):
            builder.store(row, place, align=size)
        return
    with builder.if_else(past) as (streamed, cached):
        with streamed:
            for row, place in zip(rows, places, strict=True):
                around_caches(builder, builder.store(row, place, align=n * size))
        with cached:
            for row, place in zip(rows, places, strict=True):
                builder.store(row, place, align=size)


def _python_copy(target, target_at, source, source_at, count):
    target[target_at : target_at + count] = source[source_at : source_at + count]


def _python_clear(target, target_at, count):
    target[target_at : target_at + max(count, 0)] = 0


def _python_strided(target, target_at, target_stride, source, source_at, source_stride, count):
    i = np.arange(max(count, 0))
    target[target_at + i * target_stride] = source[source_at + i * source_stride]


def _python_transpose(target, target_at, target_stride, source, source_at, source_stride, past=False):
    _python_transpose_integers(target, target_at, target_stride, source, source_at, source_stride, target)


def _python_transpose_integers(target, target_at, target_stride, source, source_at, source_stride, beside):
    n = np.arange(lanes(beside.itemsize))
    target[target_at + n[:, None] * target_stride + n] = source[source_at + n[:, None] + n * source_stride]


copy_run = Lowered("copy_run", "aiaii", _python_copy, _emit_copy)
copy_strided = Lowered("copy_strided", "aiiaiii", _python_strided, _emit_strided)
clear_run = Lowered("clear_run", "aii", _python_clear, _emit_clear)
transpose_block = Lowered("transpose_block", "aiiaii", _python_transpose, _emit_transpose)
transpose_block_past = Lowered("transpose_block_past", "aiiaiib", _python_transpose, _emit_transpose_past)
transpose_integers = Lowered(
    "transpose_integers", "aiiaiia", _python_transpose_integers, _emit_transpose_integers
)
