"""Between memory formats: (N, A, B) to (N, B, A), tile by tile so that both sides move whole cache lines."""

from typing import Any

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.op import Shape

TILE = 32  # 32 x 32 float32: 4 KB on each side
PADDED = TILE + 1  # one more column in shared memory keeps the elements of a column in different banks
NARROW = 8  # a CUDA tile with fewer rows or columns leaves most of a warp idle


@inline
def _tile(x, y, a0, a1, b0, b1):
    for b in range(b0, b1):
        row = y[b, a0:a1]
        column = x[a0:a1, b]
        for i in range(row.size):
            row[i] = column[i]


@cpu
def _transpose(x, y):
    count, a, b = x.shape
    tiles = (a + TILE - 1) // TILE
    for j in prange(count * tiles):
        n = j // tiles
        a0 = (j % tiles) * TILE
        a1 = min(a, a0 + TILE)
        for b0 in range(0, b, TILE):
            _tile(x[n], y[n], a0, a1, b0, min(b, b0 + TILE))


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
        _transpose[t](x, y)
    elif min(x.shape[1:]) < NARROW:
        _transpose_narrow_cuda[t, source.size](x, y)
    else:
        n, a, b = x.shape
        _transpose_cuda[t, (n * -(-a // TILE) * -(-b // TILE), 256)](x, y)
