"""line_by_line and window: what compiled loops look like with them, and that values stay the same."""

import numba
import numpy as np
from numba import types

from normcore.kernels.line_by_line import line_by_line
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
