"""Register tiles: the innermost loops of matrix products, emitted as LLVM IR.

A tile is TILE_ROWS x (1 or 2 vectors) of the result, kept in registers while the depth is summed: at each step
one broadcast scalar of `a` for each row meets one or two vectors of `b`. Numba's own loops reach a twentieth of
this speed, because LLVM does not keep such a block in registers by itself.

Arrays are one-dimensional, offsets count elements, and nothing is checked: callers pack and pad.

    tile_rows_1/_2(a, a_at, table, rows_at, segments_at, segments, length,
                   b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns)
        c[i, j] = start[j] + sum over s < segments, k < length of
                  a[a_at + table[rows_at + i] + table[segments_at + s] + k] * b[b_at + (s * length + k) * b_stride + j]
    tile_columns_1/_2(a, a_at, table, table_at, depth, b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns)
        c[i, j] = start[j] + sum over k < depth of a[a_at + table[table_at + k] + i] * b[b_at + k * b_stride + j]

fresh False adds the sum to c instead of writing start + sum. All TILE_ROWS rows are computed; only the first
`rows` and `columns` are stored. Whatever is computed, sums run in the same order, so tiles at the edge give the
same bits as whole ones.

    copy_run(target, target_at, source, source_at, count)     clear_run(target, target_at, count)
    transpose_block(target, target_at, target_stride, source, source_at, source_stride)
        target[j, i] = source[i, j] of one block of lanes x lanes elements

Each is an object that Python can call too (uncompiled kernels); vectors are as wide as this processor's.
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer, infer_global
from numba.extending import lower_builtin

TILE_VECTORS = 2
_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _host() -> tuple[int, int]:
    """Bytes of a vector and rows of a tile. 12 x 2 sums, 2 vectors of b and a broadcast fill 27 of 32 registers."""
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell on this processor
        features = {}
    if features.get("avx512f"):
        return 64, 12
    return (32, 6) if features.get("avx2") else (16, 6)


VECTOR_BYTES, TILE_ROWS = _host()


def lanes(itemsize: int) -> int:
    """Elements of a vector."""
    return VECTOR_BYTES // itemsize


def tile_columns(itemsize: int) -> int:
    """Columns of a whole tile, which is the width of a packed panel."""
    return TILE_VECTORS * lanes(itemsize)


class Lowered:
    """A function that compiled kernels inline as LLVM IR and Python runs as it stands.

    kinds: one letter for each argument, a(rray), i(nteger) or b(oolean).
    emit(context, builder, signature, values) writes the code.
    """

    def __init__(self, name: str, kinds: str, python: Callable[..., None], emit: Callable[..., None]):
        self.__name__ = name
        self.__doc__ = python.__doc__
        self._python = python

        scalars = {"i": types.intp, "b": types.boolean}

        def generic(template: Any, arguments: Any, keywords: Any) -> Any:
            if len(arguments) != len(kinds) or keywords:
                return None
            return types.void(*(scalars.get(kind, argument) for kind, argument in zip(kinds, arguments)))

        template = infer(type(f"{name}_template", (AbstractTemplate,), {"key": self, "generic": generic}))
        infer_global(self, types.Function(template))

        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            emit(context, builder, signature, values)
            return context.get_dummy_value()

        lower_builtin(self, types.VarArg(types.Any))(lower)

    def __call__(self, *arguments: Any) -> None:
        self._python(*arguments)

    def __repr__(self) -> str:
        return self.__name__


def _number(n: int) -> Any:
    return ir.Constant(_I64, n)


def _element(array_type: Any) -> tuple[Any, int]:
    """LLVM type and bytes of an array's elements."""
    size = array_type.dtype.bitwidth // 8
    return (ir.FloatType() if size == 4 else ir.DoubleType()), size


