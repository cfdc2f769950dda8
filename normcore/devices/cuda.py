"""The GPU: CuPy arrays, kernels by numba.cuda. The only host code that knows either library.

One blocking stream carries everything: numba's launches, CuPy's copies and cuBLAS. Blocking means that it
waits for the legacy default stream and the other way round, so arrays that a caller makes on CuPy's or
PyTorch's default stream are ready when a kernel reads them, and results are ready when the caller's next
operation does.

With NUMBA_ENABLE_CUDASIM=1 the device is a simulator that needs no GPU and no CuPy (cuda_simulator.py, cuda_threads.py).
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from normcore.devices.device import Device
from normcore.errors import MemoryBudgetError

BLOCK = 256  # threads: eight warps, a divisor of every register and thread limit since Volta
INSTALL = 'pip install "normcore[cuda]"'
DRIVER_NEEDED = 13000  # the libraries of the extra `cuda` are built for CUDA 13.0
LIBRARIES = {"numba_cuda": "numba-cuda", "cupy": "CuPy", "cuda.core": "cuda-core"}
VIEWS_KEPT = 4096


def simulating() -> bool:
    """Whether numba.cuda was told to simulate; numba reads the same variable."""
    return os.environ.get("NUMBA_ENABLE_CUDASIM", "0") not in ("", "0")


@cache
def missing() -> str | None:
    """What keeps CUDA from working here and how to mend it, or None. Imports neither numba nor CuPy."""
    if simulating():
        return None
    faults = []
    driver = _driver()
    if driver is not None:
        faults.append(driver)
    absent = [label for module, label in LIBRARIES.items() if not _installed(module)]
    if absent:
        faults.append(f"{' and '.join(absent)} not installed: {INSTALL}")
    return "; ".join(faults) or None


@cache
def device() -> Device:
    """The one CUDA device of this process: a Cuda, or the simulator. Call it when missing() is None."""
    if simulating():
        from normcore.devices.cuda_simulator import Simulator

        return Simulator()
    return Cuda()


def launch_size(extent: Any, most_threads: int, block: int = BLOCK) -> tuple[int, int]:
    """(grid, block) for an extent: n items for a grid-stride loop, or (grid, block) itself.

    The grid of a grid-stride loop is as large as what can run at once (most_threads) and no larger: more
    blocks would only repeat each block's start. A grid of 0 means that there is nothing to launch.
    """
    if isinstance(extent, tuple):
        grid, block = extent
        return int(grid), int(block)
    return min(-(-int(extent) // block), max(1, most_threads // block)), block


def scalar_arguments(arguments: tuple[Any, ...], real: Callable[[float], Any]) -> list[Any]:
    """Kernel arguments with Python floats turned into the kernel's dtype: as float64 they would make
    arithmetic double. A np.float64 stays, for kernels that want it."""
    return [_scalar(a, real) for a in arguments]


def _scalar(a: Any, real: Callable[[float], Any]) -> Any:
    if type(a) is float:
        return real(a)
    if type(a) is tuple:
        return tuple([_scalar(v, real) for v in a])
    return a


def nothing(*arguments: Any) -> None:
    """A launch over no items."""


class Cuda:
    """See normcore.devices.device.Device. Arrays are CuPy's, from its memory pool."""

    name = "cuda"

    def __init__(self) -> None:
        import cupy
        from cupy._core import _routines_linalg as linalg
        from numba import cuda
        from numba.cuda.core import config

        self._cupy, self._numba = cupy, cuda
        self.stream = cupy.cuda.Stream()  # also creates the context, which numba then joins
        self.stream.use()
        self._launch_stream = cuda.external_stream(self.stream.ptr)
        config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # a small layer makes a small grid; nothing to warn about
        # No TF32, whatever the variable CUPY_TF32 says.
        linalg.set_compute_type(np.dtype(np.float32), linalg.COMPUTE_TYPE_FP32)
        self.index = int(cupy.cuda.Device().id)
        properties = cupy.cuda.runtime.getDeviceProperties(self.index)
        self.title = properties["name"].decode()
        # Of kernels within 32 registers all these threads run at once; the blocks of larger ones queue.
        self.most_threads = properties["multiProcessorCount"] * properties["maxThreadsPerMultiProcessor"]
        self._launchers: dict[Any, Callable[..., None]] = {}
        self._lanes: dict[int, tuple[Any, Any, dict[Any, Callable[..., None]], Any]] = {}
        self._lane_lock = threading.RLock()
        self._views: dict[Any, Any] = {}
        self._scratch: Any = None

    # -- memory ----------------------------------------------------------------------------------------------

    def empty(self, nbytes: int) -> Any:
        try:
            with self.stream:
                return self._cupy.empty(nbytes, np.uint8)  # the pool aligns to 512 bytes
        except self._cupy.cuda.memory.OutOfMemoryError as fault:
            raise MemoryBudgetError(
                f"{self.title} has no room for {nbytes / 1e9:.2f} GB ({fault}); use smaller batches"
            ) from None

    def scratch(self, nbytes: int) -> Any:
        if self._scratch is None or self._scratch.nbytes < nbytes:
            self._scratch = None  # give it back first
            self._scratch = self.empty(nbytes)
        return self._scratch[:nbytes]

    def array(self, values: Any, dtype: str) -> Any:
        with self.stream:
            return self._cupy.array(self.adopt(values), dtype=dtype)

    def adopt(self, value: Any) -> Any:
        if isinstance(value, self._cupy.ndarray):
            return value
        if hasattr(value, "detach"):
            value = value.detach()  # PyTorch gives no interface to tensors that require a gradient
            if str(value.dtype) == "torch.bfloat16":  # nor to these: their bits, see normcore/storage.py
                return self.adopt(value.view(sys.modules["torch"].int16)).view(np.uint16)
        with self.stream:
            if hasattr(value, "__cuda_array_interface__"):
                return self._cupy.asarray(value)
            if hasattr(value, "__dlpack_device__") and value.__dlpack_device__()[0] != 1:
                return self._cupy.from_dlpack(value)
            if hasattr(value, "__dlpack__") and not hasattr(value, "__array_interface__"):
                value = np.from_dlpack(value)
            return self._cupy.asarray(np.asarray(value))

    def to_host(self, array: Any) -> Any:
        return self._cupy.asnumpy(array, stream=self.stream)

    def synchronize(self) -> None:
        self.stream.synchronize()

    def free_memory(self) -> int:
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        return int(free) + int(self._cupy.get_default_memory_pool().free_bytes())

    def describe(self) -> dict[str, Any]:
        """What a measurement must say about the GPU it was made on."""
        runtime = self._cupy.cuda.runtime
        properties = runtime.getDeviceProperties(self._cupy.cuda.Device().id)
        version = runtime.driverGetVersion()
        return {
            "gpu": self.title,
            "driver_cuda": f"{version // 1000}.{version % 1000 // 10}",
            "multiprocessors": properties["multiProcessorCount"],
            "gpu_memory_bytes": int(properties["totalGlobalMem"]),
            "gpu_l2_bytes": int(properties["l2CacheSize"]),
            "cupy": self._cupy.__version__,
            **_gpu_state(),
        }

    def measure(self, call: Callable[[], Any], repeats: int) -> float:
        """Seconds a call takes when it runs `repeats` times in a row, by the device's own clock."""
        start, end = (self._cupy.cuda.Event() for _ in range(2))
        start.record(self.stream)
        for _ in range(repeats):
            call()
        end.record(self.stream)
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(start, end)) / 1000 / repeats

    # -- work ------------------------------------------------------------------------------------------------

    @contextmanager
    def on_stream(self, pointer: int) -> Iterator[None]:
        """Inside, everything goes to another library's stream (the address of a cudaStream_t), in its order.

        The legacy default stream (0) needs no change: see the top of this file. Scratch memory is kept for each
        stream, because two streams run at once. One thread at a time: a library may call from threads of its own, as
        PyTorch's backward does.
        """
        if pointer in (0, self.stream.ptr):
            with self.stream:
                yield
            return
        with self._lane_lock:
            own = (self.stream, self._launch_stream, self._launchers, self._scratch)
            lane = self._lanes.get(pointer)
            if lane is None:
                external = self._cupy.cuda.ExternalStream(pointer)
                lane = (external, self._numba.external_stream(pointer), {}, None)
            self.stream, self._launch_stream, self._launchers, self._scratch = lane
            try:
                with self.stream:
                    yield
            finally:
                self._lanes[pointer] = (self.stream, self._launch_stream, self._launchers, self._scratch)
                self.stream, self._launch_stream, self._launchers, self._scratch = own

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """out = a @ b by cuBLAS in full precision (no TF32); strided batches as in NumPy."""
        with self.stream:
            self._cupy.matmul(a, b, out=out)

    def eigh(self, a: Any, values: Any, vectors: Any) -> None:
        """By cuSOLVER, one matrix after the other."""
        with self.stream:
            for k in range(len(a)):
                bad = (a[k] * 0).sum()  # 0, or NaN where an element is not finite; no need to wait for it
                values[k], vectors[k] = self._cupy.linalg.eigh(self._cupy.nan_to_num(a[k]))
                values[k] += bad
                vectors[k] += bad

    def launcher(self, kernel: Any, extent: Any, dtype: str) -> Callable[..., None]:
        """The kernel bound to a launch size and this device's stream; the same object for the same
        arguments."""
        key = (kernel, extent, dtype)
        found = self._launchers.get(key)
        if found is None:
            found = self._launchers[key] = self._bind(kernel, extent, dtype)
        return found

    def _bind(self, kernel: Any, extent: Any, dtype: str) -> Callable[..., None]:
        grid, block = launch_size(extent, self.most_threads)
        if not grid:
            return nothing
        configured = kernel[grid, block, self._launch_stream]
        real, array, view = np.dtype(dtype).type, self._cupy.ndarray, self._view

        def launch(*arguments: Any) -> None:
            configured(*[view(a) if isinstance(a, array) else _scalar(a, real) for a in arguments])

        return launch

    def _view(self, array: Any) -> Any:
        """The array as numba's own class. Making one costs more than a launch, so they are kept: a view says
        only where and what shape, owns nothing, and is right for whichever array lives there."""
        key = (array.data.ptr, array.shape, array.strides, array.dtype)
        found = self._views.get(key)
        if found is None:
            if len(self._views) >= VIEWS_KEPT:
                self._views.clear()
            interface = {**array.__cuda_array_interface__, "stream": None}  # ours: ordered already
            found = self._numba.from_cuda_array_interface(interface, owner=None, sync=False)
            self._views[key] = found
        return found


