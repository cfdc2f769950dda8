"""Sixteen bytes at once in CUDA kernels, and 16-bit storage: how they load and store.

    aligned(array, i) -> bool               whether element i lies at a multiple of 16 bytes
    load_pack(array, i) -> tuple            elements i, i + 1, ...: as many as fill 16 bytes, in one load
    store_pack(array, i, values)            the same the other way
    read_pack(array, i, into), write_pack(array, i, values)     the same with local arrays in place of tuples
    load_one(array, i), store_one(array, i, value)

Arrays are flat. Kernels written by hand use them through lanes.py.

Arrays of float32 and float64 give and take their own type. Arrays of float16, and of uint16, which holds the bits
of bfloat16 (NumPy and numba know no such type), give and take float32: rounded to the nearest on the way in, ties to
even, NaN kept. A pack must be aligned; nothing is checked.

In a compiled kernel each is LLVM IR (packs_cuda.py). The functions here are what the simulator runs.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from normcore.storage import from_bits, to_bits

PACK_BYTES = 16  # that a CUDA thread loads and stores at once: the most one instruction moves


class Simulated:
    """A function that generated modules import by its name instead of holding its text.

    Python runs it as it stands; compiled kernels import the intrinsic of this name in packs_cuda.
    """

    def __init__(self, python: Callable[..., Any]):
        self.__name__, self.__module__, self.__doc__ = python.__name__, python.__module__, python.__doc__
        self._python = python

    def __call__(self, *arguments: Any) -> Any:
        return self._python(*arguments)

    def here(self) -> Any:
        """What kernels import: the intrinsic where kernels are compiled, else this."""
        import numba

        if numba.config.ENABLE_CUDASIM or importlib.util.find_spec("numba_cuda") is None:
            return self
        from normcore.kernels import packs_cuda

        return getattr(packs_cuda, self.__name__)


@Simulated
def aligned(array: Any, i: Any) -> bool:
    return bool((array.ctypes.data + i * array.itemsize) % PACK_BYTES == 0)


@Simulated
def load_one(array: Any, i: Any) -> Any:
    value = array[i]
    if array.dtype == np.uint16:
        return from_bits(value)
    return np.float32(value) if array.dtype == np.float16 else value


@Simulated
def store_one(array: Any, i: Any, value: Any) -> None:
    array[i] = to_bits(value) if array.dtype == np.uint16 else value


@Simulated
def load_pack(array: Any, i: Any) -> Any:
    return tuple(load_one(array, i + k) for k in range(PACK_BYTES // array.itemsize))


@Simulated
def store_pack(array: Any, i: Any, values: Any) -> None:
    for k, value in enumerate(values):
        store_one(array, i + k, value)


@Simulated
def read_pack(array: Any, i: Any, into: Any) -> None:
    for k in range(PACK_BYTES // array.itemsize):
        into[k] = load_one(array, i + k)


@Simulated
def write_pack(array: Any, i: Any, values: Any) -> None:
    for k in range(PACK_BYTES // array.itemsize):
        store_one(array, i + k, values[k])


def functions() -> dict[str, Any]:
    """All of them by name."""
    return {key: value for key, value in globals().items() if isinstance(value, Simulated)}
