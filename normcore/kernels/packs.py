"""Sixteen bytes at once in CUDA kernels, and 16-bit storage: the loads and stores of generated chains.

    aligned(array) -> bool                  whether the array starts at a multiple of 16 bytes
    load_pack(array, i) -> tuple            elements i, i + 1, ...: as many as fill 16 bytes, in one load
    store_pack(array, i, values)            the same the other way
    load_one(array, i), store_one(array, i, value)

Arrays of float32 and float64 give and take their own type. Arrays of float16, and of uint16, which holds the bits
of bfloat16 (NumPy and numba know no such type), give and take float32: rounded to the nearest on the way in, ties to
even, NaN kept. i must be a multiple of the pack's length where the array is aligned; nothing is checked.

In a compiled kernel each is LLVM IR (packs_cuda.py). The functions here are what the simulator runs.
"""

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from normcore.storage import from_bits, to_bits

PACK_BYTES = 16
NAMES = ("aligned", "load_one", "load_pack", "store_one", "store_pack")


class Simulated:
    """A function that generated modules import by its name instead of holding its text."""

    def __init__(self, python: Callable[..., Any]):
        self.__name__, self.__module__, self.__doc__ = python.__name__, python.__module__, python.__doc__
        self._python = python

    def __call__(self, *arguments: Any) -> Any:
        return self._python(*arguments)


@Simulated
def aligned(array: Any) -> bool:
    return bool(array.ctypes.data % PACK_BYTES == 0)


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


def functions() -> dict[str, Any]:
    """All of them by name: compiled where numba-cuda is there, else as the simulator runs them."""
    owner: Any = sys.modules[__name__]
    if not numba.config.ENABLE_CUDASIM and importlib.util.find_spec("numba_cuda") is not None:
        from normcore.kernels import packs_cuda as owner
    return {key: getattr(owner, key) for key in NAMES}
