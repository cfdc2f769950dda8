"""line_by_line, window and select: what compiled loops look like with them, and that values stay the same."""

import re

import numba
import numpy as np
from numba import types

from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.select import select
from normcore.kernels.store import use_whole_vectors
from normcore.kernels.tile import VECTOR_BYTES
from normcore.kernels.window import window

FLOATS = types.Array(types.float32, 1, "C")
use_whole_vectors()  # as the first kernel does: what is compiled here is none


@numba.njit(error_model="numpy")
def _multiply(a, b, y):
    for i in range(y.size):
        y[i] = a[i] * b[i]


@numba.njit(error_model="numpy")
def _multiply_line_by_line(a, b, y):
    for i in range(y.size):
        y[i] = a[i] * b[i]
        line_by_line()


def _vector_products(function):
    """How many vectors of products a turn of the loop makes."""
    function.compile((FLOATS, FLOATS, FLOATS))
    text = function.inspect_llvm(function.signatures[0])
    body = text[text.index("vector.body:") :]
    body = body[: body.index("br i1")]
    return body.count(f"fmul <{VECTOR_BYTES // 4} x float>")


def test_a_turn_takes_a_line():
    assert (
        _vector_products(_multiply) > _vector_products(_multiply_line_by_line) == max(1, 64 // VECTOR_BYTES)
    )
    a, b = np.random.default_rng(0).standard_normal((2, 1001), np.float32)
    for function in (_multiply_line_by_line, _multiply_line_by_line.py_func):
        y = np.empty_like(a)
        function(a, b, y)
        np.testing.assert_array_equal(y, a * b)


def test_a_window_is_the_same_memory():
    @numba.njit(error_model="numpy")
    def negate(x, lo, hi):
        part = window(x, lo, hi)
        for i in range(part.size):
            part[i] = -part[i]

    for function in (negate, negate.py_func):
        x = np.arange(20.0)
        function(x, 3, 7)
        function(x, 5, 5)
        np.testing.assert_array_equal(x, [-n if 3 <= n < 7 else n for n in range(20)])


@numba.njit(error_model="numpy")
def _keep_largest(x, best, at, p):
    for i in range(best.size):
        beyond = x[i] > best[i]
        at[i] = select(beyond, p, at[i])
        best[i] = select(beyond, x[i], best[i])


def test_a_selected_value_is_always_written():
    _keep_largest.compile((FLOATS, FLOATS, types.Array(types.uint8, 1, "C"), types.uint8))
    code = _keep_largest.inspect_asm(_keep_largest.signatures[0])
    assert re.search("v?cmp.*ps", code)
    masked = r"vmaskmov\w+\s+%[xyz]mm\d+, %[xyz]mm\d+, .*\(|\) \{%k"  # into memory, with 256 or 512 bits
    assert not re.search(masked, code)
    x = np.random.default_rng(0).standard_normal((3, 101), np.float32)
    x[1, 7] = np.nan
    for function in (_keep_largest, _keep_largest.py_func):
        best, at = x[0].copy(), np.zeros(101, np.uint8)
        for p in (1, 2):
            function(x[p], best, at, np.uint8(p))
        np.testing.assert_array_equal(best, np.fmax.reduce(x, axis=0))
        np.testing.assert_array_equal(at, np.nanargmax(x, axis=0))
