"""Normalizations on CUDA where float32's sums do not do: huge values, far means, constants, NaN, odd places in memory."""

import numpy as np
import pytest

import normcore
from normcore.devices.cuda import device
from normcore.devices.cuda_simulator import DeviceArray

SHAPE = (2, 4, 2, 8)
NORMS = {
    "batch_norm": {},
    "layer_norm": {"axis": 1},
    "rms_norm": {"axis": 1},
    "group_norm": {"num_groups": 2},
    "instance_norm": {},
    "mean_variance_norm": {"across_batch": True},
    "local_response_norm": {"k": 2.0},
    "lp_norm": {},
}
FORMATS = ("channels_first", "channels_last")


def run(name, x, dy, memory_format, dtype="float32"):
    layer = normcore.layer(
        name, SHAPE, device="cuda", dtype=dtype, memory_format=memory_format, **NORMS[name]
    )
    y = device().to_host(layer.forward(x)).astype(np.float64)
    return y, device().to_host(layer.backward(dy)).astype(np.float64)


def numbers(kind):
    x = np.random.default_rng(0).standard_normal(SHAPE)
    if kind == "huge":
        x[1] *= 1e25
    elif kind == "far":
        x = x.astype(np.float32) + np.float32(1e6)
    elif kind == "first value far off":
        x[:, :, 0, 0] = 1e4
    elif kind == "constant":
        x[:, 1] = 7
    return x.astype(np.float32), np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("kind", ["huge", "far", "first value far off", "constant"])
@pytest.mark.parametrize("name", NORMS)
def test_the_same_as_in_float64(name, kind, memory_format):
    x, dy = numbers(kind)
    got, expected = run(name, x, dy, memory_format), run(name, x, dy, memory_format, "float64")
    for a, b in zip(got, expected, strict=True):
        assert np.isfinite(a).all()
        # By sample: where one is huge its gradient is tiny, and the others shall be right all the same.
        for n in range(SHAPE[0]):
            np.testing.assert_allclose(a[n], b[n], atol=1e-3 * np.abs(b[n]).max() + 1e-37)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_nan_stays_in_its_channel(memory_format):
    x, dy = numbers("plain")
    x[1, 2, 0, 3] = np.nan
    for a in run("batch_norm", x, dy, memory_format):
        assert np.isnan(a[:, 2]).all() and np.isfinite(a[:, [0, 1, 3]]).all()


@pytest.mark.parametrize("name", NORMS)
def test_an_array_that_starts_between_packs(name):
    memory = device().empty(4 * (int(np.prod(SHAPE)) + 1)).view(np.float32)
    x = memory[1:].reshape(SHAPE)
    assert isinstance(x, DeviceArray) and x.ctypes.data % 16
    values, dy = numbers("plain")
    x[...] = device().array(values, "float32")
    for a, b in zip(run(name, x, dy, "channels_first"), run(name, values, dy, "channels_first"), strict=True):
        np.testing.assert_array_equal(a, b)
