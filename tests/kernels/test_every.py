"""copy_every, compiled and as Python, against a slice; nothing around the run is written, nothing behind it read."""

import numpy as np
import pytest

from normcore.kernels import cpu, variant
from normcore.kernels.every import copy_every


class Run:
    """What kernels are chosen by."""

    def __init__(self, dtype):
        self.variant = variant(dtype, parallel=False)


@cpu
def _copy(target, source, step, count):
    copy_every(target, 2, source, 1, step, count)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("step", range(1, 7))
def test_every_so_many(dtype, step):
    for count in (0, 1, 3, 4, 7, 8, 9, 15, 16, 17, 27, 32, 50):
        source = np.arange(
            1 + max(0, (count - 1) * step + 1), dtype=dtype
        )  # ends with the last element wanted
        expected = np.full(count + 5, -1, dtype)
        expected[2 : 2 + count] = source[1::step][:count]
        for copy in (_copy[Run(dtype)], lambda *arguments: _copy.function.python(*arguments)):
            target = np.full(count + 5, -1, dtype)
            copy(target, source, step, count)
            np.testing.assert_array_equal(target, expected)
