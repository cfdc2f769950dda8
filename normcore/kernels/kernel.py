"""Kernels as op files see them: the decorators @cpu, @cuda and @inline, and launching by `kernel[t](...)`.

Nothing is compiled or imported at decoration. `kernel[t]` picks the variant that t asks for (dtype, serial or
parallel, fused epilogue), builds its module at the first use, and returns the compiled function itself, so a call
in steady state costs one dictionary look-up more than the bare Numba dispatcher.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from normcore.errors import NormcoreError
from normcore.kernels import store
from normcore.kernels.function import Function, Inline, read
from normcore.kernels.packs import PACK_BYTES
from normcore.kernels.source import COUNTED, UNCOUNTED, Writer
from normcore.storage import array_dtype


@dataclass(frozen=True, eq=False)  # identity is equality: look-ups in steady state hash a pointer
class Variant:
    """What distinguishes the compiled forms of one kernel. Make them by `variant()`, which interns."""

    dtype: str
    parallel: bool = True
    compiled: bool = True
    chain: Any = None  # normcore.elementwise_kernels.Chain fused into the kernel, or None
    storage: str = ""  # "float16" or "bfloat16" where arrays hold 16 bits and dtype is the arithmetic's


_variants: dict[tuple[Any, ...], Variant] = {}


def variant(dtype: str, parallel: bool = True, chain: Any = None, storage: str = "") -> Variant:
    """The one Variant of these properties; `chain` must be hashable by value."""
    key = (dtype, parallel, compiling(), chain, storage)
    if key not in _variants:
        _variants[key] = Variant(dtype, parallel, key[2], chain, storage)
    return _variants[key]


_uncompiled_depth = 0


def compiling() -> bool:
    """False inside `uncompiled()` or with NORMCORE_UNCOMPILED=1: kernels run as plain Python."""
    return not _uncompiled_depth and os.environ.get("NORMCORE_UNCOMPILED", "") in ("", "0")


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """Layers and networks built inside run their kernels as plain Python, for a debugger. Slow."""
    global _uncompiled_depth
    _uncompiled_depth += 1
    try:
        yield
    finally:
        _uncompiled_depth -= 1


_compile_only = False


@contextlib.contextmanager
def compile_only() -> Iterator[None]:
    """Inside, launching a CPU kernel compiles or loads it for these arguments but does not run it."""
    global _compile_only
    before, _compile_only = _compile_only, True
    try:
        yield
    finally:
        _compile_only = before


def running() -> bool:
    """False where launches only compile (compile_only, recording): what kernels write is then not to be looked at."""
    return not _compile_only


_recorded: "list[tuple[Kernel, Variant]] | None" = None


@contextlib.contextmanager
def recording() -> "Iterator[list[tuple[Kernel, Variant]]]":
    """Inside, launches are noted in the list that it gives, and nothing is compiled or run."""
    global _recorded
    before, _recorded = _recorded, []
    try:
        with compile_only():  # which leaves the path of a usual launch as short as it is
            yield _recorded
    finally:
        _recorded = before


def _not_run(*arguments: Any) -> None:
    """What a launch is while recording."""


class KernelError(NormcoreError):
    """A kernel that Numba cannot compile; points at the author's file and line."""


# Called with (kernel name, seconds, loaded from the disk cache) after each first call of a compiled kernel.
listeners: list[Callable[[str, float, bool], None]] = []


@dataclass(frozen=True)
class Compiled:
    """Totals since the process started, for `warm` and the progress display."""

    compiled: int = 0
    loaded: int = 0
    seconds: float = 0.0


statistics = Compiled()


