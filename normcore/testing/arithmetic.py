"""No float64 arithmetic in float32 kernels: it halves every vector, and one bare literal brings it.

The kernels that an op launches are recorded, and the LLVM code that Numba made of them is searched for
arithmetic on doubles; conversions alone are fine. A kernel that says `wide(...)` means it (statistics, for
example) and is not searched. What was found is kept beside Numba's cache, because code that Numba loads
from its cache can no longer be looked at.
"""

import contextlib
import json
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Any

from normcore.kernels import Kernel, store
from normcore.testing.outcome import Failed, Skipped
from normcore.testing.running import Case, Runner

_ARITHMETIC = re.compile(r"= (?:tail )?(?:fadd|fsub|fmul|fdiv|frem|fneg|fcmp)\b[^\n]*\bdouble\b[^\n]*")
_CALL = re.compile(r"call [^\n]*\b(?:double|<\d+ x double>) @(?!Py|llvm\.vector|llvm\.experimental)[^\n]*")
# Part of the kept files' names: what other rules found does not count.
_RULES = f"{zlib.crc32((_ARITHMETIC.pattern + _CALL.pattern).encode()):08x}"


@contextlib.contextmanager
def recorded_kernels() -> Iterator[list[tuple[Kernel, Any]]]:
    """Collects (kernel, variant) of every CPU kernel launched inside."""
    used: list[tuple[Kernel, Any]] = []
    original = Kernel.__getitem__

    def recording(self: Kernel, t: Any) -> Any:
        if self.target == "cpu" and (self, t.variant) not in used:
            used.append((self, t.variant))
        return original(self, t)

    Kernel.__getitem__ = recording  # type: ignore[method-assign]
    try:
        yield used
    finally:
        Kernel.__getitem__ = original  # type: ignore[method-assign]


def double_operations(dispatcher: Any) -> list[str]:
    """Lines of LLVM code in which a compiled kernel computes in float64."""
    found = []
    for overload in dispatcher.overloads.values():
        for pattern in (_ARITHMETIC, _CALL):
            found += pattern.findall(overload.library.get_llvm_str())
    return found


def _verdict(kernel: Kernel, variant: Any) -> list[str]:
    """double_operations of a launched kernel, from the file beside Numba's cache where it is there."""
    dispatcher = kernel._ready[variant]
    text = pathlib.Path(dispatcher.py_func.__code__.co_filename)
    kept = text.with_suffix(f".doubles-{_RULES}.json") if text.is_file() else None
    if not dispatcher.stats.cache_hits:
        found = double_operations(dispatcher)
    else:
        with contextlib.suppress(OSError, ValueError):
            if kept is not None:
                return list(json.loads(kept.read_text()))
        source = kernel.text(variant).replace("cache=True", "cache=False")
        fresh = store._in_memory(f"searched_{kernel.__name__.strip('_')}", source)
        for signature in dispatcher.overloads:
            fresh.kernel.compile(signature)
        found = double_operations(fresh.kernel)
    if kept is not None:
        with contextlib.suppress(OSError):
            kept.write_text(json.dumps(found[:3]))
    return found


def means_wide(text: str) -> bool:
    """Whether a kernel's text asks for float64 in its own words."""
    return bool(re.search(r"\bwide\(|np\.float64\(", text))


def single_precision(case: Case) -> str:
    """The float32 CPU kernels compute in float32; wide() says where one means otherwise."""
    if case.device != "cpu":
        raise Skipped("reads the CPU kernels' code")
    with recorded_kernels() as used:
        runner = Runner(case, "float32")
        runner.run(runner.cast(case.inputs()))
    searched = 0
    for kernel, variant in used:
        if variant.dtype != "float32" or means_wide(kernel.text(variant)):
            continue
        searched += 1
        found = _verdict(kernel, variant)
        if found:
            function = kernel.function
            raise Failed(
                f"{function.file}:{function.line}: the float32 kernel {function.name} computes in float64"
                " (a division of integers, a float64 array or a Python float brings it: use real(...), or "
                f"wide(...) where it is meant). LLVM: {found[0].strip()[:120]}"
            )
    if not used:
        raise Skipped("the op launches no kernel (a view)")
    if not searched:
        raise Skipped("every kernel of the op asks for float64 in places with wide()")
    return (
        f"{searched} of {len(used)} kernels searched, the others say wide()" if searched < len(used) else ""
    )
