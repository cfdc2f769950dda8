"""The CPU kernel of one pass over flat arrays: chunks in parallel, each a vectorized loop.

What leaves the caches is written around them. Light arithmetic that reads several arrays takes a line of each a turn
in the caches too.
"""

import ast
from collections.abc import Mapping, Sequence

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
    turn = [*lines, "line_by_line()"] if not light or len(read) > 1 else lines
    # A loop over one range of slices in a helper: indexing with an offset inside prange does not vectorize. With
    # exponentials and the like it stays a function of its own, else its constants are read again each turn.
    body = [f"for i in range({first}.size):", *(f"    {line}" for line in turn)]
    loop = Function(
        f"{name}_slice",
        _text(f"{name}_slice", arrays, body),
        {**functions, "line_by_line": line_by_line},
        typed=True,
        force=light,
        apart=not light,
    )
    each = either_way(loop, read, written)
    slices = ", ".join(f"window({a}, lo, hi)" for a in arrays)
    body = [
        f"n = {first}.size",
        f"far = leaves_cache({first})",
        f"for chunk in prange((n + {CHUNK - 1}) // {CHUNK}):",
        f"    lo = chunk * {CHUNK}",
        f"    hi = min(n, lo + {CHUNK})",
        f"    {each.name}({slices}, e, far)",
    ]
    names = {"leaves_cache": leaves_cache, "window": window, each.name: each}
    return Kernel(Function(name, _text(name, arrays, body), names, typed=True))


def _text(name: str, arrays: Sequence[str], lines: Sequence[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"def {name}({', '.join(arrays)}, e):\n{body}"
