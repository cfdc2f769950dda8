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

fresh False adds the sum to c instead of writing start + sum. All TILE_ROWS rows are computed, only the first
`rows` and `columns` are stored: tile_columns reads `a`, and both read `b`, past them. Sums run in the same order
in every tile, so tiles at the edge give the same bits as whole ones.

Each is an object that Python can call too (uncompiled kernels); vectors are as wide as this processor's.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

from normcore.kernels.lowered import (
    I32,
    I64,
    Lowered,
    address_of,
    call_small,
    element_of,
    host_features,
    loop,
    number,
)

TILE_VECTORS = 2


def _host() -> tuple[int, int]:
    """Bytes of a vector and rows of a tile. 12 x 2 sums, 2 vectors of b and a broadcast fill 27 of 32 registers."""
    features = host_features()
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


class _Tile:
    """The sums of one tile: fresh from `start`, updated step by step, then written."""

    def __init__(self, builder: Any, element: Any, size: int, vectors: int, start: Any, fresh: Any):
        self.builder, self.element, self.size, self.vectors = builder, element, size, vectors
        self.width = lanes(size)
        self.vector = ir.VectorType(element, self.width)
        zero = ir.Constant(self.vector, [0.0] * self.width)
        self.sums = [
            [cgutils.alloca_once(builder, self.vector) for _ in range(vectors)] for _ in range(TILE_ROWS)
        ]
        for v in range(vectors):
            first = builder.select(fresh, self._load(start, v), zero)
            for row in self.sums:
                builder.store(first, row[v])

    def _pointer(self, base: Any, v: int) -> Any:
        b = self.builder
        return b.inttoptr(b.add(base, number(VECTOR_BYTES * v)), self.vector.as_pointer())

    def _load(self, base: Any, v: int) -> Any:
        return self.builder.load(self._pointer(base, v), align=self.size)

    def update(self, lefts: list[Any], right: Any) -> None:
        """sums[i] += a scalar at address lefts[i] times the vectors at address right."""
        b = self.builder
        undefined = ir.Constant(self.vector, ir.Undefined)
        splat = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        rights = [self._load(right, v) for v in range(self.vectors)]
        for address, row in zip(lefts, self.sums):
            scalar = b.load(b.inttoptr(address, self.element.as_pointer()), align=self.size)
            left = b.shuffle_vector(
                b.insert_element(undefined, scalar, ir.Constant(I32, 0)), undefined, splat
            )
            for total, value in zip(row, rights):
                product = b.fmul(left, value, flags=("contract",))
                b.store(b.fadd(b.load(total), product, flags=("contract",)), total)

    def write(self, target: Any, ldc: Any, fresh: Any, rows: Any, columns: Any) -> None:
        """Store the sums; a tile at an edge goes through the stack and copies its valid part."""
        b, size, width = self.builder, self.size, self.vectors * self.width
        whole = b.and_(
            b.icmp_signed(">=", rows, number(TILE_ROWS)), b.icmp_signed(">=", columns, number(width))
        )
        stack = cgutils.alloca_once(b, self.element, size=TILE_ROWS * width)
        to = b.select(whole, target, b.ptrtoint(stack, I64))
        stride = b.select(whole, b.mul(ldc, number(size)), number(width * size))
        with b.if_else(b.and_(whole, b.not_(fresh))) as branches:
            for branch, adds in zip(branches, (True, False)):
                with branch:
                    for i, row in enumerate(self.sums):
                        line = b.add(to, b.mul(stride, number(i)))
                        for v in range(self.vectors):
                            value = b.load(row[v])
                            if adds:
                                value = b.fadd(value, self._load(line, v))
                            b.store(value, self._pointer(line, v), align=size)
        with b.if_then(b.not_(whole), likely=False):
            added = b.zext(b.not_(fresh), I64)
            arguments = [b.ptrtoint(stack, I64), target, ldc, rows, columns, added]
            call_small(b, f"normcore_tile_edge_{size}_{width}", arguments, self._emit_edge)

    def _emit_edge(self, b: Any, arguments: Any) -> None:
        """Copy, or add, the first rows and columns of a tile on the stack to their place."""
        stack, target, ldc, rows, columns, added = arguments
        size, width = self.size, self.vectors * self.width

        def least(value: Any, n: int) -> Any:
            return b.select(b.icmp_signed("<", value, number(n)), value, number(n))

        extent, line = b.mul(least(columns, width), number(size)), b.mul(ldc, number(size))
        adds = b.icmp_signed("!=", added, number(0))
        with loop(b, least(rows, TILE_ROWS), 1) as (i, _):
            source, place = b.add(stack, b.mul(i, number(width * size))), b.add(target, b.mul(i, line))
            with b.if_else(b.icmp_signed(">=", columns, number(width))) as (all_columns, few):
                with all_columns, loop(b, number(width * size), VECTOR_BYTES) as (j, _):
                    self._move(b, b.add(source, j), b.add(place, j), self.vector, adds)
                with few, loop(b, extent, size) as (j, _):
                    self._move(b, b.add(source, j), b.add(place, j), self.element, adds)

    def _move(self, b: Any, source: Any, target: Any, kind: Any, adds: Any) -> None:
        value = b.load(b.inttoptr(source, kind.as_pointer()), align=self.size)
        to = b.inttoptr(target, kind.as_pointer())
        with b.if_else(adds) as (more, new):
            with more:
                b.store(b.fadd(value, b.load(to, align=self.size)), to, align=self.size)
            with new:
                b.store(value, to, align=self.size)


