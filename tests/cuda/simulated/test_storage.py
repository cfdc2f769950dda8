"""Chains on CUDA in detail: packs and what is left of them, arrays that start anywhere, 16-bit storage."""

import numpy as np
import pytest

import normcore
from normcore.devices.cuda import device
from normcore.devices.cuda_simulator import DeviceArray
from normcore.storage import from_bits, to_bits


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("count", [1, 8, 64, 133])
def test_any_length(dtype, count):
    layer = normcore.layer("relu", input_shape=(1, count), device="cuda", dtype=dtype)
    x = np.arange(-3, count - 3, dtype=np.float32)[None]
    y = device().to_host(layer.forward(x))
    values = from_bits(y) if dtype == "bfloat16" else y
    np.testing.assert_array_equal(values, np.maximum(x, 0))


@pytest.mark.parametrize("start", [0, 1, 3])
def test_arrays_that_start_between_packs(start):
    memory = device().empty(4 * 60).view(np.float32)
    x = memory[start : start + 50].reshape(1, 50)
    x[...] = device().array(np.linspace(-2, 2, 50), "float32")
    layer = normcore.layer("relu", input_shape=(1, 50), device="cuda")
    np.testing.assert_array_equal(device().to_host(layer.forward(x)), np.maximum(device().to_host(x), 0))
    assert isinstance(x, DeviceArray) and (x.ctypes.data % 16 == 0) == (start == 0)


def test_bfloat16_takes_bits_and_floats_and_gives_bits():
    layer = normcore.layer("identity", input_shape=(2, 9), device="cuda", dtype="bfloat16")
    x = np.random.default_rng(0).standard_normal((2, 9)).astype(np.float32)
    floats = device().to_host(layer.forward(x)).copy()
    bits = device().to_host(layer.forward(to_bits(x)))
    assert floats.dtype == bits.dtype == np.uint16
    np.testing.assert_array_equal(floats, bits)
    np.testing.assert_array_equal(bits, to_bits(x))
    gradient = device().to_host(layer.backward(to_bits(x)))
    np.testing.assert_array_equal(gradient, to_bits(x))


def test_special_numbers_survive_16_bits():
    special = np.array([[np.nan, np.inf, -np.inf, -0.0, 0.0, 1e30, -1e30, 1e-30]], np.float32)
    for dtype in ("float16", "bfloat16"):
        layer = normcore.layer("identity", input_shape=special.shape, device="cuda", dtype=dtype)
        with np.errstate(over="ignore"):
            got = device().to_host(layer.forward(special))
            expected = special.astype(np.float16) if dtype == "float16" else from_bits(to_bits(special))
        got = from_bits(got) if dtype == "bfloat16" else got
        np.testing.assert_array_equal(got, expected)
        np.testing.assert_array_equal(np.signbit(got)[0, 1:], np.signbit(special)[0, 1:])


def test_channels_last_arrays_are_taken_by_16_bit_layers():
    x = np.random.default_rng(1).standard_normal((2, 3, 4, 5)).astype(np.float16)
    for memory_format in ("channels_first", "channels_last"):
        layer = normcore.layer(
            "relu", input_shape=x.shape, device="cuda", dtype="float16", memory_format=memory_format
        )
        np.testing.assert_array_equal(device().to_host(layer.forward(x)), np.maximum(x, 0))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_statistics_and_parameters_stay_float32(dtype):
    layer = normcore.layer("batch_norm", input_shape=(4, 3, 5, 8), device="cuda", dtype=dtype)
    x = (1000 + np.random.default_rng(2).standard_normal((4, 3, 5, 8))).astype(np.float16)
    y = device().to_host(layer.forward(x if dtype == "float16" else to_bits(x)))
    assert {str(a.dtype) for a in (*layer.parameters.values(), *layer.state.values())} == {"float32"}
    held = (x if dtype == "float16" else from_bits(to_bits(x))).astype(np.float64)
    expected = (held - held.mean((0, 2, 3), keepdims=True)) / np.sqrt(
        held.var((0, 2, 3), keepdims=True) + 1e-5
    )
    got = y if dtype == "float16" else from_bits(y)
    np.testing.assert_allclose(got, expected, rtol=2.0**-8, atol=2.0**-8)
    moved = device().to_host(layer.state["running_mean"])
    np.testing.assert_allclose(moved, 0.1 * held.mean((0, 2, 3)), rtol=1e-6)


def test_what_has_no_16_bit_form_says_so():
    with pytest.raises(normcore.ParameterError, match="max_pool, whose kernels store no 16-bit numbers"):
        normcore.layer("max_pool", input_shape=(2, 3, 4, 4), kernel_size=2, device="cuda", dtype="float16")
