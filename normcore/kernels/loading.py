"""Loading compiled kernels from Numba's cache without what only compiling needs.

Numba prepares every load as if the function were to be compiled into others: it installs all its overloads (a fifth
of a second, once a process) and parses the function's LLVM bitcode. Nothing calls a kernel but Python, so neither is
needed before a kernel is missing from the cache. Files and keys stay Numba's own: either class reads what the other
wrote.
"""

from typing import Any

from llvmlite import binding
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.core.runtime import rtsys


class _Kernels(CompileResultCacheImpl):  # type: ignore[misc]
    def rebuild(self, target_context: Any, payload: Any) -> Any:
        """The compiled kernel, with bitcode that only names the symbol that Python calls."""
        match payload:
            case ((name, "object", (code, _)), described, *rest) if hasattr(
                described, "llvm_cpython_wrapper_name"
            ):
                stub = _defining(described.llvm_cpython_wrapper_name)
                payload = ((name, "object", (code, stub)), described, *rest)
        return super().rebuild(target_context, payload)


class KernelCache(FunctionCache):  # type: ignore[misc]
    """Numba's cache of one kernel's compiled forms; a kernel that it has costs no more than linking it."""

    _impl_class = _Kernels

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        rtsys.initialize(target_context)  # reference counts of arrays; compiled code refers to it
        with self._guard_against_spurious_io_errors():
            found = self._load_overload(sig, target_context)
            if found is not None:
                return found
        return super().load_overload(sig, target_context)  # refreshes what compiling needs


def _defining(symbol: str) -> bytes:
    """Bitcode of a module that defines this symbol: by its bitcode Numba knows what a cached object holds."""
    module = binding.parse_assembly(f'define void @"{symbol}"() {{\n  ret void\n}}\n')
    return bytes(module.as_bitcode())
