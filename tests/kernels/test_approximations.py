"""The cheaper functions of normcore/kernels/approximations.py: their errors over the ranges they are made for."""

import math
import types

import numpy as np
import pytest

from normcore.kernels import cpu, variant
from normcore.kernels.approximations import (
    exp_nonpositive,
    exp_normal,
    exp_unclamped,
    expm1_nonpositive,
    log1p_unit,
    normal_slope,
    normal_tail,
)
from normcore.testing.ulps import float32_line, ulps

SMALLEST_NORMAL = np.log(np.float64(np.finfo(np.float32).tiny))
INFINITE_FROM = 127.5 * np.log(2)


@cpu
def approximations(x, y):
    for i in range(x.size):
        y[0, i] = exp_normal(x[i])
    for i in range(x.size):
        y[1, i] = log1p_unit(x[i])
    for i in range(x.size):
        y[2, i] = normal_tail(x[i])
    for i in range(x.size):
        y[3, i] = exp_unclamped(x[i])
    for i in range(x.size):
        y[4, i] = exp_nonpositive(x[i])
    for i in range(x.size):
        y[5, i] = expm1_nonpositive(x[i])
    for i in range(x.size):
        y[6, i] = normal_slope(x[i])


def compute(x):
    y = np.empty((7, x.size), x.dtype)
    approximations[types.SimpleNamespace(variant=variant(x.dtype.name, parallel=False))](x, y)
    return y


@pytest.fixture(scope="module")
def single():
    x = float32_line(4099, (88.0, 88.37, 88.5, 89.0, 87.33, 6.0, 0.3475))
    return x, compute(x)


def test_exp_of_normal_numbers(single):
    x, (y, *_) = single
    with np.errstate(all="ignore"):
        exact = np.exp(x.astype(np.float64))
        where = (x >= SMALLEST_NORMAL) & (x <= INFINITE_FROM)
    assert where.sum() > 100_000
    assert ulps(y[where], exact[where]).max() <= 1.1


def test_exp_beyond_them_is_zero_and_infinity_and_nan_stays(single):
    x, (y, *_) = single
    with np.errstate(all="ignore"):
        below, above = x < SMALLEST_NORMAL, x > INFINITE_FROM + 1e-5
    assert ((y[below] >= 0) & (y[below] <= np.finfo(np.float32).tiny)).all()
    assert (y[x < -88.1] == 0).all()
    assert np.isposinf(y[above]).all()
    assert np.isnan(y[np.isnan(x)]).all()


def test_log1p_and_the_normal_tail(single):
    x, (_, log1p, tail, *_) = single
    unit = (x >= 0) & (x <= 1)
    assert ulps(log1p[unit], np.log1p(x[unit].astype(np.float64))).max() <= 2
    t = x[(x >= 0) & (x <= 40)].astype(np.float64)
    exact = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in t.tolist()])
    found = tail[(x >= 0) & (x <= 40)]
    assert np.abs(found - exact).max() <= 2e-7
    assert (np.abs(found - exact) * t).max() <= 9e-8


def test_exponentials_of_narrower_ranges_are_the_same_there(single):
    x, (normal, _, _, unclamped, nonpositive, *_) = single
    inside = np.abs(x) <= 88
    assert inside.sum() > 100_000
    np.testing.assert_array_equal(unclamped[inside], normal[inside])
    np.testing.assert_array_equal(nonpositive[x <= 0], normal[x <= 0])
    for y in (unclamped, nonpositive):
        assert np.isnan(y[np.isnan(x)]).all()


def test_expm1_of_what_is_not_positive(single):
    x, y = single[0], single[1][5]
    below = x <= 0
    assert ulps(y[below], np.expm1(x[below].astype(np.float64))).max() <= 1.6
    assert (y[x < -20] == -1).all() and np.isnan(y[np.isnan(x)]).all()


def test_the_slope_of_gelus_tail(single):
    x, y = single[0], single[1][6]
    t = x[(x >= 0) & (x <= 40)].astype(np.float64)
    tail = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in t.tolist()])
    exact = tail - t * np.exp(-0.5 * t * t) / math.sqrt(2 * math.pi)
    assert np.abs(y[(x >= 0) & (x <= 40)] - exact).max() <= 2e-7
    assert np.isnan(y[np.isnan(x)]).all()


def test_float64_is_exact():
    x = np.linspace(0.0, 1.0, 1001)
    y = compute(x)
    for exponential in (y[0], y[3]):
        np.testing.assert_allclose(exponential, np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(compute(-x)[4], np.exp(-x), rtol=1e-15)
    np.testing.assert_allclose(y[1], np.log1p(x), rtol=1e-15)
    np.testing.assert_allclose(compute(-x)[5], np.expm1(-x), rtol=1e-15)
