"""Activations that are each other's special cases, values and gradients."""

import math

import numpy as np
import pytest

import normcore


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(3).normal(0, 3, (40, 30)).astype(np.float32)


def run(name, x, **parameters):
    layer = normcore.layer(name, input_shape=x.shape, dtype=x.dtype.name, **parameters)
    y = layer.forward(x, training=True).copy()
    return y, layer.backward(np.ones_like(x)).copy()


# op, parameters, the op it then equals, its parameters, largest difference
EQUAL = [
    ("elu", {"alpha": 1.0}, "celu", {"alpha": 1.0}, 0.0),
    ("leaky_relu", {"negative_slope": 0.0}, "relu", {}, 0.0),
    ("leaky_relu", {"negative_slope": 1.0}, "identity", {}, 0.0),
    ("threshold", {"threshold": 0.0, "value": 0.0}, "relu", {}, 0.0),
    ("thresholded_relu", {"alpha": 0.0}, "relu", {}, 0.0),
    ("clip", {"min": 0.0, "max": 6.0}, "relu6", {}, 0.0),
    ("hard_tanh", {"min": 0.0, "max": 6.0}, "relu6", {}, 0.0),
    ("hard_shrink", {"lambd": 0.0}, "identity", {}, 0.0),
    ("soft_shrink", {"lambd": 0.0}, "identity", {}, 0.0),
    ("bnll", {}, "softplus", {}, 3e-7),
    ("squareplus", {"b": 1e-12}, "relu", {}, 1e-6),
    ("silu", {"beta": 1.702}, "gelu", {}, 0.13),
    ("gelu", {"approximate": "tanh"}, "gelu", {}, 2e-3),
]


@pytest.mark.parametrize(("name", "parameters", "other", "other_parameters", "bound"), EQUAL)
def test_special_cases_are_the_other_op(x, name, parameters, other, other_parameters, bound):
    for a, b in zip(run(name, x, **parameters), run(other, x, **other_parameters)):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


def test_silu_is_x_times_sigmoid(x):
    np.testing.assert_allclose(run("silu", x)[0], x * run("sigmoid", x)[0], rtol=5e-7)


def test_mish_is_x_times_tanh_of_softplus(x):
    np.testing.assert_allclose(run("mish", x)[0], x * run("tanh", run("softplus", x)[0])[0], rtol=2e-6)


def test_log_sigmoid_is_the_logarithm_of_sigmoid(x):
    np.testing.assert_allclose(run("log_sigmoid", x)[0], np.log(run("sigmoid", x)[0]), rtol=1e-5, atol=2e-7)


def test_softplus_of_minus_x_differs_by_x(x):
    np.testing.assert_allclose(run("softplus", x)[0] - run("softplus", -x)[0], x, rtol=5e-7, atol=5e-7)


def test_tanh_is_a_stretched_sigmoid(x):
    np.testing.assert_allclose(run("tanh", x)[0], 2 * run("sigmoid", 2 * x)[0] - 1, atol=3e-7)


def test_tanh_and_tanh_shrink_add_up(x):
    np.testing.assert_allclose(run("tanh", x)[0] + run("tanh_shrink", x)[0], x, rtol=2e-7, atol=2e-7)


def test_hard_swish_is_x_times_hard_sigmoid(x):
    np.testing.assert_allclose(run("hard_swish", x)[0], x * run("hard_sigmoid", x)[0], rtol=3e-7, atol=1e-7)


def test_relu_squared_is_the_square_and_its_gradient_twice_relu(x):
    relu, _ = run("relu", x)
    y, dx = run("relu_squared", x)
    np.testing.assert_array_equal(y, relu * relu)
    np.testing.assert_array_equal(dx, 2 * relu)


def test_selu_keeps_mean_zero_and_variance_one():
    x = np.random.default_rng(4).normal(size=(1000, 1000))
    y, _ = run("selu", x)
    assert abs(y.mean()) < 5e-3 and abs(y.var() - 1) < 1e-2


@pytest.mark.parametrize("name", ["tanh", "softsign", "identity", "tanh_shrink", "soft_shrink", "hard_tanh"])
def test_odd_functions_are_odd(x, name):
    np.testing.assert_array_equal(run(name, -x)[0], -run(name, x)[0])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_gelu_of_x_and_minus_x_differ_by_x(x, approximate):
    y, dx = run("gelu", x, approximate=approximate)
    mirrored, slope = run("gelu", -x, approximate=approximate)
    np.testing.assert_allclose(y - mirrored, x, rtol=3e-7, atol=3e-7)
    np.testing.assert_allclose(dx + slope, 1.0, atol=5e-7)


def test_gelu_at_one_is_the_normal_distribution():
    y, _ = run("gelu", np.ones((1, 1)))
    assert math.isclose(y[0, 0], 0.5 * (1 + math.erf(math.sqrt(0.5))), rel_tol=1e-14)
