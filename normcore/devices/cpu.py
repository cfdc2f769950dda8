"""The CPU: NumPy arrays, kernels by Numba, threads by Numba's threading layer."""

import os
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

ALIGNMENT = 64  # a cache line, and the width of an AVX-512 register


def cores() -> int:
    """The processors that this process may use."""
    count = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
    return count or 1


class Cpu:
    """See normcore.devices.device.Device."""

    name = "cpu"

    def empty(self, nbytes: int) -> np.ndarray:
        raw = np.empty(nbytes + ALIGNMENT, np.uint8)
        start = -raw.ctypes.data % ALIGNMENT
        return raw[start : start + nbytes]

    def array(self, values: Any, dtype: str) -> np.ndarray:
        values = np.asarray(values, dtype)
        made = self.empty(values.nbytes).view(dtype).reshape(values.shape)
        made[...] = values
        return made

    def adopt(self, value: Any) -> np.ndarray:
        if isinstance(value, np.ndarray):
            return value
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
            return np.from_dlpack(value.detach() if hasattr(value, "detach") else value)
        return np.asarray(value)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return array

    def synchronize(self) -> None:
        """Kernels on the CPU have ended when their call returns."""

    def free_memory(self) -> int:
        try:
            with open("/proc/meminfo") as lines:
                for line in lines:
                    if line.startswith("MemAvailable:"):
                        return int(line.split()[1]) * 1024
        except OSError:
            pass  # not Linux: ask for all of physical memory below, or give up the check
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):
            return 1 << 62

    def launcher(self, kernel: Any, extent: Any, dtype: str) -> Callable[..., None]:
        raise TypeError("CPU kernels are called directly")

    def on_stream(self, pointer: int) -> Any:
        raise TypeError("the CPU has no streams")

    def scratch(self, nbytes: int) -> Any:
        raise TypeError("ops on the CPU declare their workspace; threads cannot share one")

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        raise TypeError("products on the CPU run on a fixed split of their own, see the ops that need them")

    def eigh(self, a: Any, values: Any, vectors: Any) -> None:
        with _blas().limit(limits=1):  # with more, the number of threads would show in the last bits
            for k in range(len(a)):
                if np.isfinite(a[k]).all():
                    values[k], vectors[k] = np.linalg.eigh(a[k])
                else:
                    values[k], vectors[k] = np.nan, np.nan


@cache
def _blas() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController().select(user_api="blas")


@cache
def device() -> Cpu:
    """The one CPU device; configures Numba's threads at its first use."""
    import numba

    # OpenMP starts a parallel region in a microsecond, the fallback in seventy.
    if "NUMBA_THREADING_LAYER" not in os.environ and "NUMBA_THREADING_LAYER_PRIORITY" not in os.environ:
        numba.config.THREADING_LAYER_PRIORITY = ["omp", "tbb", "workqueue"]
    return Cpu()


# Numba's workqueue layer aborts the process when two threads run parallel kernels at once.
lock = threading.Lock()
