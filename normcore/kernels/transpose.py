"""Between memory formats: (N, A, B) to (N, B, A), tile by tile so that both sides move whole cache lines.

`turn` serves every kernel that needs rows as columns.
"""

from typing import Any

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.lowered import LINE_BYTES
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.streaming import STREAM_BLOCK, first_stop, leaves_cache
from normcore.kernels.tile import VECTOR_BYTES
from normcore.kernels.vector_moves import transpose_block_past, transpose_integers
from normcore.op import Shape

TILE = 32  # of CUDA: 32 x 32 float32 are 4 KB on each side
PADDED = TILE + 1  # one more column in shared memory keeps the elements of a column in different banks
NARROW = 8  # a CUDA tile with fewer rows or columns leaves most of a warp idle
LONG, SHORT = 64, 256  # of a CPU tile, along the longer and the shorter side: runs of several lines on both


@inline
def fills_lines(y, to, pitch):
    """Whether rows of y as long as a vector are whole cache lines, and to be written around the caches."""
    lines = VECTOR_BYTES == LINE_BYTES and leaves_cache(y) and first_stop(y) == STREAM_BLOCK
    return lines and to * y.itemsize % LINE_BYTES == 0 and pitch * y.itemsize % LINE_BYTES == 0


@inline
def turn(x, at, apart, y, to, pitch, rows, columns):
    """y[to + j * pitch + i] = x[at + i * apart + j] for i < rows, j < columns; x, y flat."""
    turn_asking(x, at, apart, y, to, pitch, rows, columns, 0)


@inline
def turn_asking(x, at, apart, y, to, pitch, rows, columns, ahead):
    """turn, which asks for x `ahead` elements further along its rows, where that is not 0.

    Blocks of a vector by a vector of elements; the last of a side lies over the one before it.
    """
    n = VECTOR_BYTES // x.itemsize
    if rows >= n and columns >= n:
        past = fills_lines(y, to, pitch)
        for j in range(0, columns, n):
            c = min(j, columns - n)
            for i in range(0, rows, n):
                r = min(i, rows - n)
                place, of = to + c * pitch + r, at + r * apart + c
                if ahead:
                    for k in range(n):
                        prefetch_lines(x, of + k * apart + ahead, 1)
                transpose_block_past(y, place, pitch, x, of, apart, past and r == i)
    else:
        for j in range(columns):
            for i in range(rows):
                y[to + j * pitch + i] = x[at + i * apart + j]


@inline
def turn_integers(x, at, apart, y, to, pitch, rows, columns, beside):
    """turn of integers, in blocks as for `beside`, the array of floating-point numbers that they belong to."""
    n = VECTOR_BYTES // beside.itemsize
    if rows >= n and columns >= n:
        for j in range(0, columns, n):
            c = min(j, columns - n)
            for i in range(0, rows, n):
                r = min(i, rows - n)
                transpose_integers(y, to + c * pitch + r, pitch, x, at + r * apart + c, apart, beside)
    else:
        for j in range(columns):
            for i in range(rows):
                y[to + j * pitch + i] = x[at + i * apart + j]


@inline
def turn_tile(tile, x, at, apart, y, to, pitch, rows, columns):
    """Tile number `tile` of turn(...), of tiles_of(rows, columns)."""
    tall = LONG if rows >= columns else SHORT
    wide = SHORT if rows >= columns else LONG
    across = (columns + wide - 1) // wide
    r = tile // across * tall
    c = tile % across * wide
    of, place = at + r * apart + c, to + c * pitch + r
    # Rows far apart, a few lines of each: the processor does not foresee the next.
    turn_asking(x, of, apart, y, place, pitch, min(tall, rows - r), min(wide, columns - c), LONG)


@inline
def tiles_of(rows, columns):
    long, short = max(rows, columns), min(rows, columns)
    return ((long + LONG - 1) // LONG) * ((short + SHORT - 1) // SHORT)


@cpu
def _transpose(x, y, shape):
    """x (N, A, B) into y (N, B, A), both flat."""
    count, a, b = shape
    tiles = tiles_of(a, b)
    for j in prange(count * tiles):
        n = np.int64(j) // tiles
        turn_tile(np.int64(j) - n * tiles, x, n * a * b, b, y, n * a * b, a, a, b)


@cuda
def _transpose_cuda(x, y):
    """One block of 256 threads a tile, by way of shared memory: both sides move whole cache lines."""
    tile = cu.shared.array((TILE, PADDED), real)
    a, b = x.shape[1], x.shape[2]
    across = (b + TILE - 1) // TILE
    down = (a + TILE - 1) // TILE
    j = cu.blockIdx.x
    n = j // (across * down)
    a0 = j // across % down * TILE
    b0 = j % across * TILE
    column = cu.threadIdx.x % TILE
    first = cu.threadIdx.x // TILE
    for r in range(first, TILE, cu.blockDim.x // TILE):
        if a0 + r < a and b0 + column < b:
            tile[r, column] = x[n, a0 + r, b0 + column]
    cu.syncthreads()
    for r in range(first, TILE, cu.blockDim.x // TILE):
        if b0 + r < b and a0 + column < a:
            y[n, b0 + r, a0 + column] = tile[column, r]


@cuda
def _transpose_narrow_cuda(x, y):
    """A thread an element, for a side much shorter than a tile. Neighbouring threads write neighbours."""
    a, b = x.shape[1], x.shape[2]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        n = i // (a * b)
        r = i - n * a * b
        q = r // a
        y[n, q, r - q * a] = x[n, r - q * a, q]


def _flat3(array: Any, shape: Shape, format: str) -> Any:
    """A physical array as (N, C, S) or (N, S, C)."""
    n, c = shape[0], shape[1]
    return array.reshape((n, c, -1) if format == "channels_first" else (n, -1, c))


def convert(t: Any, source: Any, target: Any, shape: Shape, source_format: str) -> None:
    """Copy a physical array of logical `shape` into the other memory format. t: any layer's Tensors (selects
    kernels)."""
    target_format = "channels_last" if source_format == "channels_first" else "channels_first"
    if source.size == 0:
        return
    x, y = _flat3(source, shape, source_format), _flat3(target, shape, target_format)
    if t.device.name == "cpu":
        _transpose[t](x.reshape(-1), y.reshape(-1), x.shape)
    elif min(x.shape[1:]) < NARROW:
        _transpose_narrow_cuda[t, source.size](x, y)
    else:
        n, a, b = x.shape
        _transpose_cuda[t, (n * -(-a // TILE) * -(-b // TILE), 256)](x, y)
