"""turn, and drawing numbers for arrays channels last: every way of cutting an array into blocks, tiles and parts."""

from types import SimpleNamespace

import numpy as np
import pytest

import normcore
from normcore.devices.cpu import device
from normcore.kernels import cpu, variant
from normcore.kernels.draws import LINE, lanes_of
from normcore.kernels.transpose import SHORT, tiles_of, turn, turn_tile


@cpu
def _turn(x, y, rows, columns, apart, pitch):
    for tile in range(tiles_of(rows, columns)):
        turn_tile(tile, x, 3, apart, y, 2, pitch, rows, columns)


@cpu
def _turn_anywhere(x, y, rows, columns, pitch, to):
    turn(x, 0, columns, y, to, pitch, rows, columns)


_turn_far = _turn_anywhere.with_constants(STREAM_BYTES=0)


def empty_lines(size, dtype):
    """An array that begins with a cache line."""
    return device().empty(size * np.dtype(dtype).itemsize).view(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_turn(dtype):
    run = _turn[SimpleNamespace(variant=variant(dtype, parallel=False))]
    n = lanes_of(dtype)
    for rows, columns in (
        (n, n),
        (n + 3, 2 * n + 1),
        (n - 1, 40),
        (40, n - 1),
        (SHORT + 5, 70),
        (70, SHORT + 5),
    ):
        apart, pitch = columns + 2, rows + 1
        x = np.arange(3 + rows * apart, dtype=dtype)
        y = np.full(2 + columns * pitch, -1, dtype)
        run(x, y, rows, columns, apart, pitch)
        expected = np.full((columns, pitch), -1, dtype)
        expected[:, :rows] = x[3:].reshape(rows, apart)[:, :columns].T
        np.testing.assert_array_equal(y[2:].reshape(columns, pitch), expected)
        np.testing.assert_array_equal(y[:2], -1)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_turn_around_the_caches(dtype):
    """Where rows of the target are whole lines, and where they are not; both ends overlap the block before them."""
    run = _turn_far[SimpleNamespace(variant=variant(dtype, parallel=False))]
    n = lanes_of(dtype)
    lines = 64 // np.dtype(dtype).itemsize
    for rows, pitch, to in (
        (4 * n, 4 * lines, 0),
        (3 * n + 1, 4 * lines, lines),
        (4 * n, 4 * lines + 1, 0),
        (2 * n, 2 * lines, 1),
    ):
        columns = 2 * n + 3
        x = np.arange(rows * columns, dtype=dtype)
        y = empty_lines(to + columns * pitch + 2048, dtype)
        y[:] = -1
        run(x, y, rows, columns, pitch, to)
        expected = np.full(y.size, -1, dtype)
        expected[to : to + columns * pitch].reshape(columns, pitch)[:, :rows] = x.reshape(rows, columns).T
        np.testing.assert_array_equal(y, expected)


# Fewer and more channels than a vector has; maps shorter than a vector, small ones and ones of several parts.
SHAPES = ((2, 19, 3, 3), (1, 33, 7, 9), (1, 17, 2, LINE // 2 + 20), (2, 3, 5, 5))


@pytest.mark.parametrize(
    "name, dtype", [("dropout", "float32"), ("dropout", "float64"), ("rrelu", "float32")]
)
def test_drawn_alike_in_both_formats(name, dtype):
    for shape in SHAPES:
        x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
        dy = np.random.default_rng(1).standard_normal(shape).astype(dtype)
        found = []
        for format in ("channels_first", "channels_last"):
            layer = normcore.layer(name, input_shape=shape, dtype=dtype, memory_format=format)
            found.append((np.array(layer.forward(x)), np.array(layer.backward(dy))))
        for first, last in zip(*found, strict=True):
            np.testing.assert_array_equal(first, last)
