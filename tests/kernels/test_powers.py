"""Powers with a fixed exponent against NumPy, over the whole range that they are made for."""

from types import SimpleNamespace

import numpy as np

from normcore.kernels import cpu, variant
from normcore.kernels.powers import inverse_seven_quarters, inverse_three_quarters


@cpu
def powers(s, y):
    for i in range(s.size):
        y[0, i] = inverse_three_quarters(s[i])
        y[1, i] = inverse_seven_quarters(s[i], y[0, i])


def compute(s):
    y = np.empty((2, s.size), s.dtype)
    powers[SimpleNamespace(variant=variant(str(s.dtype)))](s, y)
    return y


def test_float32_within_the_bounds_that_are_stated():
    s = np.geomspace(1e-10, 1e10, 200_001).astype(np.float32)
    exact = s.astype(np.float64) ** np.array([[-0.75], [-1.75]])
    error = np.abs(compute(s) - exact) / np.spacing(exact.astype(np.float32)).astype(np.float64)
    assert error[0].max() <= 2.2
    assert error[1].max() <= 14


def test_float64():
    s = np.geomspace(1e-10, 1e10, 1001)
    np.testing.assert_allclose(compute(s), s ** np.array([[-0.75], [-1.75]]), rtol=1e-15)