def _entry(builder: Any, table: Any, index: Any, size: int) -> Any:
    """table[index] in bytes of elements of `size`."""
    pointer = builder.inttoptr(builder.add(table, builder.mul(index, number(8))), I64.as_pointer())
    return builder.mul(builder.load(pointer), number(size))


def _emit_rows(vectors: int) -> Callable[..., None]:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        (a, a_at, table, rows_at, segments_at, segments, length) = values[:7]
        (b, b_at, b_stride, start, start_at, c, c_at, ldc, fresh, rows, columns) = values[7:]
        kinds = signature.args
        element, size = element_of(kinds[12])
        base = address_of(context, builder, kinds[0], a, a_at)
        row_entries = address_of(context, builder, kinds[2], table, rows_at)
        segment_entries = address_of(context, builder, kinds[2], table, segments_at)
        lines = []
        for i in range(
            TILE_ROWS
        ):  # rows past the last read the first one: what lies beyond may not be memory
            row = builder.select(builder.icmp_signed("<", number(i), rows), number(i), number(0))
            lines.append(builder.add(base, _entry(builder, row_entries, row, size)))
        start_address = address_of(context, builder, kinds[10], start, start_at)
        tile = _Tile(builder, element, size, vectors, start_address, fresh)
        right = cgutils.alloca_once_value(builder, address_of(context, builder, kinds[7], b, b_at))
        step, extent = builder.mul(b_stride, number(size)), builder.mul(length, number(size))
        with cgutils.for_range(builder, segments) as s:
            offset = _entry(builder, segment_entries, s.index, size)
            lefts = [builder.add(line, offset) for line in lines]
            with loop(builder, extent, size) as (k, _):
                current = builder.load(right)
                tile.update([builder.add(left, k) for left in lefts], current)
                builder.store(builder.add(current, step), right)
        tile.write(address_of(context, builder, kinds[12], c, c_at), ldc, fresh, rows, columns)

    return emit


def _emit_columns(vectors: int) -> Callable[..., None]:
    def emit(context: Any, builder: Any, signature: Any, values: Any) -> None:
        (a, a_at, table, table_at, depth, b, b_at, b_stride) = values[:8]
        (start, start_at, c, c_at, ldc, fresh, rows, columns) = values[8:]
        kinds = signature.args
        element, size = element_of(kinds[10])
        base = address_of(context, builder, kinds[0], a, a_at)
        entries = address_of(context, builder, kinds[2], table, table_at)
        start_address = address_of(context, builder, kinds[8], start, start_at)
        tile = _Tile(builder, element, size, vectors, start_address, fresh)
        right = cgutils.alloca_once_value(builder, address_of(context, builder, kinds[5], b, b_at))
        step = builder.mul(b_stride, number(size))
        with cgutils.for_range(builder, depth) as k:
            left = builder.add(base, _entry(builder, entries, k.index, size))
            current = builder.load(right)
            tile.update([builder.add(left, number(i * size)) for i in range(TILE_ROWS)], current)
            builder.store(builder.add(current, step), right)
        tile.write(address_of(context, builder, kinds[10], c, c_at), ldc, fresh, rows, columns)

    return emit


def _python_rows(vectors: int) -> Callable[..., None]:
    def tile_rows(
        a, a_at, table, rows_at, segments_at, segments, length, b, b_at, b_stride, start, start_at, c, c_at, ldc,
        fresh, rows, columns,
    ):  # fmt: skip
        lines = table[rows_at : rows_at + min(rows, TILE_ROWS), None]
        steps = (table[segments_at : segments_at + segments, None] + np.arange(length)).reshape(-1)
        _python_product(
            a[a_at + lines + steps],
            b,
            b_at,
            b_stride,
            start,
            start_at,
            c,
            c_at,
            ldc,
            fresh,
            rows,
            columns,
            vectors,
        )

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
    place = c_at + np.arange(rows)[:, None] * ldc + j
    with np.errstate(all="ignore"):  # lanes beyond the matrix hold anything, as they do compiled
        product = left[:rows] @ b[b_at + np.arange(left.shape[1])[:, None] * b_stride + j]
        c[place] = product + (start[start_at + j] if fresh else c[place])


tile_rows_1 = Lowered("tile_rows_1", "aiaiiiiaiiaiaiibii", _python_rows(1), _emit_rows(1))
tile_rows_2 = Lowered("tile_rows_2", "aiaiiiiaiiaiaiibii", _python_rows(2), _emit_rows(2))
tile_columns_1 = Lowered("tile_columns_1", "aiaiiaiiaiaiibii", _python_columns(1), _emit_columns(1))
tile_columns_2 = Lowered("tile_columns_2", "aiaiiaiiaiaiibii", _python_columns(2), _emit_columns(2))
