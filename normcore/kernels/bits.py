"""Bit casts between a float and the integer of the same width, for scalar mathematics.

    bits_of(float32) -> int32        float_bits(int32) -> float32
    bits_of(float64) -> int64        float_bits(int64) -> float64

Each is an object that Python can call, so that kernels also run uncompiled, and that Numba knows by name: in
a compiled kernel it is one `bitcast`, which vectorizes and costs nothing. A generated module only has to
import it. Signs and NaN payloads are kept. Any other type is a typing error in a kernel and a KeyError in
Python.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import lower_builtin, type_callable

_WIDTHS = (
    (np.float32, np.int32, types.float32, types.int32),
    (np.float64, np.int64, types.float64, types.int64),
)


class BitCast:
    """A bit cast between scalars of equal width, chosen by the argument's type."""

    def __init__(
        self, name: str, doc: str, python: dict[np.dtype, type], numba: dict[types.Type, types.Type]
    ):
        self.__name__ = name
        self.__doc__ = doc
        self._python = python
        self._numba = numba
        type_callable(self)(self._typer)
        for argument in numba:
            lower_builtin(self, argument)(_lower)

    def __call__(self, value: Any) -> Any:
        value = np.asarray(value)
        return value.view(self._python[value.dtype])[()]

    def __repr__(self) -> str:
        return self.__name__

    def _typer(self, context: Any) -> Any:
        return lambda value: self._numba.get(value)


def _lower(context, builder, signature, arguments):
    return builder.bitcast(arguments[0], context.get_value_type(signature.return_type))


float_bits = BitCast(
    "float_bits",
    "The float whose bit pattern is the given int32 or int64.",
    {np.dtype(integer): real for real, integer, _, _ in _WIDTHS},
    {integer: real for _, _, real, integer in _WIDTHS},
)
bits_of = BitCast(
    "bits_of",
    "The bit pattern of a float32 or float64 as a signed integer.",
    {np.dtype(real): integer for real, integer, _, _ in _WIDTHS},
    {real: integer for _, _, real, integer in _WIDTHS},
)
