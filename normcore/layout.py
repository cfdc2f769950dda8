"""Memory formats: between logical shapes (N, C, *spatial) and the physical order of memory."""

from functools import cache
from typing import Any

from normcore.op import Shape


def physical_shape(shape: Shape, format: str) -> Shape:
    """(N, C, *S) as memory holds it: (N, *S, C) for channels last. Rank 2 and below is the same in both."""
    if format == "channels_last" and len(shape) > 2:
        return (shape[0], *shape[2:], shape[1])
    return tuple(shape)


def logical_view(array: Any, format: str) -> Any:
    """A physical array seen as (N, C, *S); shares memory."""
    if format == "channels_last" and array.ndim > 2:
        return array.transpose(0, array.ndim - 1, *range(1, array.ndim - 1))
    return array


def physical_view(array: Any, format: str) -> Any:
    """A logical (N, C, *S) array seen in physical order; contiguous only if its memory has that format."""
    if format == "channels_last" and array.ndim > 2:
        return array.transpose(0, *range(2, array.ndim), 1)
    return array


def same_memory(shape: Shape) -> bool:
    """True where both formats are the same bytes: one channel, or one position."""
    if len(shape) < 3 or shape[1] == 1:
        return True
    positions = 1
    for n in shape[2:]:
        positions *= n
    return positions == 1


@cache
def rows_together(rows: int, columns: int, most: int) -> int:
    """How many of some rows to take as one of at most so many elements, without a rest: short rows leave much of a vector
    loop to single elements, and cannot be written around the caches."""
    return next(k for k in range(max(1, min(rows, most // max(1, columns))), 0, -1) if rows % k == 0)
