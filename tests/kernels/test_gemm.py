"""Register tiles and vector moves compiled against their Python forms, and the cut into blocks and tasks."""

import itertools
import math

import numpy as np
import pytest

import normcore
from normcore.kernels import convolution, cpu, tile, uncompiled, variant
from normcore.kernels.conv_geometry import Gather, GatherPlan, GradientPlan, as_matrix
from normcore.kernels.tile import (
    TILE_ROWS,
    lanes,
    tile_columns,
    tile_columns_1,
    tile_columns_2,
    tile_rows_1,
    tile_rows_2,
)
from normcore.kernels.vector_moves import clear_run, copy_run, copy_strided, transpose_block


class Run:
    """What kernels are chosen by."""

    def __init__(self, dtype):
        self.variant = variant(dtype, parallel=False)


@cpu
def _tiles(a, table, b, c, ldc, depth, stride, fresh, rows, columns, which):
    if which == 0:
        tile_rows_1(a, 3, table, 0, 20, 2, depth, b, 0, stride, b, 5, c, 7, ldc, fresh, rows, columns)
    elif which == 1:
        tile_rows_2(a, 3, table, 0, 20, 2, depth, b, 0, stride, b, 5, c, 7, ldc, fresh, rows, columns)
    elif which == 2:
        tile_columns_1(a, 3, table, 2, depth, b, 0, stride, b, 5, c, 7, ldc, fresh, rows, columns)
    else:
        tile_columns_2(a, 3, table, 2, depth, b, 0, stride, b, 5, c, 7, ldc, fresh, rows, columns)


