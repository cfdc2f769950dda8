"""The CPU kernel of one pass over flat arrays: chunks in parallel, each a vectorized loop.

Light arithmetic waits for memory. It is written around the caches where the result is too large for them, and takes a
line of each array a turn where it reads several. With exponentials and the like a loop is as fast as memory is, or
slower; a block would be computed and then moved, instead of one while the other: they are left as they are.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from normcore.kernels import Kernel
from normcore.kernels.function import Function
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.streaming import either_way, leaves_cache
from normcore.kernels.window import window

CHUNK = 16384  # elements a parallel task takes: 64 KB of float32, small against a second-level cache
LIGHT = {"abs", "min", "max", "sqrt", "real", "wide"}  # what light arithmetic may call


def is_light(function: Function) -> bool:
    """Whether a scalar function calls nothing that takes long."""
    calls = (node.func for node in ast.walk(function.definition) if isinstance(node, ast.Call))
    return all((f.attr if isinstance(f, ast.Attribute) else getattr(f, "id", "")) in LIGHT for f in calls)


def pass_over_memory(
    name: str,
    read: Sequence[str],
    written: Sequence[str],
    lines: Sequence[str],
    functions: Mapping[str, Function],
) -> Kernel:
    """The kernel name(*read, *written, e). lines: for element i of each array; functions: the scalar ones they call."""
    arrays, first = [*read, *written], written[0]
    light = all(map(is_light, functions.values()))
    turn = [*lines, "line_by_line()"] if light and len(read) > 1 else list(lines)
    # A loop over one range of slices in a helper: indexing with an offset inside prange does not vectorize.
    loop = _function(
        f"{name}_slice",
        arrays,
        [f"for i in range({first}.size):", *(f"    {line}" for line in turn)],
        {**functions, "line_by_line": line_by_line},
    )
    slices = ", ".join(f"window({a}, lo, hi)" for a in arrays)
    each = either_way(loop, read, written) if light else loop
    body = [
        f"n = {first}.size",
        *([f"far = leaves_cache({first})"] if light else []),
        f"for chunk in prange((n + {CHUNK - 1}) // {CHUNK}):",
        f"    lo = chunk * {CHUNK}",
        f"    hi = min(n, lo + {CHUNK})",
        f"    {each.name}({slices}, e{', far' if light else ''})",
    ]
    return Kernel(
        _function(name, arrays, body, {"leaves_cache": leaves_cache, "window": window, each.name: each})
    )


def _function(name: str, arrays: Sequence[str], lines: Sequence[str], names: Mapping[str, Any]) -> Function:
    body = "".join(f"    {line}\n" for line in lines)
    return Function(name, f"def {name}({', '.join(arrays)}, e):\n{body}", dict(names), typed=True)
