"""Between memory formats: (N, A, B) to (N, B, A), tile by tile so that both sides move whole cache lines."""

from typing import Any

from normcore.kernels import cpu, cu, cuda, inline, prange
from normcore.op import Shape

TILE = 32  # 32 x 32 float32: 4 KB on each side


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
    count, a, b = x.shape
    start = cu.grid(1)
    step = cu.gridsize(1)
    for i in range(start, count * a * b, step):
        n = i // (a * b)
        r = i - n * a * b
        q = r // a  # index along b: neighbouring threads write neighbouring elements
        y[n, q, r - q * a] = x[n, r - q * a, q]


def _flat3(array: Any, shape: Shape, format: str) -> Any:
    """A physical array as (N, C, S) or (N, S, C)."""
    n, c = shape[0], shape[1]
    return array.reshape((n, c, -1) if format == "channels_first" else (n, -1, c))


def convert(t: Any, source: Any, target: Any, shape: Shape, source_format: str) -> None:
    """Copy a physical array of logical `shape` into the other memory format. t: any layer's Tensors (selects kernels)."""
    target_format = "channels_last" if source_format == "channels_first" else "channels_first"
    if source.size == 0:
        return
    x, y = _flat3(source, shape, source_format), _flat3(target, shape, target_format)
    if t.device.name == "cpu":
        _transpose[t](x, y)
    else:
        _transpose_cuda[t, source.size](x, y)
