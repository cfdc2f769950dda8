"""Every elementwise activation in float32 over the whole line of numbers, against float64 formulas.

The bars: a value within 4 ulp or 1e-7, a derivative within 4 ulp or 2.5e-7. The formulas here are others.
"""

import math

import numpy as np
import pytest

import normcore
from normcore.testing.ulps import float32_line, ulps

erfc = np.vectorize(math.erfc, otypes=[float])
ROOT = math.sqrt(2 / math.pi)


def softplus(x):
    return np.logaddexp(0.0, x)


def sigmoid(x):
    return np.exp(-np.logaddexp(0.0, -x))


def _tanh_squared(x):
    return np.tanh(x) ** 2


def _silu(x, beta=1.0):
    return np.where(beta * x < -750, 0.0, x * sigmoid(beta * x))


def _silu_derivative(x, beta=1.0):
    z = np.clip(beta * x, -750, 750)
    return sigmoid(z) + z * sigmoid(z) * sigmoid(-z)


def _gelu_inner(x):
    return 2 * ROOT * (x + 0.044715 * x**3)


def _gelu_tanh_derivative(x):
    x = np.clip(x, -50, 50)
    v = _gelu_inner(x)
    return sigmoid(v) + x * 2 * ROOT * (1 + 3 * 0.044715 * x * x) * sigmoid(v) * sigmoid(-v)


def _mish_derivative(x):
    x = np.clip(x, -750, 750)
    sp = softplus(x)
    return np.tanh(sp) + x * sigmoid(x) / np.cosh(np.minimum(sp, 350)) ** 2


def _squareplus_derivative(x, b):
    r = x / np.hypot(x, math.sqrt(b))
    return np.where(
        x > 0, 0.5 * (1 + r), 0.5 * b / (np.hypot(x, math.sqrt(b)) * (np.hypot(x, math.sqrt(b)) - x))
    )


def _squareplus(x, b):
    h = np.hypot(x, math.sqrt(b))
    return np.where(x > 0, 0.5 * (x + h), 0.5 * b / (h + np.abs(x)))


def _one(x, condition):
    return np.where(condition, 1.0, 0.0)


# -- op -> list of (parameters, value(x), derivative(x)), good to 1e-13 of the larger of value and 1 --
EXACT = {
    "abs": [({}, np.abs, np.sign)],
    "bnll": [({}, softplus, sigmoid)],
    "celu": [
        (
            {"alpha": a},
            lambda x, a=a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a)),
            lambda x, a=a: np.where(x > 0, 1.0, np.exp(np.minimum(x, 0) / a)),
        )
        for a in (1.0, 0.3)
    ],
    "clip": [
        ({"min": -0.5, "max": 2.0}, lambda x: np.clip(x, -0.5, 2), lambda x: _one(x, (x >= -0.5) & (x <= 2)))
    ],
    "elu": [
        (
            {"alpha": a},
            lambda x, a=a: np.where(x > 0, x, a * np.expm1(np.minimum(x, 0))),
            lambda x, a=a: np.where(x > 0, 1.0, a * np.exp(np.minimum(x, 0))),
        )
        for a in (1.0, 0.7)
    ],
    "exponential": [({}, np.exp, np.exp)],
    "gelu": [
        (
            {"approximate": "none"},
            lambda x: np.where(x < -50, 0, 0.5 * x * erfc(-x / math.sqrt(2))),
            lambda x: (
                0.5 * erfc(-x / math.sqrt(2))
                + np.clip(x, -50, 50) * np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
            ),
        ),
        (
            {"approximate": "tanh"},
            lambda x: np.where(x < -50, 0, x * sigmoid(_gelu_inner(x))),
            _gelu_tanh_derivative,
        ),
    ],
    "hard_shrink": [
        ({"lambd": 0.5}, lambda x: np.where(np.abs(x) > 0.5, x, 0), lambda x: _one(x, np.abs(x) > 0.5))
    ],
    "hard_sigmoid": [({}, lambda x: np.clip((x + 3) / 6, 0, 1), lambda x: _one(x, np.abs(x) < 3) / 6)],
    "hard_swish": [
        (
            {},
            lambda x: np.where(x <= -3, 0, np.where(x >= 3, x, x * (x + 3) / 6)),
            lambda x: np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
        )
    ],
    "hard_tanh": [({}, lambda x: np.clip(x, -1, 1), lambda x: _one(x, np.abs(x) < 1))],
    "identity": [({}, lambda x: x, np.ones_like)],
    "leaky_relu": [
        ({"negative_slope": 0.25}, lambda x: np.where(x > 0, x, 0.25 * x), lambda x: np.where(x > 0, 1, 0.25))
    ],
    "log_sigmoid": [({}, lambda x: -softplus(-x), lambda x: sigmoid(-x))],
    "mish": [({}, lambda x: np.where(x < -750, 0, x * np.tanh(softplus(x))), _mish_derivative)],
    "relu": [({}, lambda x: np.maximum(x, 0), lambda x: _one(x, x > 0))],
    "relu6": [({}, lambda x: np.clip(x, 0, 6), lambda x: _one(x, (x > 0) & (x < 6)))],
    "relu_squared": [({}, lambda x: np.maximum(x, 0) ** 2, lambda x: 2 * np.maximum(x, 0))],
    "selu": [
        (
            {},
            lambda x: (
                1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0)))
            ),
            lambda x: 1.0507009873554805 * np.where(x > 0, 1, 1.6732632423543772 * np.exp(np.minimum(x, 0))),
        )
    ],
    "sigmoid": [({}, sigmoid, lambda x: sigmoid(x) * sigmoid(-x))],
    "silu": [
        ({}, _silu, _silu_derivative),
        ({"beta": 2.0}, lambda x: _silu(x, 2.0), lambda x: _silu_derivative(x, 2.0)),
    ],
    "soft_shrink": [
        (
            {"lambd": 0.5},
            lambda x: np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
            lambda x: _one(x, np.abs(x) > 0.5),
        )
    ],
    "softplus": [
        ({}, lambda x: np.where(x > 20, x, softplus(x)), lambda x: np.where(x > 20, 1, sigmoid(x))),
        (
            {"beta": 4.0},
            lambda x: np.where(x > 5, x, softplus(4 * x) / 4),
            lambda x: np.where(x > 5, 1, sigmoid(4 * x)),
        ),
    ],
    "softsign": [({}, lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2)],
    "squareplus": [
        ({"b": b}, lambda x, b=b: _squareplus(x, b), lambda x, b=b: _squareplus_derivative(x, b))
        for b in (4.0, 0.25)
    ],
    "tanh": [({}, np.tanh, lambda x: 1 / np.cosh(np.clip(x, -300, 300)) ** 2)],
    "tanh_shrink": [({}, lambda x: x - np.tanh(x), _tanh_squared)],
    "threshold": [
        ({"threshold": 0.5, "value": -2.0}, lambda x: np.where(x > 0.5, x, -2), lambda x: _one(x, x > 0.5))
    ],
    "thresholded_relu": [({"alpha": 0.75}, lambda x: np.where(x > 0.75, x, 0), lambda x: _one(x, x > 0.75))],
}


