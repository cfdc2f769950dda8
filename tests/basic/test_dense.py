"""dense against NumPy in float64, with fused epilogues, and run uncompiled, where NumPy checks every index."""

import math

import numba
import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, ShapeError
from normcore.kernels import uncompiled

# (rows, in, out): what is left over in rows, depth and columns of the tiles
SHAPES = [(64, 230, 128), (64, 128, 10), (7, 19, 37), (1, 5, 1), (300, 64, 70), (13, 1100, 40), (25, 1, 3)]
SHAPES += [
    (600, 33, 20),
    (5, 40, 530),
]  # so many rows that weights are packed; more outputs than one product for dx sums


def run(rows, features, out, dtype="float32", **params):
    layer = normcore.layer(
        "dense", input_shape=(rows, features), out_features=out, dtype=dtype, seed=3, **params
    )
    draw = np.random.default_rng(5)
    x = draw.standard_normal((rows, features)).astype(dtype)
    dy = draw.standard_normal((rows, out)).astype(dtype)
    return layer, x, dy


def check(layer, x, dy, tolerance):
    y = layer.forward(x)
    dx = layer.backward(dy)
    x, dy, weight = (v.astype(float) for v in (x, dy, layer.parameters["weight"]))
    pairs = [(y, x @ weight.T + layer.parameters.get("bias", 0.0)), (dx, dy @ weight)]
    pairs.append((layer.gradients["weight"], dy.T @ x))
    if layer.op.bias:
        pairs.append((layer.gradients["bias"], dy.sum(0)))
    for found, expected in pairs:
        assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("shape", SHAPES)
def test_float32(shape):
    check(*run(*shape), 2e-6)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_float64(shape):
    check(*run(*shape, dtype="float64"), 1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_index_leaves_its_array(shape):
    with uncompiled():
        check(*run(*shape), 2e-6)


def test_without_bias():
    layer, x, dy = run(9, 17, 33, bias=False)
    assert list(layer.parameters) == ["weight"]
    check(layer, x, dy, 2e-6)


def test_last_axis_of_three():
    layer = normcore.layer("dense", input_shape=(2, 5, 4), out_features=3)
    x = np.random.default_rng(0).standard_normal((2, 5, 4)).astype("float32")
    y = layer.forward(x)
    expected = x @ layer.parameters["weight"].T + layer.parameters["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert layer.backward(np.ones_like(y)).shape == x.shape


def test_empty_batch():
    layer = normcore.layer("dense", input_shape=(0, 4), out_features=3)
    assert layer.forward(np.zeros((0, 4), "float32")).shape == (0, 3)
    assert layer.backward(np.zeros((0, 3), "float32")).shape == (0, 4)
    assert not layer.gradients["weight"].any() and not layer.gradients["bias"].any()


def test_same_bits_for_any_number_of_threads():
    results = []
    before = numba.get_num_threads()
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        try:
            layer, x, dy = run(64, 300, 130)
            results.append(
                [np.array(v) for v in (layer.forward(x), layer.backward(dy), *layer.gradients.values())]
            )
        finally:
            numba.set_num_threads(before)
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def test_weights_start_as_in_torch():
    layer = normcore.layer("dense", input_shape=(2, 400), out_features=300)
    bound = 1 / math.sqrt(400)
    for values in layer.parameters.values():
        assert 0.9 * bound < np.abs(values).max() <= bound


def test_messages():
    with pytest.raises(ParameterError, match="at least 1"):
        normcore.layer("dense", input_shape=(2, 3), out_features=0)
    with pytest.raises(ShapeError, match="two axes"):
        normcore.layer("dense", input_shape=(3,), out_features=2)
