"""Known traps of elementwise activations: kinks, infinities, NaN, signed zeros, far tails, parameters."""

import numpy as np
import pytest
from normcore_activation import normcore_ops

import normcore

INF, NAN = float("inf"), float("nan")
REQUIRED = {"clip": {"min": -0.5, "max": 2.0}, "threshold": {"threshold": 0.5, "value": -2.0}}
NAMES = sorted(op.name for op in normcore_ops() if op.is_elementwise and op.inputs == ("x",))


def run(name, values, dtype="float32", **parameters):
    """Value and derivative of op `name` at each of the values."""
    parameters = parameters or REQUIRED.get(name, {})
    x = np.array([values], dtype)
    layer = normcore.layer(name, input_shape=x.shape, dtype=dtype, **parameters)
    y = layer.forward(x, training=True).copy()[0]
    return y, layer.backward(np.ones_like(x)).copy()[0]


# Derivatives at kinks, as PyTorch has them: op -> parameters, {x: dy/dx}.
KINKS = {
    "relu": ({}, {0.0: 0}),
    "relu6": ({}, {0.0: 0, 6.0: 0, 5.999: 1}),
    "leaky_relu": ({"negative_slope": 0.25}, {0.0: 0.25}),
    "elu": ({"alpha": 0.5}, {0.0: 0.5}),
    "celu": ({"alpha": 2.0}, {0.0: 1}),
    "selu": ({}, {0.0: 1.7580993}),
    "hard_tanh": ({}, {-1.0: 0, 1.0: 0}),
    "hard_sigmoid": ({}, {-3.0: 0, 3.0: 0}),
    "hard_swish": ({}, {-3.0: 0, 3.0: 1}),
    "hard_shrink": ({}, {0.5: 0, -0.5: 0}),
    "soft_shrink": ({}, {0.5: 0, -0.5: 0}),
    "threshold": ({"threshold": 1.0, "value": 0.0}, {1.0: 0}),
    "thresholded_relu": ({}, {1.0: 0}),
    "relu_squared": ({}, {0.0: 0}),
    "clip": ({"min": -1.0, "max": 1.0}, {-1.0: 1, 1.0: 1}),
    "abs": ({}, {0.0: 0}),
    "softplus": ({"threshold": 1.0}, {1.001: 1}),
}


@pytest.mark.parametrize("name", sorted(KINKS))
def test_derivative_at_the_kink_is_pytorchs(name):
    parameters, expected = KINKS[name]
    _, dx = run(name, list(expected), **parameters)
    np.testing.assert_allclose(dx, list(expected.values()), rtol=1e-6)


