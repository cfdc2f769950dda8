"""max_pool: where the gradient goes, and traps. Conformance and the comparisons with torch cover the rest."""

import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, ShapeError

FORMATS = ("channels_first", "channels_last")
rng = np.random.default_rng(0)


def layer(shape, memory_format="channels_first", dtype="float32", **parameters):
    return normcore.layer(
        "max_pool", input_shape=shape, dtype=dtype, memory_format=memory_format, **parameters
    )


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_worked_example(memory_format):
    """4 x 4, windows of 2 x 2 side by side: the gradient goes to the recorded positions, the rest get
    nothing."""
    x = np.array([[1, 3, 2, 1], [4, 2, 0, 5], [6, 1, 1, 2], [0, 2, 3, 8]], np.float32).reshape(1, 1, 4, 4)
    pool = layer(x.shape, memory_format, kernel_size=2)
    assert pool.forward(x).reshape(-1).tolist() == [4, 5, 6, 8]
    dx = pool.backward(np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2))
    assert dx.reshape(4, 4).tolist() == [[0, 0, 0, 0], [1, 0, 0, 2], [3, 0, 0, 0], [0, 0, 0, 4]]


@pytest.mark.parametrize("memory_format", FORMATS)
def test_overlapping_windows_add_up_and_keep_the_sum(memory_format):
    x = np.zeros((1, 1, 5, 5), np.float32)
    x[0, 0, 2, 2] = 1  # the maximum of all four windows
    pool = layer(x.shape, memory_format, kernel_size=3, stride=2)
    pool.forward(x)
    dx = pool.backward(np.array([1, 2, 4, 8], np.float32).reshape(1, 1, 2, 2))
    assert dx[0, 0, 2, 2] == 15 and np.count_nonzero(dx) == 1


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("value", [0.0, -np.inf])
def test_ties_go_to_the_first_position(memory_format, value):
    x = np.full((2, 17, 6, 6), value, np.float32)
    pool = layer(x.shape, memory_format, kernel_size=3, stride=1, padding=1, return_indices=True)
    y, indices = pool.forward(x)
    assert np.all(y == value)
    first = np.maximum(np.arange(6) - 1, 0)
    assert np.array_equal(indices[1, 16], first[:, None] * 6 + first)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_equal_values_in_different_rows_and_columns(memory_format):
    """Kernels look down the columns first; the first in row-major order must win all the same."""
    x = rng.integers(0, 3, (2, 19, 9, 9)).astype(np.float32)
    pool = layer(x.shape, memory_format, kernel_size=3, stride=1, return_indices=True)
    _, indices = pool.forward(x)
    views = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3)).reshape(2, 19, 7, 7, 9)
    tap = views.argmax(-1)
    rows, columns = np.arange(7)[:, None], np.arange(7)
    assert np.array_equal(indices, (rows + tap // 3) * 9 + columns + tap % 3)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_nan_wins_wherever_it_is(memory_format, stride):
    for place in np.ndindex(3, 3):
        x = rng.standard_normal((1, 2, 3, 3)).astype(np.float32)
        x[(0, 1, *place)] = np.nan
        pool = layer(x.shape, memory_format, kernel_size=3, stride=stride)
        y = pool.forward(x)
        assert np.isnan(y[0, 1, 0, 0]) and np.isfinite(y[0, 0, 0, 0])
        dx = pool.backward(np.ones_like(y))
        assert dx[(0, 1, *place)] == 1 and dx.sum() == 2


def test_wrong_parameters_print_the_arithmetic():
    with pytest.raises(ShapeError, match=r"4 \+ padding 0 \+ 0 = 4 elements, window 5"):
        layer((2, 3, 4, 4), kernel_size=5)
    with pytest.raises(ParameterError, match="at most half of kernel_size 2, 1"):
        layer((2, 3, 8, 8), kernel_size=2, padding=2)
    with pytest.raises(ParameterError, match="stride"):
        layer((2, 3, 8, 8), kernel_size=2, stride=0)
    with pytest.raises(ShapeError, match="spatial"):
        layer((2, 3), kernel_size=2)
    with pytest.raises(ShapeError, match="is empty"):
        layer((2, 3, 0, 4), kernel_size=2)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_an_empty_batch(memory_format):
    pool = layer((0, 3, 8, 8), memory_format, kernel_size=2)
    assert pool.forward(np.empty((0, 3, 8, 8), np.float32)).shape == (0, 3, 4, 4)
    assert pool.backward(np.empty((0, 3, 4, 4), np.float32)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(("kernel", "stride"), [((2, 2), (2, 2)), ((3, 4), (2, 4)), ((2, 1), (1, 1))])
@pytest.mark.parametrize("shape", [(2, 17, 7, 4), (1, 3, 9, 37), (1, 1, 3, 4)])
def test_windows_side_by_side(memory_format, kernel, stride, shape):
    """The first of equal values and the last NaN of a window, in row-major order, as PyTorch picks them."""
    x = rng.integers(0, 3, shape).astype(np.float32)
    x[rng.random(shape) < 0.15] = np.nan
    pool = layer(shape, memory_format, kernel_size=kernel, stride=stride, return_indices=True)
    y, indices = pool.forward(x)
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, (2, 3))[:, :, :: stride[0], :: stride[1]]
    views = views.reshape(*views.shape[:4], -1)
    odd = np.isnan(views)
    last = views.shape[-1] - 1 - odd[..., ::-1].argmax(-1)
    tap = np.where(odd.any(-1), last, np.where(odd, -np.inf, views).argmax(-1))
    rows, columns = np.indices(tap.shape)[2:] * np.array(stride)[:, None, None, None, None]
    assert np.array_equal(indices, (rows + tap // kernel[1]) * shape[3] + columns + tap % kernel[1])
    assert np.array_equal(y, np.take_along_axis(views, tap[..., None], -1)[..., 0], equal_nan=True)