def _gpu_state() -> dict[str, str]:
    """Driver, clocks, temperature and what throttles, as nvidia-smi has them; empty without it."""
    fields = {
        "driver": "driver_version",
        "gpu_clock": "clocks.sm",
        "gpu_memory_clock": "clocks.mem",
        "gpu_temperature": "temperature.gpu",
        "gpu_throttled": "clocks_throttle_reasons.active",
    }
    command = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader", "--id=0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (value.strip() for value in done.stdout.split(",")), strict=False))


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # the parent package is not there
        return False


def _library(name: str) -> Any:
    return ctypes.CDLL(name)


def _driver() -> str | None:
    """What is wrong with NVIDIA's driver or its devices, or None; asks the driver itself and creates no
    context."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        driver = _library(name)
    except OSError:
        return f"no NVIDIA driver ({name} cannot be loaded): install the driver, or use --device cpu"
    status = driver.cuInit(0)
    count, version = ctypes.c_int(0), ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0 or not count.value:
        return f"the NVIDIA driver finds no usable GPU (error {status}): see what nvidia-smi shows"
    if version.value < DRIVER_NEEDED:
        has = f"{version.value // 1000}.{version.value % 1000 // 10}"
        return f"the NVIDIA driver supports CUDA {has}, but 13.0 is needed: update it to version 580 or newer"
    return None
