"""The cheaper functions of normcore/kernels/approximations.py: their errors over the ranges they are made for."""

import math
import types

import numpy as np
import pytest

from normcore.kernels import cpu, variant
from normcore.kernels.approximations import exp_normal, log1p_unit, normal_tail
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


def compute(x):
    y = np.empty((3, x.size), x.dtype)
    approximations[types.SimpleNamespace(variant=variant(x.dtype.name, parallel=False))](x, y)
    return y


@pytest.fixture(scope="module")
def single():
    x = float32_line(4099, (88.0, 88.37, 88.5, 89.0, 87.33, 6.0, 0.3475))
    return x, compute(x)


def test_exp_of_normal_numbers(single):
    x, (y, _, _) = single
    with np.errstate(all="ignore"):
        exact = np.exp(x.astype(np.float64))
        where = (x >= SMALLEST_NORMAL) & (x <= INFINITE_FROM)
    assert where.sum() > 100_000
    assert ulps(y[where], exact[where]).max() <= 1.1


def test_exp_beyond_them_is_zero_and_infinity_and_nan_stays(single):
    x, (y, _, _) = single
    with np.errstate(all="ignore"):
        below, above = x < SMALLEST_NORMAL, x > INFINITE_FROM + 1e-5
    assert ((y[below] >= 0) & (y[below] <= np.finfo(np.float32).tiny)).all()
    assert (y[x < -88.1] == 0).all()
    assert np.isposinf(y[above]).all()
    assert np.isnan(y[np.isnan(x)]).all()


def test_log1p_and_the_normal_tail(single):
    x, (_, log1p, tail) = single
    unit = (x >= 0) & (x <= 1)
    assert ulps(log1p[unit], np.log1p(x[unit].astype(np.float64))).max() <= 2
    t = x[(x >= 0) & (x <= 40)].astype(np.float64)
    exact = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in t.tolist()])
    found = tail[(x >= 0) & (x <= 40)]
    assert np.abs(found - exact).max() <= 2e-7
    assert (np.abs(found - exact) * t).max() <= 9e-8


def test_float64_is_exact():
    x = np.linspace(0.0, 1.0, 1001)
    y = compute(x)
    np.testing.assert_allclose(y[0], np.exp(x), rtol=1e-15)
    np.testing.assert_allclose(y[1], np.log1p(x), rtol=1e-15)