@cpu
def _moves(target, source, count, which):
    if which == 0:
        copy_run(target, 2, source, 3, count)
    elif which == 1:
        copy_strided(target, 1, 2, source, 3, 3, count)
    elif which == 2:
        clear_run(target, 2, count)
    else:
        transpose_block(target, 1, 40, source, 2, 50)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tiles(dtype):
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize
    width, ldc = tile_columns(size), tile_columns(size) + 5
    a = rng.standard_normal(4000).astype(dtype)
    b = rng.standard_normal(64 * 200).astype(dtype)
    table = rng.integers(0, 1000, 100)
    start = rng.standard_normal(TILE_ROWS * ldc + 50).astype(dtype)
    edges = itertools.product((TILE_ROWS, TILE_ROWS + 3, 1, TILE_ROWS - 1), (width, 1, width - 1, width // 2))
    for (rows, columns), which, fresh, (depth, stride) in itertools.product(
        edges, range(4), (True, False), ((0, width), (1, width), (17, width + 3))
    ):
        vectors = 1 + which % 2
        limit = min(columns, vectors * lanes(size))
        found, expected = start.copy(), start.copy()
        _tiles[Run(dtype)](a, table, b, found, ldc, depth, stride, fresh, rows, limit, which)
        python = (tile_rows_1, tile_rows_2, tile_columns_1, tile_columns_2)[which]
        middle = (table, 0, 20, 2, depth) if which < 2 else (table, 2, depth)
        python(a, 3, *middle, b, 0, stride, b, 5, expected, 7, ldc, fresh, rows, limit)
        tolerance = 2e-5 if size == 4 else 1e-13
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        untouched = np.ones(found.size, bool)
        valid = 7 + np.arange(min(rows, TILE_ROWS))[:, None] * ldc + np.arange(limit)
        untouched[valid] = False
        np.testing.assert_array_equal(found[untouched], start[untouched])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_moves(dtype):
    source = np.arange(2000, dtype=dtype)
    for which, count in itertools.product(range(4), (-1, 0, 1, 3, 15, 16, 17, 100)):
        results = []
        for python in (False, True):
            target = np.full(1000, -1, dtype)
            if python:
                with uncompiled():
                    _moves[Run(dtype)](target, source, count, which)
            else:
                _moves[Run(dtype)](target, source, count, which)
            results.append(target)
        np.testing.assert_array_equal(*results)


def test_not_a_number_is_added_only_where_it_belongs():
    a = np.zeros(200, "float32")
    a[5] = np.nan  # past the rows that are asked for
    c = np.zeros(100, "float32")
    b = np.ones(200, "float32")
    table = np.zeros(40, np.int64)
    _tiles[Run("float32")](a, table, b, c, 10, 2, 32, True, 1, 4, 0)
    assert np.isfinite(c).all()


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_plans_cover_the_output(groups, stride):
    for size, channels in ((7, 4), (28, 64), (13, 256)):
        out = (size - 1) // stride + 1
        step = (1, stride, stride)
        gather = Gather(
            (1, size, size, channels), groups, (8, 1, out, out), (1, 3, 3), step, (0, -1, -1), (1, 1, 1)
        )
        for planes, lines in (gather.block(4, 256), gather.block(8, 512)):
            assert 1 <= lines <= out and (planes == 1 or lines == out)
        plan = GatherPlan(gather, (1, out, out, 32), (1, 1, 1), (0, 0, 0), 4)
        assert plan.tasks <= 64 and plan.numbers(False).size == 48
        gradient = GradientPlan(gather, 32, 4)
        assert gradient.tasks >= 1 and gradient.partial_size >= gather.depth * 32 // groups


def test_pointwise_windows_are_a_matrix():
    gather = Gather((1, 5, 6, 7), 1, (3, 1, 5, 6), (1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1))
    matrix = as_matrix(gather)
    assert matrix.is_matrix and matrix.rows == 90 and not gather.is_matrix
    shifted = Gather((1, 5, 1, 7), 1, (1, 1, 5, 1), (1, 3, 1), (1, 1, 1), (0, -1, 0), (1, 1, 1))
    assert not shifted.is_matrix and as_matrix(shifted) is shifted


def test_phases_take_every_tap_once():
    for size, kernel, stride, before, dilation in itertools.product(
        (1, 5, 8), (1, 2, 3, 5), (1, 2, 3), (0, 2), (1, 2)
    ):
        phases = convolution._phases(size, kernel, stride, before, dilation)
        assert sum(p[1] for p in phases) == size
        for r, pixels, taps, first, hop, tap, step in phases:
            for j, i in itertools.product(range(pixels), range(taps)):
                assert (first + i * hop + j) * stride - before + (tap + i * step) * dilation == r + j * stride


CASES = {
    "lines": ((2, 5, 9, 7), dict(out_channels=9, kernel_size=3, padding=1)),
    "one channel": ((1, 1, 9, 8), dict(out_channels=33, kernel_size=3, padding=1, stride=2)),
    "phases and groups": ((1, 4, 7, 6), dict(out_channels=6, kernel_size=3, stride=2, padding=1, groups=2)),
    "matrix": ((2, 13, 5, 4), dict(out_channels=5, kernel_size=1)),
}


@pytest.mark.parametrize("name", CASES)
def test_no_index_leaves_its_array(name):
    """Uncompiled, NumPy checks every index that the kernels use."""
    shape, params = CASES[name]
    results = []
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    for mode in (False, True):
        if mode:
            with uncompiled():
                layer = normcore.layer(
                    "conv", input_shape=shape, memory_format="channels_last", seed=0, **params
                )
                y = layer.forward(x)
                results.append([y, layer.backward(y.copy()), *layer.gradients.values()])
        else:
            layer = normcore.layer("conv", input_shape=shape, memory_format="channels_last", seed=0, **params)
            y = layer.forward(x)
            results.append([y, layer.backward(y.copy()), *layer.gradients.values()])
    for compiled, python in zip(*results):
        np.testing.assert_allclose(compiled, python, rtol=0, atol=1e-5 * np.abs(python).max())


def test_vectors_are_as_wide_as_the_processor_allows():
    assert tile.VECTOR_BYTES in (16, 32, 64) and math.log2(lanes(8)).is_integer()
