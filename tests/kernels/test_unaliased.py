"""unaliased, nothing_overlaps: loops over short lines are vectorized without comparing addresses."""

import numba
import numpy as np
from numba import types

from normcore.kernels.unaliased import nothing_overlaps, unaliased


def _adder(view):
    @numba.njit(error_model="numpy")
    def add(x, lines):
        total, squares = view(lines[0]), view(lines[1])
        for p in range(x.shape[0]):
            row = x[p]
            for i in range(total.size):
                total[i] += row[i]
                squares[i] += row[i] * row[i]

    return add


def test_sums_need_no_comparison_of_addresses():
    lines = types.Array(types.float32, 2, "C")
    found = []
    for view in (numba.njit(lambda line: line), unaliased):
        add = _adder(view)
        add.compile((lines, lines))
        text = add.inspect_llvm(add.signatures[0])
        found.append(("found.conflict" in text, "fadd <" in text))
    assert found == [(True, True), (False, True)]


def test_it_is_the_same_memory():
    x = np.arange(30, dtype=np.float32).reshape(3, 10)
    for add in (_adder(unaliased), _adder(unaliased).py_func):
        lines = np.ones((2, 10), np.float32)
        add(x, lines)
        np.testing.assert_array_equal(lines, [1 + x.sum(0), 1 + (x * x).sum(0)])


def _scaler(marker):
    @numba.njit(error_model="numpy", forceinline=True)
    def scale(x, a, b, y):
        marker()
        for i in range(y.size):
            y[i] = x[i] * a[i] + b[i]

    @numba.njit(error_model="numpy")
    def rows(x, a, b, y):
        for p in range(x.shape[0]):
            scale(x[p], a, b, y[p])

    return rows


def test_an_output_that_is_only_written_needs_no_comparison_and_is_written():
    line, lines = types.Array(types.float32, 1, "C"), types.Array(types.float32, 2, "C")
    found = []
    for marker in (numba.njit(lambda: None), nothing_overlaps):
        rows = _scaler(marker)
        rows.compile((lines, line, line, lines))
        text = rows.inspect_llvm(rows.signatures[0])
        found.append(("memcheck" in text, "fmul <" in text))
    assert found == [(True, True), (False, True)]
    x, a, b = (
        np.arange(30, dtype=np.float32).reshape(3, 10),
        np.arange(10, dtype=np.float32),
        np.ones(10, np.float32),
    )
    y = np.full_like(x, np.nan)
    rows(x, a, b, y)
    np.testing.assert_array_equal(y, x * a + b)
