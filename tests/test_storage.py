"""The dtypes of layers and the bits of bfloat16."""

import numpy as np
import pytest

import normcore
from normcore.storage import from_bits, to_bits


def test_bits_are_rounded_to_the_nearest_even():
    # 1 + 2^-8 lies half way between two bfloat16 numbers, and so does 1 + 3 * 2^-8.
    x = np.array([1.0, 1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-8 + 2**-20, -2.5], np.float32)
    np.testing.assert_array_equal(from_bits(to_bits(x)), np.float32([1, 1, 1 + 2**-6, 1 + 2**-7, -2.5]))


def test_special_numbers_keep_their_kind():
    x = np.array([np.inf, -np.inf, -0.0, 3.4e38], np.float32)
    np.testing.assert_array_equal(from_bits(to_bits(x)), np.float32([np.inf, -np.inf, -0.0, np.inf]))
    every_nan = np.array([0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    assert np.isnan(from_bits(to_bits(every_nan))).all()


def test_every_pattern_survives_the_way_there_and_back():
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = from_bits(bits)
    kept = ~np.isnan(values)
    np.testing.assert_array_equal(to_bits(values)[kept], bits[kept])
    assert np.isnan(from_bits(to_bits(values[~kept]))).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_cpu_refuses_16_bit_storage(dtype):
    with pytest.raises(normcore.ParameterError, match=r"on the CPU.*device='cuda'"):
        normcore.layer("relu", input_shape=(2, 3), dtype=dtype)


def test_an_unknown_dtype_lists_the_known_ones():
    with pytest.raises(normcore.ParameterError, match=r"float32, float64 .*bfloat16.*int8"):
        normcore.layer("relu", input_shape=(2, 3), dtype="int8")