def _address(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    size = array_type.dtype.bitwidth // 8
    return builder.add(builder.ptrtoint(data, _I64), builder.mul(at, _number(size)))


class _Tile:
    """The sums of one tile: fresh from `start`, updated step by step, then written."""

    def __init__(self, builder: Any, element: Any, size: int, vectors: int, start: Any, fresh: Any):
        self.builder, self.element, self.size, self.vectors = builder, element, size, vectors
        self.width = lanes(size)
        self.vector = ir.VectorType(element, self.width)
        zero = ir.Constant(self.vector, [0.0] * self.width)
        self.sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(vectors)] for _ in range(TILE_ROWS)]
        for v in range(vectors):
            first = builder.select(fresh, self._load(start, v), zero)
            for row in self.sums:
                builder.store(first, row[v])

    def _pointer(self, base: Any, v: int) -> Any:
        b = self.builder
        return b.inttoptr(b.add(base, _number(VECTOR_BYTES * v)), self.vector.as_pointer())

    def _load(self, base: Any, v: int) -> Any:
        return self.builder.load(self._pointer(base, v), align=self.size)

    def update(self, lefts: list[Any], right: Any) -> None:
        """sums[i] += a scalar at address lefts[i] times the vectors at address right."""
        b = self.builder
        undefined = ir.Constant(self.vector, ir.Undefined)
        splat = ir.Constant(ir.VectorType(_I32, self.width), [0] * self.width)
        rights = [self._load(right, v) for v in range(self.vectors)]
        for address, row in zip(lefts, self.sums):
            scalar = b.load(b.inttoptr(address, self.element.as_pointer()), align=self.size)
            left = b.shuffle_vector(b.insert_element(undefined, scalar, ir.Constant(_I32, 0)), undefined, splat)
            for total, value in zip(row, rights):
                product = b.fmul(left, value, flags=("contract",))
                b.store(b.fadd(b.load(total), product, flags=("contract",)), total)

    def write(self, target: Any, ldc: Any, fresh: Any, rows: Any, columns: Any) -> None:
        """Store the sums; a tile at an edge goes through the stack and copies its valid part."""
        b, size, width = self.builder, self.size, self.vectors * self.width
        whole = b.and_(
            b.icmp_signed(">=", rows, _number(TILE_ROWS)), b.icmp_signed(">=", columns, _number(width))
        )
        stack = cgutils.alloca_once(b, self.element, size=TILE_ROWS * width)
        to = b.select(whole, target, b.ptrtoint(stack, _I64))
        stride = b.select(whole, b.mul(ldc, _number(size)), _number(width * size))
        with b.if_else(b.and_(whole, b.not_(fresh))) as branches:
            for branch, adds in zip(branches, (True, False)):
                with branch:
                    for i, row in enumerate(self.sums):
                        line = b.add(to, b.mul(stride, _number(i)))
                        for v in range(self.vectors):
                            value = b.load(row[v])
                            if adds:
                                value = b.fadd(value, self._load(line, v))
                            b.store(value, self._pointer(line, v), align=size)
        with b.if_then(b.not_(whole), likely=False):
            base = b.inttoptr(target, self.element.as_pointer())
            valid_columns = _least(b, columns, width)
            with cgutils.for_range(b, _least(b, rows, TILE_ROWS)) as i:
                with cgutils.for_range(b, valid_columns) as j:
                    value = b.load(b.gep(stack, [b.add(b.mul(i.index, _number(width)), j.index)]))
                    place = b.gep(base, [b.add(b.mul(i.index, ldc), j.index)])
                    b.store(b.select(fresh, value, b.fadd(value, b.load(place))), place)


def _least(builder: Any, value: Any, n: int) -> Any:
    return builder.select(builder.icmp_signed("<", value, _number(n)), value, _number(n))


def _entry(builder: Any, table: Any, index: Any, size: int) -> Any:
    """table[index] in bytes of elements of `size`."""
    pointer = builder.inttoptr(builder.add(table, builder.mul(index, _number(8))), _I64.as_pointer())
    return builder.mul(builder.load(pointer), _number(size))


