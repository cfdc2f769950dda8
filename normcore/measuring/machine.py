"""The machine and the software that a measurement was made with: without them its numbers mean nothing."""

import ctypes
import gc
import importlib.metadata
import os
import pathlib
import platform
import sys
from collections.abc import Iterable
from typing import Any

from normcore.devices.device import Device
from normcore.kernels.caches import caches

LIBRARIES = ("normcore", "numpy", "numba", "llvmlite", "numba-cuda", "cupy-cuda13x", "torch")


def describe(devices: Iterable[Device]) -> dict[str, Any]:
    """Processor, cores, caches, memory, versions, threads; of a GPU its name, driver and clocks."""
    import numba

    found: dict[str, Any] = {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "vectors": _vectors(),
        "caches": caches(),
        "memory_bytes": _memory(),
        "python": platform.python_version(),
        "versions": versions(),
        "threads": numba.get_num_threads(),
        "threading_layer": _threading_layer(),
    }
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if governor:
        found["governor"] = governor
    for device in devices:
        if device.name != "cpu":
            found.update(device.describe())  # type: ignore[attr-defined]
    return found


def versions() -> dict[str, str]:
    """The installed versions of what the numbers depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def give_back_freed() -> None:
    """Returns freed memory to the system, which a tuned allocator (peer.py) would keep and the system counts as used.

    To count it as free instead would spare clearing the pages anew, but it lies in pieces: a run of large rows ended
    for want of memory.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
    if trim is not None:  # only glibc has it
        trim(0)


def _processor() -> str:
    """Its name, with its kind as LLVM knows it (znver5): virtual machines often give a family's name alone."""
    import llvmlite.binding as llvm

    names = (
        line.split(":", 1)[1].strip()
        for line in _text("/proc/cpuinfo").splitlines()
        if line.startswith("model name")
    )
    name = next(names, platform.processor() or platform.machine())
    kind = llvm.get_host_cpu_name()
    return name if kind in ("", "generic") else f"{name} ({kind})"


def _vectors() -> str:
    from normcore.kernels.lowered import host_features

    features = host_features()
    for name, label in (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("neon", "NEON"), ("sse4.2", "SSE4")):
        if features.get(name):
            return label
    return "unknown"


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def _threading_layer() -> str:
    import numba

    try:
        return str(numba.threading_layer())
    except ValueError:  # no parallel kernel ran so far
        return "none yet"


def _text(path: str | pathlib.Path) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
