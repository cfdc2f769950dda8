"""CUDA without a GPU: NumPy arrays, and kernels run thread by thread in Python (NUMBA_ENABLE_CUDASIM=1).

numba's simulator supplies the names of a kernel (cuda.grid, atomics, popc ...), cuda_threads.py runs it. Grids
are tiny, for Python is slow: a grid-stride loop gives the same result from any grid.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from normcore.devices.cpu import Cpu
from normcore.devices.cuda import launch_size, nothing, scalar_arguments
from normcore.devices.cuda_threads import SimulatorError, kernel_text, run

BLOCK, GRID = 4, 3  # of a grid-stride loop: several blocks, and most often a remainder
COOPERATING = 64  # threads of a block whose kernel asks for its size: two warps show what one would hide


class DeviceArray(np.ndarray):
    """A NumPy array that mixes with the host's arrays as little as CuPy's do."""

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        _no_host_arrays(inputs + (out or ()), f"np.{ufunc.__name__}")
        plain = [_plain(x) for x in inputs]
        if out is not None:
            options["out"] = tuple(_plain(x) for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        return result.view(DeviceArray) if isinstance(result, np.ndarray) else result

    def __array_function__(self, function: Any, kinds: Any, inputs: Any, options: Any) -> Any:
        _no_host_arrays(inputs, f"np.{function.__name__}")
        result = function(*map(_plain, inputs), **{key: _plain(value) for key, value in options.items()})
        return result.view(DeviceArray) if isinstance(result, np.ndarray) else result

    def __setitem__(self, key: Any, value: Any) -> None:
        _no_host_arrays((value,), "an assignment")
        super().__setitem__(key, value)


def _no_host_arrays(values: Any, what: str) -> None:
    for value in values:
        if isinstance(value, list | tuple):
            _no_host_arrays(value, what)
        if isinstance(value, np.ndarray) and not isinstance(value, DeviceArray) and value.ndim:
            raise SimulatorError(
                f"{what} mixes arrays of the device and of the host: use device.array or to_host"
            )


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_plain, value))
    return value.view(np.ndarray) if isinstance(value, DeviceArray) else value


class StandIn(Cpu):
    """A CUDA device whose arrays are NumPy's. `empty` gives NaN bytes, so that what nobody wrote shows."""

    name = "cuda"
    title = "simulator"

    def empty(self, nbytes: int) -> np.ndarray:
        array = super().empty(nbytes)
        array[...] = 0xFF
        return array.view(DeviceArray)

    def scratch(self, nbytes: int) -> np.ndarray:
        return self.empty(nbytes)

    def array(self, values: Any, dtype: str) -> np.ndarray:
        return np.array(values, dtype).view(DeviceArray)

    def adopt(self, value: Any) -> np.ndarray:
        """A copy, unless it is the device's own: memory of the host is another memory."""
        return value if isinstance(value, DeviceArray) else super().adopt(value).copy().view(DeviceArray)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        return np.array(array)

    def measure(self, call: Callable[[], Any], repeats: int) -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - started) / repeats

    def matmul(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        _no_host_arrays((a, b, out), "a matrix product")
        np.matmul(_plain(a), _plain(b), out=_plain(out))

    def eigh(self, a: np.ndarray, values: np.ndarray, vectors: np.ndarray) -> None:
        _no_host_arrays((a, values, vectors), "an eigen-decomposition")
        super().eigh(_plain(a), _plain(values), _plain(vectors))


def kernel_arguments(arguments: tuple[Any, ...], real: Callable[[float], Any]) -> list[Any]:
    """What a kernel gets for these arguments. Raises SimulatorError for an array of the host: a launch would
    copy it to the device and back."""
    _no_host_arrays(arguments, "a launch")
    return [_plain(a) for a in scalar_arguments(arguments, real)]


class Simulator(StandIn):
    """See normcore.devices.device.Device."""

    def describe(self) -> dict[str, Any]:
        return {"gpu": self.title}

    def measure(self, call: Callable[[], Any], repeats: int) -> float:
        """Seconds of this processor: they say nothing about a GPU."""
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        return (time.perf_counter() - started) / repeats

    def launcher(self, kernel: Any, extent: Any, dtype: str) -> Callable[..., None]:
        text = kernel_text(kernel.py_func)
        if isinstance(extent, tuple):
            grid, block = launch_size(extent, 1)
            if text.asks_block:
                block = min(block, COOPERATING)
        elif text.waits:
            grid, block = launch_size(extent, 2 * COOPERATING, COOPERATING)
        else:
            grid, block = launch_size(extent, GRID * BLOCK, BLOCK)
        if grid < 1:
            return nothing
        real = np.dtype(dtype).type
        return lambda *arguments: run(text, grid, block, kernel_arguments(arguments, real))