def _emit_rows(vectors: int) -> Callable[..., None]:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        (a, a_at, table, rows_at, segments_at, segments, length) = values[:7]
        (b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns) = values[7:]
        kinds = signature.args
        element, size = _element(kinds[12])
        base = _address(context, builder, kinds[0], a, a_at)
        row_entries = _address(context, builder, kinds[2], table, rows_at)
        segment_entries = _address(context, builder, kinds[2], table, segments_at)
        lines = [builder.add(base, _entry(builder, row_entries, _number(i), size)) for i in range(TILE_ROWS)]
        start_address = _address(context, builder, kinds[10], start, start_at)
        tile = _Tile(builder, element, size, vectors, start_address, fresh)
        right = cgutils.alloca_once_value(builder, _address(context, builder, kinds[7], b, b_at))
        step, extent = builder.mul(b_stride, _number(size)), builder.mul(length, _number(size))
        with cgutils.for_range(builder, segments) as s:
            offset = _entry(builder, segment_entries, s.index, size)
            lefts = [builder.add(line, offset) for line in lines]
            with cgutils.for_range_slice(builder, _number(0), extent, _number(size), intp=_I64) as (k, _):
                current = builder.load(right)
                tile.update([builder.add(left, k) for left in lefts], current)
                builder.store(builder.add(current, step), right)
        tile.write(_address(context, builder, kinds[12], c, c_at), ldc, fresh, rows, columns)

    return emit


def _emit_columns(vectors: int) -> Callable[..., None]:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        (a, a_at, table, table_at, depth, b, b_at, b_stride) = values[:8]
        (start, start_at, c, c_at, ldc, fresh, rows, columns) = values[8:]
        kinds = signature.args
        element, size = _element(kinds[10])
        base = _address(context, builder, kinds[0], a, a_at)
        entries = _address(context, builder, kinds[2], table, table_at)
        start_address = _address(context, builder, kinds[8], start, start_at)
        tile = _Tile(builder, element, size, vectors, start_address, fresh)
        right = cgutils.alloca_once_value(builder, _address(context, builder, kinds[5], b, b_at))
        step = builder.mul(b_stride, _number(size))
        with cgutils.for_range(builder, depth) as k:
            left = builder.add(base, _entry(builder, entries, k.index, size))
            current = builder.load(right)
            tile.update([builder.add(left, _number(i * size)) for i in range(TILE_ROWS)], current)
            builder.store(builder.add(current, step), right)
        tile.write(_address(context, builder, kinds[10], c, c_at), ldc, fresh, rows, columns)

    return emit


def _emit_copy(context: Any, builder: Any, signature: Any, values: Any) -> None:
    """Whole vectors, the last one overlapping; runs shorter than a vector element by element."""
    target, target_at, source, source_at, count = values
    element, size = _element(signature.args[0])
    vector = ir.VectorType(element, lanes(size))
    to = _address(context, builder, signature.args[0], target, target_at)
    of = _address(context, builder, signature.args[2], source, source_at)

    def move(offset: Any, kind: Any) -> None:
        value = builder.load(builder.inttoptr(builder.add(of, offset), kind.as_pointer()), align=size)
        builder.store(value, builder.inttoptr(builder.add(to, offset), kind.as_pointer()), align=size)

    def loop(end: Any, step: int, kind: Any) -> None:
        with cgutils.for_range_slice(builder, _number(0), end, _number(step), intp=_I64) as (at, _):
            move(at, kind)

    extent = builder.mul(count, _number(size))
    with builder.if_else(builder.icmp_signed(">=", count, _number(lanes(size)))) as (wide, narrow):
        with wide:
            last = builder.sub(extent, _number(VECTOR_BYTES))
            loop(last, VECTOR_BYTES, vector)
            move(last, vector)
        with narrow:
            loop(extent, size, element)


def _emit_clear(context: Any, builder: Any, signature: Any, values: Any) -> None:
    target, target_at, count = values
    element, _ = _element(signature.args[0])
    to = builder.inttoptr(_address(context, builder, signature.args[0], target, target_at), element.as_pointer())
    with cgutils.for_range(builder, count) as i:
        builder.store(ir.Constant(element, 0.0), builder.gep(to, [i.index]))


