"""The folder of generated kernel modules, and importing from it.

One file per kernel text, named by the text's hash, in the user's cache directory (NORMCORE_CACHE_DIR overrides).
Numba keeps its compiled code beside it. The folder holds text that is executed: it is made with mode 0700 and a
file is imported only if its text is exactly the text asked for. Several processes may write at once: each writes
a temporary name and renames it. Where the folder cannot be used, kernels live in memory only, said once.
"""

import hashlib
import importlib.util
import linecache
import os
import pathlib
import stat
import sys
import tempfile
import types
import warnings
from functools import cache
from typing import Any


class CacheWarning(UserWarning):
    """Kernels cannot be kept on disk and are compiled anew in each process."""


@cache
def folder() -> pathlib.Path | None:
    """The folder of generated modules, or None (with one warning) when it cannot be used safely."""
    import platformdirs

    root = os.environ.get("NORMCORE_CACHE_DIR") or platformdirs.user_cache_dir("normcore")
    path = pathlib.Path(root) / "kernels"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid"):
            status = path.stat()
            if status.st_uid != os.getuid():
                raise PermissionError("it belongs to another user")
            if stat.S_IMODE(status.st_mode) & 0o022:
                path.chmod(0o700)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as fault:
        warnings.warn(
            f"kernels are kept in memory only and compile again in each process: {path} cannot be used ({fault}); "
            "set NORMCORE_CACHE_DIR to a folder of your own",
            CacheWarning,
            stacklevel=2,
        )
        return None
    return path


@cache
def _versions() -> str:
    import llvmlite
    import numba
    import numpy

    return f"numba {numba.__version__}, llvmlite {llvmlite.__version__}, numpy {numpy.__version__}"


@cache
def use_whole_vectors() -> None:
    """Lets Numba use 512 bits where the processor has them.

    LLVM keeps Intel's processors at 256, for the first generations lowered their clock over wider ones; the later
    ones do not, and arithmetic kernels are up to 1.6 times faster. Left alone where NUMBA_CPU_FEATURES is set.
    """
    import numba
    from llvmlite import binding

    if numba.config.CPU_FEATURES is None and numba.config.CPU_NAME is None:
        features = binding.get_host_cpu_features()
        if features.get("avx512f"):
            numba.config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit"


def holds(name: str, text: str) -> bool:
    """Whether the folder has the compiled module of this text."""
    path = folder()
    text = _versioned(text)
    return path is not None and _holds(path / f"{_module_name(name, text)}.py", text)


def _versioned(text: str) -> str:
    return f"{text}# {_versions()}\n"


def _module_name(name: str, text: str) -> str:
    return f"normcore_kernel_{name}_{hashlib.sha256(text.encode()).hexdigest()[:20]}"


@cache
def load(name: str, text: str, compiled: bool = True) -> types.ModuleType:
    """The module whose source is `text`; with compiled=False its functions stay plain Python.

    The same text gives the same module object within a process.
    """
    if compiled:
        use_whole_vectors()
    else:
        text = _uncompiled(text)
    text = _versioned(text)
    module_name = _module_name(name, text)
    path = folder() if compiled else None
    if path is None:
        return _in_memory(module_name, text.replace("cache=True", "cache=False"))
    file = path / f"{module_name}.py"
    if not _holds(file, text):
        handle, temporary = tempfile.mkstemp(dir=path, prefix=f".{module_name}.")
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as out:
            out.write(text)
        os.replace(temporary, file)
    spec = importlib.util.spec_from_file_location(module_name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # Numba's cache finds the module by name when it unpickles
    try:
        spec.loader.exec_module(module)  # keeps the bytecode of the text that was just compared
    except (EOFError, TypeError, ValueError):  # damaged bytecode
        exec(compile(text, str(file), "exec"), module.__dict__)
    _load_lightly(module.kernel)
    return module


def _load_lightly(kernel: Any) -> None:
    """Give a CPU kernel that Numba caches the cache that loads without preparing to compile."""
    if hasattr(kernel, "enable_caching"):
        from numba.core.caching import FunctionCache

        from normcore.kernels.loading import KernelCache

        if isinstance(kernel._cache, FunctionCache):
            kernel._cache = KernelCache(kernel.py_func)


def _holds(file: pathlib.Path, text: str) -> bool:
    try:
        return file.read_bytes() == text.encode()
    except OSError:
        return False


def _in_memory(module_name: str, text: str) -> types.ModuleType:
    module = types.ModuleType(module_name)
    module.__file__ = f"<{module_name}>"
    linecache.cache[module.__file__] = (len(text), None, text.splitlines(True), module.__file__)
    sys.modules[module_name] = module
    exec(compile(text, module.__file__, "exec"), module.__dict__)
    return module


def _uncompiled(text: str) -> str:
    out = []
    for line in text.splitlines():
        if line.startswith("@njit("):
            continue
        if line.startswith("from numba import njit"):
            line = "prange = range"
        out.append(line)
    return "\n".join(out) + "\n"