# Values and derivatives at -inf and inf. NaN only where PyTorch has inf / inf.
INFINITE = {
    "abs": (INF, INF, -1, 1),
    "bnll": (0, INF, 0, 1),
    "celu": (-1, INF, 0, 1),
    "clip": (-0.5, 2, 0, 0),
    "elu": (-1, INF, 0, 1),
    "exponential": (0, INF, 0, INF),
    "gelu": (0, INF, 0, 1),
    "hard_shrink": (-INF, INF, 1, 1),
    "hard_sigmoid": (0, 1, 0, 0),
    "hard_swish": (0, INF, 0, 1),
    "hard_tanh": (-1, 1, 0, 0),
    "identity": (-INF, INF, 1, 1),
    "leaky_relu": (-INF, INF, 0.01, 1),
    "log_sigmoid": (-INF, 0, 1, 0),
    "mish": (0, INF, 0, 1),
    "relu": (0, INF, 0, 1),
    "relu6": (0, 6, 0, 0),
    "relu_squared": (0, INF, 0, INF),
    "selu": (-1.7580993, INF, 0, 1.050701),
    "sigmoid": (0, 1, 0, 0),
    "silu": (0, INF, 0, 1),
    "soft_shrink": (-INF, INF, 1, 1),
    "softplus": (0, INF, 0, 1),
    "softsign": (NAN, NAN, 0, 0),
    "squareplus": (0, INF, 0, 1),
    "tanh": (-1, 1, 0, 0),
    "tanh_shrink": (-INF, INF, 1, 1),
    "threshold": (-2, INF, 0, 1),
    "thresholded_relu": (0, INF, 0, 1),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_infinities(name, dtype):
    y, dx = run(name, [-INF, INF], dtype)
    np.testing.assert_allclose([*y, *dx], INFINITE[name], rtol=1e-6, atol=1e-50)  # squareplus: 1e-60


@pytest.mark.parametrize("parameters", [{"approximate": "tanh"}, {"approximate": "none"}])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gelu_has_finite_limits_in_both_forms_and_dtypes(parameters, dtype):
    y, dx = run("gelu", [-INF, -1e4, -50.0, 50.0, 1e4, INF], dtype, **parameters)
    np.testing.assert_array_equal(y, [0, 0, 0, 50, 1e4, INF])
    np.testing.assert_array_equal(dx, [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_nan_propagates_and_stays_in_its_place(name, dtype):
    y, dx = run(name, [1.25, NAN, -1.25, NAN, 0.1], dtype)
    assert np.isnan(y).tolist() == [False, True, False, True, False]
    assert np.isfinite(dx[[0, 2, 4]]).all()


KEEP_SIGN = (
    "celu",
    "clip",
    "elu",
    "gelu",
    "hard_tanh",
    "identity",
    "leaky_relu",
    "relu",
    "relu6",
    "selu",
    "silu",
    "soft_shrink",
    "softsign",
    "tanh",
    "mish",
)


@pytest.mark.parametrize("name", KEEP_SIGN)
def test_minus_zero_stays_minus_zero(name):
    y, _ = run(name, [0.0, -0.0])
    assert np.signbit(y).tolist() == [False, True]
    assert (y == 0).all()


# Far from zero, where exponentials overflow and x^3 or e^2x do too.
FAR = [-1e4, -1e3, -200.0, -90.0, 90.0, 200.0, 1e3, 1e4]


@pytest.mark.parametrize("name", ["softplus", "log_sigmoid", "mish", "silu", "gelu", "bnll", "squareplus"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_from_zero_values_and_slopes_are_the_asymptotes(name, dtype):
    y, dx = run(name, FAR, dtype)
    x = np.array(FAR, dtype)
    limit = np.minimum(x, 0) if name == "log_sigmoid" else np.maximum(x, 0)
    slope = (x < 0) if name == "log_sigmoid" else (x > 0)
    loose = name == "squareplus"  # its tails fall as 1/x and 1/x^2, not exponentially
    np.testing.assert_allclose(y, limit, rtol=1e-3 if loose else 1e-12, atol=0.012 if loose else 1e-35)
    np.testing.assert_allclose(dx, slope, atol=2e-4 if loose else 1e-35)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "exponential"])  # e^1e4 is infinite, rightly
def test_every_op_is_finite_up_to_ten_thousand(name, dtype):
    reach = np.geomspace(1e-30, 1e4, 60)
    y, dx = run(name, [*-reach, 0.0, *reach], dtype)
    assert np.isfinite(y).all() and np.isfinite(dx).all()


def test_sigmoid_keeps_small_values_instead_of_overflowing():
    y, _ = run("sigmoid", [-80.0, -87.3, 88.5, 1e4, -1e4, -88.5])
    np.testing.assert_allclose(y[:3], [1.8048513e-35, 1.2192e-38, 1.0], rtol=1e-3)
    assert y[3] == 1 and y[4] == 0
    assert 0 <= y[5] < 1.1754944e-38  # below the smallest normal number


@pytest.mark.parametrize("name", ["elu", "celu"])
def test_small_negative_arguments_do_not_cancel(name):
    x = [-1e-3, -1e-6, -1e-10, -1e-30]
    y, _ = run(name, x)
    np.testing.assert_allclose(y, np.expm1(np.array(x)), rtol=2e-7)


def test_silu_with_a_negative_beta_is_finite_at_both_ends():
    y, dx = run("silu", [-INF, -1e30, 1e30, INF], beta=-2.0)
    assert y.tolist() == [-INF, np.float32(-1e30), 0.0, 0.0]
    assert dx.tolist() == [1.0, 1.0, 0.0, 0.0]


BAD = [
    ("celu", {"alpha": 0.0}, "alpha"),
    ("clip", {"min": 1.0, "max": 0.0}, "max"),
    ("hard_tanh", {"min": 1.0, "max": 1.0}, "max"),
    ("hard_shrink", {"lambd": -1.0}, "lambd"),
    ("soft_shrink", {"lambd": -1.0}, "lambd"),
    ("softplus", {"beta": 0.0}, "beta"),
    ("squareplus", {"b": 0.0}, "relu"),
]


@pytest.mark.parametrize(("name", "parameters", "word"), BAD, ids=[name for name, _, _ in BAD])
def test_bad_parameters_are_refused_by_name(name, parameters, word):
    with pytest.raises(normcore.ParameterError, match=word):
        normcore.layer(name, input_shape=(2, 3), **parameters)
