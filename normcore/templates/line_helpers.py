"""What kernels over lines of scratch call; see normalization_lines.py."""

from typing import Any

from normcore.kernels import inline, real, wide


@inline(force=True)
def clear(line: Any) -> None:
    for i in range(line.size):
        line[i] = real(0)


@inline(force=True)
def flush(line: Any, total: Any) -> None:
    for i in range(total.size):
        total[i] += wide(line[i])


@inline(force=True)
def read(rows: Any, line: Any, width: Any) -> None:
    """Rows of statistics, each for `width` elements of the line."""
    for k in range(line.size // width):
        for i in range(k * width, k * width + width):
            line[i] = rows[k]


@inline(force=True)
def merge(total: Any, line: Any, rows: Any, width: Any, count: Any) -> None:
    """Means of `width` neighbours of a line of sums, into rows of statistics and for each element."""
    for k in range(line.size // width):
        found = wide(0)
        for i in range(k * width, k * width + width):
            found += total[i]
        rows[k] = real(found / count)
        for i in range(k * width, k * width + width):
            line[i] = rows[k]


@inline(force=True, reassociate=True)
def line_sum(line: Any) -> Any:
    total = real(0)
    for i in range(line.size):
        total += line[i]
    return total
