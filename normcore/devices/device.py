"""What the engine asks of a device: memory, copies, launches. Kernels themselves come from the ops."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from normcore.errors import DeviceError


class Device(Protocol):
    """A place where arrays live and kernels run. Arrays are NumPy's on the CPU and CuPy's on the GPU."""

    name: str  # "cpu" or "cuda"

    def empty(self, nbytes: int) -> Any:
        """Uninitialized bytes (uint8, one-dimensional), aligned to 64."""

    def array(self, values: Any, dtype: str) -> Any:
        """A new array on the device holding these host values."""

    def adopt(self, value: Any) -> Any:
        """An array of this device that shares the value's memory where it can (DLPack, array interfaces)."""

    def to_host(self, array: Any) -> Any:
        """A NumPy array with the same values."""

    def synchronize(self) -> None:
        """Wait until everything launched so far is done."""

    def free_memory(self) -> int:
        """Bytes that could still be allocated."""

    def launcher(self, kernel: Any, extent: Any, dtype: str) -> Callable[..., None]:
        """A CUDA kernel bound to its launch size; not for the CPU.

        extent: the number of items of a grid-stride loop, or (grid, block). Python floats among the arguments
        arrive in the kernel as `dtype`, a np.float64 as float64.
        """

    def on_stream(self, pointer: int) -> AbstractContextManager[None]:
        """Inside, launches and copies go to the caller's stream instead of the device's own; not for the CPU."""

    def scratch(self, nbytes: int) -> Any:
        """Bytes (uint8) that belong to the caller until anybody's next call; not for the CPU.

        Safe to share because everything on the device runs in one order.
        """

    def matmul(self, a: Any, b: Any, out: Any) -> None:
        """out = a @ b by the device's library (cuBLAS, without TF32); not for the CPU."""

    def eigh(self, a: Any, values: Any, vectors: Any) -> None:
        """Eigenvalues (k, n), ascending, and eigenvectors (k, n, n), in columns, of symmetric float64 matrices a
        (k, n, n), by the device's LAPACK. A matrix with NaN or infinities gives NaN."""


def get(name: Any) -> Device:
    """The device "cpu", "cuda", or "auto" (CUDA where it works, else the CPU); a Device is returned as it is.

    Raises DeviceError for an unknown name, and for "cuda" without one: what is missing and how to install it.
    """
    from normcore.devices import cpu

    if not isinstance(name, str):
        return name  # type: ignore[no-any-return]
    if name == "cpu":
        return cpu.device()
    if name in ("cuda", "auto"):
        from normcore.devices import cuda

        missing = cuda.missing()
        if missing is None:
            return cuda.device()
        if name == "auto":
            return cpu.device()
        raise DeviceError(f"--device cuda: {missing}")
    raise DeviceError(f"unknown device {name!r}; known: auto, cpu, cuda")
