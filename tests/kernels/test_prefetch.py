"""What is asked for ahead, and for which processor: in the compiled code, for values do not tell."""

import re

import numba
import numpy as np
import pytest
from numba import types

from normcore.kernels import inline, prefetch, streaming
from normcore.kernels.caches import second_level_bytes
from normcore.kernels.prefetch import FIRST, NEXT, ONCE, SECOND, prefetch_lines, prefetch_once
from normcore.kernels.streaming import STREAM_STEP, either_way, stream_step
from normcore.kernels.window import window

ZEN, INTEL = True, False


@pytest.fixture(params=[ZEN, INTEL], ids=["zen", "intel"])
def zen(request, monkeypatch):
    for module in (prefetch, streaming):
        monkeypatch.setattr(module, "host_is_zen", lambda: request.param)
    return request.param


def _asked(function, count):
    """Where the lines that a function of so many arrays asks for are to be kept."""
    compiled = numba.njit(error_model="numpy")(function)
    compiled.compile((types.Array(types.float32, 1, "C"),) * count)
    text = compiled.inspect_llvm(compiled.signatures[0])
    return [
        int(keep)
        for keep in re.findall(r"call void @llvm\.prefetch[^(]*\([^,]*, i32 0, i32 (\d), i32 1\)", text)
    ]


def test_lines_are_kept_in_the_second_level(zen):
    def lines(x):
        prefetch_lines(x, 0, x.size)

    assert set(_asked(lines, 1)) == {SECOND}


def test_only_zen_reads_past_the_second_level(zen):
    def once(x):
        prefetch_once(x, 0, x.size)

    assert set(_asked(once, 1)) == {ONCE if zen else SECOND}


def test_only_intel_asks_for_what_it_copies(zen):
    """One array far ahead; several by turns nearer by, into the first level."""

    def one(x, y):
        stream_step(y, 0, window(x, 0, STREAM_STEP), x)

    def two(x, z, y):
        stream_step(y, 0, window(x, 0, STREAM_STEP), x, z)

    def silent(x, y):
        stream_step(y, 0, window(x, 0, STREAM_STEP))

    assert set(_asked(one, 2)) == (set() if zen else {SECOND})
    assert set(_asked(two, 3)) == (set() if zen else {FIRST})
    assert len(_asked(two, 3)) == 2 * len(_asked(one, 2))
    assert _asked(silent, 2) == []


@inline
def product(x, z, y):
    for i in range(y.size):
        y[i] = x[i] * z[i]


def test_what_is_read_is_asked_for_unless_said_otherwise():
    step = "stream_step(y, at, block_y"
    assert f"{step}, x, z)" in either_way(product, read=["x", "z"], written=["y"]).text
    assert f"{step}, z)" in either_way(product, read=["x", "z"], written=["y"], asked=["z"]).text
    assert f"{step})" in either_way(product, read=["x", "z"], written=["y"], asked=[]).text


def test_two_parts_fit_the_second_level():
    assert 0 < 2 * 4 * NEXT <= second_level_bytes()


def test_a_step_stays_rolled(zen):
    """One load and one store an array, not one for each line."""

    def asking(x, y):
        stream_step(y, 0, window(x, 0, STREAM_STEP), x)

    compiled = numba.njit(error_model="numpy")(asking)
    compiled.compile((types.Array(types.float32, 1, "C"),) * 2)
    text = compiled.inspect_llvm(compiled.signatures[0])
    stores = re.findall(r"store <\d+ x float>.*!nontemporal", text)
    assert 0 < len(stores) < STREAM_STEP * 4 // 64


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_step_is_a_copy(zen, dtype):
    x = np.random.default_rng(0).standard_normal(4 * STREAM_STEP).astype(dtype)
    memory = np.zeros(4 * STREAM_STEP + 64, dtype)
    start = -memory.ctypes.data % 64 // memory.itemsize  # a line's beginning
    y = memory[start : start + 4 * STREAM_STEP]

    def copy(x, y):
        for at in range(0, y.size, STREAM_STEP):
            stream_step(y, at, window(x, at, at + STREAM_STEP), x)

    numba.njit(error_model="numpy")(copy)(x, y)
    np.testing.assert_array_equal(y, x)
    assert not memory[:start].any() and not memory[start + y.size :].any()
    y[:] = 0
    copy(x, y)  # uncompiled
    np.testing.assert_array_equal(y, x)
