"""decorrelated_batch_norm on CUDA: planes and rows that are no whole packs, several tiles, far means, storage."""

import numpy as np
import pytest

import normcore
from normcore.devices.cuda import device
from normcore.storage import from_bits

rng = np.random.default_rng(0)
SHAPES = ((4, 6, 16), (3, 4, 37), (2, 3, 300), (5, 20, 9), (70, 6))
FORMATS = ("channels_first", "channels_last")


def run(x, dy, where="cuda", dtype="float32", **parameters):
    layer = normcore.layer(
        "decorrelated_batch_norm", input_shape=x.shape, device=where, dtype=dtype, eps=0.1, **parameters
    )
    host = device().to_host if where == "cuda" else np.array
    y = host(layer.forward(x, training=True)).copy()
    found = {"y": y, "dx": host(layer.backward(dy)).copy()}
    found |= {name: host(a) for name, a in (*layer.gradients.items(), *layer.state.items())}
    return found


def close(got, expected, tolerance):
    assert got.keys() == expected.keys()
    for name, a in got.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(a, expected[name], rtol=0, atol=tolerance * scale, err_msg=name)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_same_as_the_cpu(shape, memory_format):
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    groups = 2 if shape[1] % 2 == 0 else 1
    how = {"memory_format": memory_format, "num_groups": groups}
    close(run(x + np.float32(1e4), dy, **how), run(x + np.float32(1e4), dy, "cpu", **how), 2e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("shape", SHAPES[1:4], ids=str)
def test_16_bits_are_rounded_once(shape, memory_format, dtype):
    x, dy = ((rng.standard_normal((2, *shape)) * 8).round() / 8).astype(np.float32)  # exact in both
    got = run(x, dy, dtype=dtype, memory_format=memory_format)
    if dtype == "bfloat16":
        got |= {name: from_bits(got[name]) for name in ("y", "dx")}
    assert got["running_covariance"].dtype == np.float32
    half = 2.0**-8 if dtype == "bfloat16" else 2.0**-11  # of the last place, at most
    close(got, run(x, dy, "cpu", "float64", memory_format=memory_format), 1.01 * half)


def test_an_array_that_starts_between_packs():
    shape = (2, 4, 8)
    memory = device().empty(4 * (64 + 1)).view(np.float32)
    x = memory[1:].reshape(shape)
    values, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    x[...] = device().array(values, "float32")
    close(run(x, dy), run(values, dy), 0)
