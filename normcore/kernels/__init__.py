"""What an op file imports to write kernels; see kernel.py (decorators), source.py (generation), store.py (cache)."""

from typing import Any

from normcore.kernels.function import Function
from normcore.kernels.kernel import (
    CudaKernel,
    Kernel,
    KernelError,
    Variant,
    compiling,
    cpu,
    cuda,
    inline,
    running,
    uncompiled,
    variant,
)


def _placeholder(name: str, meaning: str) -> Any:
    def only_in_kernels(*arguments: Any) -> Any:
        raise TypeError(f"{name} has meaning only inside kernels: {meaning}")

    return only_in_kernels


# Names with a meaning inside kernels only; the generator writes them (source.py).
prange: Any = range
real = _placeholder("real", "the kernel's dtype")
wide = _placeholder("wide", "float64, whatever the kernel's dtype")
LANES: Any = 0  # elements of 16 bytes as arrays are stored, in CUDA kernels (lanes.py)
cu = _placeholder("cu", "numba.cuda")
epilogue = _placeholder("epilogue", "the fused elementwise chain, epilogue(value, e)")
epilogue_gradient = _placeholder("epilogue_gradient", "its gradient, epilogue_gradient(z, y, g, e)")

__all__ = [
    "LANES",
    "CudaKernel",
    "Function",
    "Kernel",
    "KernelError",
    "Variant",
    "compiling",
    "cpu",
    "cu",
    "cuda",
    "epilogue",
    "epilogue_gradient",
    "inline",
    "prange",
    "real",
    "running",
    "uncompiled",
    "variant",
    "wide",
]