def _emit_transpose(context: Any, builder: Any, signature: Any, values: Any) -> None:
    """Stage d swaps blocks of d x d: row i takes from row i + d what lies on the other side of the diagonal."""
    target, target_at, target_stride, source, source_at, source_stride = values
    element, size = _element(signature.args[0])
    n = lanes(size)
    vector = ir.VectorType(element, n)
    to = _address(context, builder, signature.args[0], target, target_at)
    of = _address(context, builder, signature.args[3], source, source_at)

    def pointer(base: Any, stride: Any, i: int) -> Any:
        offset = builder.mul(stride, _number(i * size))
        return builder.inttoptr(builder.add(base, offset), vector.as_pointer())

    rows = [builder.load(pointer(of, source_stride, i), align=size) for i in range(n)]
    distance = 1
    while distance < n:
        upper = [j if not j & distance else n + j - distance for j in range(n)]
        lower = [j + distance if not j & distance else n + j for j in range(n)]
        upper_mask, lower_mask = (ir.Constant(ir.VectorType(_I32, n), mask) for mask in (upper, lower))
        for i in range(n):
            if not i & distance:
                first, second = rows[i], rows[i + distance]
                rows[i] = builder.shuffle_vector(first, second, upper_mask)
                rows[i + distance] = builder.shuffle_vector(first, second, lower_mask)
        distance *= 2
    for i, row in enumerate(rows):
        builder.store(row, pointer(to, target_stride, i), align=size)


def _python_rows(vectors: int) -> Callable[..., None]:
    def tile_rows(
        a, a_at, table, rows_at, segments_at, segments, length, b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns
    ):  # fmt: skip
        lines = table[rows_at : rows_at + TILE_ROWS, None]
        steps = (table[segments_at : segments_at + segments, None] + np.arange(length)).reshape(-1)
        _python_product(a[a_at + lines + steps], b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns, vectors)

    return tile_rows


def _python_columns(vectors: int) -> Callable[..., None]:
    def tile_columns(
        a, a_at, table, table_at, depth, b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns
    ):  # fmt: skip
        left = a[a_at + table[table_at : table_at + depth] + np.arange(min(rows, TILE_ROWS))[:, None]]
        _python_product(left, b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns, vectors)

    return tile_columns


def _python_product(left, b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns, vectors):
    rows, columns = min(rows, TILE_ROWS), min(columns, vectors * lanes(c.itemsize))
    j = np.arange(columns)
    product = left[:rows] @ b[b_at + np.arange(left.shape[1])[:, None] * b_stride + j]
    place = c_at + np.arange(rows)[:, None] * ldc + j
    c[place] = product + (start[start_at + j] if fresh else c[place])


def _python_copy(target, target_at, source, source_at, count):
    target[target_at : target_at + count] = source[source_at : source_at + count]


def _python_clear(target, target_at, count):
    target[target_at : target_at + max(count, 0)] = 0


def _python_transpose(target, target_at, target_stride, source, source_at, source_stride):
    n = np.arange(lanes(target.itemsize))
    target[target_at + n[:, None] * target_stride + n] = source[source_at + n[:, None] + n * source_stride]


tile_rows_1 = Lowered("tile_rows_1", "aiaiiiiaiiaiaiibii", _python_rows(1), _emit_rows(1))
tile_rows_2 = Lowered("tile_rows_2", "aiaiiiiaiiaiaiibii", _python_rows(2), _emit_rows(2))
tile_columns_1 = Lowered("tile_columns_1", "aiaiiaiiaiaiibii", _python_columns(1), _emit_columns(1))
tile_columns_2 = Lowered("tile_columns_2", "aiaiiaiiaiaiibii", _python_columns(2), _emit_columns(2))
copy_run = Lowered("copy_run", "aiaii", _python_copy, _emit_copy)
clear_run = Lowered("clear_run", "aii", _python_clear, _emit_clear)
transpose_block = Lowered("transpose_block", "aiiaii", _python_transpose, _emit_transpose)
