"""The dtypes that a layer may be asked for: how they are stored, and what they compute in.

float32 and float64 are stored and computed as they are. float16 and bfloat16 are storage: inputs, outputs and their
gradients are held in 16 bits and computed in float32, converted where a kernel loads and stores them; parameters,
running state, statistics and scratch stay float32. That halves the memory that an elementwise op or a normalization
moves, which is all of its time on a GPU; on the CPU, whose kernels would spend it on the conversion, they are refused.
An op whose CUDA kernels convert says stores_16_bits.

NumPy and CuPy have no bfloat16, so such an array is one of uint16 that holds the bits: the upper half of a float32.
A layer takes bits as they are and converts floats; `to_bits` and `from_bits` do the same for users. A tensor of
torch.bfloat16 shares its memory as `tensor.view(torch.uint16)`.
"""

from typing import Any

import numpy as np

from normcore.errors import ParameterError

COMPUTED = ("float32", "float64")
STORED = {"float16": np.dtype(np.float16), "bfloat16": np.dtype(np.uint16)}  # 16 bits: how arrays hold them


def check(dtype: str, op: Any, device: str) -> None:
    """Raises ParameterError for a dtype that there is not, or that this op or device does not take."""
    if dtype in COMPUTED:
        return
    expected = "one of float32, float64 (and, for some ops on cuda, float16 and bfloat16)"
    if dtype not in STORED:
        raise ParameterError("dtype", expected, dtype)
    if device != "cuda":
        raise ParameterError(
            "dtype", f"float32 or float64 on the CPU: {dtype} storage is for device='cuda'", dtype
        )
    if not op.stores_16_bits:
        raise ParameterError(
            "dtype",
            f"float32 or float64 for {op.name}, whose kernels store no 16-bit numbers",
            dtype,
        )


def computed(dtype: str) -> str:
    """The dtype of a layer's arithmetic."""
    return "float32" if dtype in STORED else dtype


def array_dtype(dtype: Any) -> "np.dtype[Any]":
    """The dtype of arrays that hold it."""
    return STORED.get(dtype) or np.dtype(dtype)


def is_float(dtype: Any) -> bool:
    return dtype in STORED or np.dtype(dtype).kind == "f"


def hold(values: Any, dtype: str) -> Any:
    """An array that holds these float values as the dtype says, rounded."""
    return to_bits(values) if dtype == "bfloat16" else values.astype(dtype)


def values_of(array: Any, dtype: str) -> Any:
    """The float values that an array of a layer of this dtype holds."""
    return from_bits(array) if dtype == "bfloat16" and array.dtype == np.uint16 else array


def to_bits(values: Any) -> Any:
    """bfloat16 bits (uint16) of float values, rounded to the nearest, ties to even; NaN stays NaN.

    NumPy or CuPy arrays, or a scalar; anything but float32 is cast to it first.
    """
    values = values.astype(np.float32)
    bits = values.view(np.uint32).astype(np.uint64)  # room for the carry out of a NaN
    rounded = (bits + ((bits >> 16 & 1) + 0x7FFF)) >> 16
    is_nan = values != values
    return (rounded * ~is_nan + (bits >> 16 | 0x40) * is_nan).astype(np.uint16)


def from_bits(bits: Any) -> Any:
    """float32 values of bfloat16 bits (uint16); exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