# The places where formulas change, with their neighbours, and every 16411th bit pattern.
EDGES = (0.25, 0.3, 0.5, 0.75, 1.0, 2.0, 3.0, 5.0, 6.0, 20.0, 40.0, 88.0, 800.0, 1e4, 1e18, 1e30)
ROWS, COLUMNS = 128, 64  # small enough for the serial kernels, which other tests share


@pytest.fixture(scope="module")
def line():
    x = float32_line(16411, EDGES)
    # Denser where functions bend: signalling NaN, infinities and NaN are other tests' matter.
    x = np.concatenate([x[np.isfinite(x)], np.linspace(-12, 12, 60_001).astype(np.float32)])
    return np.concatenate([x, np.zeros(-x.size % (ROWS * COLUMNS), np.float32)])


def run(name, parameters, x):
    """Values and derivatives of op `name` for every element of x."""
    layer = normcore.layer(name, input_shape=(ROWS, COLUMNS), **parameters)
    y, dx = np.empty_like(x), np.empty_like(x)
    ones = np.ones((ROWS, COLUMNS), np.float32)
    for start in range(0, x.size, ROWS * COLUMNS):
        part = slice(start, start + ROWS * COLUMNS)
        y[part] = layer.forward(x[part].reshape(ROWS, COLUMNS), training=True).reshape(-1)
        dx[part] = layer.backward(ones).reshape(-1)
    return y, dx


def judge(what, x, got, exact, absolute):
    exact = np.asarray(exact, np.float64)
    with np.errstate(all="ignore"):
        error = np.abs(got - exact)
    error[got == exact.astype(np.float32)] = 0  # infinities that are right
    score = np.fmin(ulps(got, exact) / 4, np.where(np.isnan(error), np.inf, error / absolute))
    worst = score.argmax()
    assert score[worst] <= 1, f"{what} at {x[worst]!r}: got {got[worst]!r}, exact {exact[worst]!r}"


CASES = [(name, *case) for name, cases in EXACT.items() for case in cases]


@pytest.mark.parametrize(
    ("name", "parameters", "value", "derivative"), CASES, ids=[f"{n}-{p}" for n, p, _, _ in CASES]
)
def test_float32_value_and_derivative_meet_the_bars(line, name, parameters, value, derivative):
    y, dx = run(name, parameters, line)
    wide = line.astype(np.float64)
    with np.errstate(all="ignore"):
        judge("value", line, y, value(wide), 1e-7)
        judge("derivative", line, dx, derivative(wide), 2.5e-7)


def test_every_elementwise_activation_is_judged():
    from normcore_activation import normcore_ops

    elementwise = {op.name for op in normcore_ops() if op.is_elementwise and op.inputs == ("x",)}
    assert elementwise <= set(EXACT)