class Kernel:
    """An entry kernel of an op file. `kernel[t](arrays...)` runs it for the layer whose Tensors are t."""

    target = "cpu"

    def __init__(
        self, function: Function, constants: Mapping[str, Any] | None = None, doc: str | None = None
    ):
        self.function = function
        self.constants = dict(constants or {})
        self.__doc__ = doc
        self.__name__ = function.name
        self._ready: dict[Variant, Any] = {}
        self._opening: dict[
            Variant, Callable[..., None]
        ] = {}  # what makes a variant ready at its first launch
        self._specialized: dict[tuple[tuple[str, Any], ...], Kernel] = {}

    def with_constants(self, **constants: Any) -> "Kernel":
        """The same kernel with numbers or @inline functions in place of these module-level names."""
        key = tuple(constants.items())
        made = self._specialized.get(key)
        if made is None:
            made = self._specialized[key] = type(self)(
                self.function, {**self.constants, **constants}, self.__doc__
            )
        return made

    def __getitem__(self, t: Any) -> Callable[..., None]:
        ready = self._ready.get(t.variant)
        return ready if ready is not None and not _compile_only else self._first(t.variant)

    def function_of(self, variant: Variant) -> Callable[..., None]:
        """The function itself, for other threads than the one that may be in `compile_only` or `recording`."""
        return self._module(variant)[0].kernel  # type: ignore[no-any-return]

    def text(self, variant: Variant) -> str:
        """The generated module's source."""
        return self.written_out(self.function, variant)

    def written_out(self, entry: Function, variant: Variant) -> str:
        """The module of `entry` and all it reaches."""
        from normcore.elementwise_kernels import placeholders
        from normcore.kernels.scalar_math import CPU_MATH

        functions = CPU_MATH[variant.dtype] if self.target == "cpu" else {}
        writer = Writer(
            variant.dtype,
            self.target,
            functions,
            self.constants,
            placeholders(variant.chain),
            variant.parallel,
            PACK_BYTES // array_dtype(variant.storage or variant.dtype).itemsize
            if self.target == "cuda"
            else 0,
        )
        return writer.write(entry)

    def _first(self, variant: Variant) -> Callable[..., None]:
        if _recorded is not None:
            _recorded.append((self, variant))
            return _not_run
        opening = self._opening.get(variant)
        if opening is None:
            opening = self._opening[variant] = self._open(variant)
        return opening

    def _module(self, variant: Variant) -> tuple[Any, str]:
        """The module, and the text that must be compiled instead if the kernel turns out to make arrays, or "".

        Making them takes Numba's reference counts, whose atomic additions at every slice cost short loops more than
        the loop itself; hence kernels are compiled without, and only one that Numba refuses so is compiled with
        them. Its text is on disk from then on, and taken at once.
        """
        name, text = self.__name__.strip("_"), self.text(variant)
        counted = text.replace(UNCOUNTED, COUNTED)
        if not variant.compiled or counted == text:
            return store.load(name, text, variant.compiled), ""
        if store.holds(name, counted):
            return store.load(name, counted), ""
        return store.load(name, text), counted

    def _open(self, variant: Variant) -> Callable[..., None]:
        module, counted = self._module(variant)
        if not variant.compiled:
            self._ready[variant] = module.kernel
            return module.kernel  # type: ignore[no-any-return]

        def run(*arguments: Any) -> None:
            if _compile_only:
                module.kernel.compile(tuple(module.kernel.typeof_pyval(a) for a in arguments))
            else:
                module.kernel(*arguments)
                self._ready[variant] = module.kernel

        def first_call(*arguments: Any) -> None:
            nonlocal module, counted
            known, hits = len(module.kernel.overloads), sum(module.kernel.stats.cache_hits.values())
            started = time.perf_counter()
            try:
                try:
                    run(*arguments)
                except Exception as fault:
                    if not counted or not _is_numbas(fault):
                        raise
                    module, counted = store.load(self.__name__.strip("_"), counted), ""
                    run(*arguments)  # what was wrong for another reason is still wrong
            except Exception as fault:
                raise _explained(fault, self.function, module) from fault
            if len(module.kernel.overloads) > known:
                loaded = sum(module.kernel.stats.cache_hits.values()) > hits
                _record(self.__name__.strip("_"), time.perf_counter() - started, loaded)

        return first_call


def _record(name: str, seconds: float, loaded: bool) -> None:
    global statistics
    statistics = Compiled(
        statistics.compiled + (not loaded), statistics.loaded + loaded, statistics.seconds + seconds
    )
    for listener in listeners:
        listener(name, seconds, loaded)


class CudaKernel(Kernel):
    """A CUDA entry kernel: `kernel[t, n](...)` covers n items, `kernel[t, (grid, block)](...)` is explicit."""

    target = "cuda"

    def __getitem__(self, key: Any) -> Callable[..., None]:
        t, extent = key
        if _recorded is not None:
            _recorded.append((self, t.variant))
            return _not_run
        ready = self._ready.get(t.variant)
        if ready is None:
            return self._first_launch(t, extent)
        return t.device.launcher(ready, extent, t.variant.dtype)  # type: ignore[no-any-return]

    def _first_launch(self, t: Any, extent: Any) -> Callable[..., None]:
        module = store.load(self.__name__.strip("_"), self.text(t.variant))
        launch = t.device.launcher(module.kernel, extent, t.variant.dtype)

        def first_call(*arguments: Any) -> None:
            started = time.perf_counter()
            try:
                launch(*arguments)
            except Exception as fault:
                raise _explained(fault, self.function, module) from fault
            self._ready[t.variant] = module.kernel
            _record(self.__name__.strip("_"), time.perf_counter() - started, False)

        return first_call


def cpu(python: Callable[..., None]) -> Kernel:
    """Declare a CPU entry kernel; nothing is compiled before its first use."""
    return Kernel(read(python), doc=python.__doc__)


def cuda(python: Callable[..., None]) -> CudaKernel:
    """Declare a CUDA entry kernel; numba.cuda is not imported before its first use."""
    return CudaKernel(read(python), doc=python.__doc__)


def inline(
    python: Callable[..., Any] | None = None,
    *,
    reassociate: bool = False,
    typed: bool = False,
    force: bool = False,
) -> Any:
    """Declare a helper that is compiled into every kernel that reaches it.

    reassociate: sums may be reordered by the compiler so that they vectorize (fixed at compile time, so results
    stay the same from run to run). typed: scalar arithmetic whose literals carry their
    types already; it is inlined whatever its size. force: inlined whatever its size; a loop over short slices of
    many arrays runs up to twice as fast, because a call would pass seven words for each array on the stack.
    """
    if python is None:
        return lambda function: Inline(function, reassociate=reassociate, typed=typed, force=typed or force)
    return Inline(python, reassociate=reassociate, typed=typed, force=typed or force)


def _is_numbas(fault: Exception) -> bool:
    from numba.core.errors import NumbaError

    return isinstance(fault, NumbaError)


def _explained(fault: Exception, function: Function, module: Any) -> Exception:
    """Numba's errors name the generated file; say where the author wrote it."""
    if not _is_numbas(fault):
        return fault
    message = str(fault).replace("\x1b", "")
    return KernelError(
        f"{function.file}:{function.line}: the kernel {function.name} does not compile; Numba says:\n{message}\n"
        f"(each function in {module.__file__} carries a comment that names its source file and line)"
    )
