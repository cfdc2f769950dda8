"""extreme_of_run, compiled against its own Python."""

from types import SimpleNamespace

import numpy as np
import pytest

from normcore.kernels import cpu, variant
from normcore.kernels.extremes import extreme_of_run


def python(x, at, found, maximum):
    for count in range(1, found.size):
        found[count] = extreme_of_run(x, at, count, maximum)


_extremes = cpu(python)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("maximum", [True, False])
def test_compiled_like_python(dtype, maximum):
    rng = np.random.default_rng(0)
    compiled = _extremes[SimpleNamespace(variant=variant(dtype, parallel=False))]
    for odd in (0.0, 0.02):
        x = rng.integers(-3, 4, 80).astype(dtype)  # many ties
        x[rng.random(x.size) < 0.3] *= -1.0  # and zeros of either sign
        x[rng.random(x.size) < odd] = np.nan
        x[7], x[40], x[41] = np.inf, -np.inf, np.inf
        for at in (0, 3):
            fast, plain = np.zeros(70, np.int64), np.zeros(70, np.int64)
            compiled(x, at, fast, maximum)
            python(x, at, plain, maximum)
            np.testing.assert_array_equal(fast, plain)
