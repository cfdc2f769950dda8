"""extreme_of_window, compiled against its own Python."""

from types import SimpleNamespace

import numpy as np
import pytest

from normcore.kernels import cpu, variant
from normcore.kernels.extremes import extreme_of_window
from normcore.kernels.tile import lanes


def python(s, values, taps, counts, steps, maximum):
    extreme_of_window(
        s, 3, values, taps, 1, counts[0], counts[1], counts[2], steps[0], steps[1], steps[2], 5, 6, 3, maximum
    )


_extremes = cpu(python)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("maximum", [True, False])
def test_compiled_like_python(dtype, maximum):
    rng = np.random.default_rng(0)
    n = lanes(np.dtype(dtype).itemsize)
    s = rng.integers(-3, 4, 40 * n).astype(dtype)  # many ties
    s[rng.random(s.size) < 0.1] = np.nan
    s[rng.random(s.size) < 0.2] = -np.inf if maximum else np.inf
    compiled = _extremes[SimpleNamespace(variant=variant(dtype, parallel=False))]
    for counts in ((1, 1, 1), (2, 2, 3), (1, 3, 2)):
        found = []
        for run in (compiled, python):
            values, taps = np.zeros(n + 2, dtype), np.zeros(n + 2, f"int{8 * s.itemsize}")
            run(s, values, taps, np.array(counts), np.array((12 * n, 5 * n, n)), maximum)
            found.append((values, taps))
        for fast, plain in zip(*found, strict=True):
            np.testing.assert_array_equal(fast, plain)
        assert found[0][0][0] == found[0][0][-1] == 0  # nothing beside the vector
