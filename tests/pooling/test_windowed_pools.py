"""Average, norm, adaptive and global pools and unpooling: where gradients go, traps, and wrong parameters.

Conformance covers values and slopes; tests/peers has PyTorch over random parameters.
"""

import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, ShapeError

FORMATS = ("channels_first", "channels_last")
rng = np.random.default_rng(0)


def layer(name, shape, memory_format="channels_first", dtype="float32", **parameters):
    return normcore.layer(name, input_shape=shape, dtype=dtype, memory_format=memory_format, **parameters)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_worked_example(memory_format):
    """4 x 4, windows of 2 x 2: an average shares its gradient out evenly, a minimum gives all to one place."""
    x = np.array([[1, 3, 2, 1], [4, 2, 0, 5], [6, 1, 1, 2], [0, 2, 3, 8]], np.float32).reshape(1, 1, 4, 4)
    dy = np.array([4, 8, 12, 16], np.float32).reshape(1, 1, 2, 2)
    average = layer("avg_pool", x.shape, memory_format, kernel_size=2)
    assert average.forward(x).reshape(-1).tolist() == [2.5, 2, 2.25, 3.5]
    assert average.backward(dy).reshape(4, 4).tolist() == [
        [1, 1, 2, 2],
        [1, 1, 2, 2],
        [3, 3, 4, 4],
        [3, 3, 4, 4],
    ]
    least = layer("min_pool", x.shape, memory_format, kernel_size=2)
    assert least.forward(x).reshape(-1).tolist() == [1, 0, 0, 1]
    assert least.backward(dy).reshape(4, 4).tolist() == [
        [4, 0, 0, 0],
        [0, 0, 8, 0],
        [0, 0, 16, 0],
        [12, 0, 0, 0],
    ]


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("max_pool", {"kernel_size": 3, "stride": 2}),
        ("min_pool", {"kernel_size": 3, "stride": 1, "padding": 1}),
        ("avg_pool", {"kernel_size": 2}),
        ("avg_pool", {"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False}),
        ("adaptive_avg_pool", {"output_size": 3}),
        ("adaptive_max_pool", {"output_size": 3}),
        ("global_max_pool", {}),
    ],
)
def test_the_sum_of_gradients_is_kept(name, parameters, memory_format):
    x = rng.standard_normal((2, 19, 8, 8)).astype(np.float32)
    pool = layer(name, x.shape, memory_format, **parameters)
    dy = rng.standard_normal(pool.forward(x).shape).astype(np.float32)
    expected = dy.sum((2, 3), dtype=np.float64)
    assert np.allclose(pool.backward(dy).sum((2, 3), dtype=np.float64), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_min_pool_is_max_pool_of_the_negative_bit_for_bit(memory_format):
    x = rng.integers(-3, 4, (2, 19, 9, 8)).astype(np.float32)
    x[1, 3, 4, 4] = np.nan
    sizes = {"kernel_size": 3, "stride": 2, "padding": 1, "return_indices": True}
    least, most = (layer(name, x.shape, memory_format, **sizes) for name in ("min_pool", "max_pool"))
    (y, places), (z, others) = least.forward(x), most.forward(-x)
    assert np.array_equal(y, -z, equal_nan=True) and np.array_equal(places, others)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    assert np.array_equal(least.backward(dy), most.backward(dy))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("value", [0.0, -np.inf, np.inf])
def test_equal_values_give_the_first_place(memory_format, value):
    x = np.full((2, 17, 6, 6), value, np.float32)
    y, places = layer(
        "adaptive_max_pool", x.shape, memory_format, output_size=3, return_indices=True
    ).forward(x)
    assert np.all(y == value)
    assert np.array_equal(places[1, 16], 12 * np.arange(3)[:, None] + 2 * np.arange(3))
    pool = layer("global_max_pool", x.shape, memory_format)
    pool.forward(x)
    dx = pool.backward(np.ones((2, 17, 1, 1), np.float32))
    assert np.all(dx[:, :, 0, 0] == 1) and dx.sum() == 34


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize(
    ("name", "parameters"),
    [("adaptive_max_pool", {"output_size": 1}), ("global_max_pool", {}), ("avg_pool", {"kernel_size": 6})],
)
def test_nan_wins(name, parameters, memory_format):
    for place in ((0, 0), (3, 4), (5, 5)):
        x = rng.standard_normal((1, 2, 6, 6)).astype(np.float32)
        x[(0, 1, *place)] = np.nan
        y = layer(name, x.shape, memory_format, **parameters).forward(x)
        assert np.isnan(y[0, 1, 0, 0]) and np.isfinite(y[0, 0, 0, 0])


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_large_bin_keeps_its_digits(memory_format):
    x = (rng.standard_normal((1, 3, 300, 310)) + 1000).astype(np.float32)
    y = layer("adaptive_avg_pool", x.shape, memory_format, output_size=1).forward(x)
    assert np.abs(y[0, :, 0, 0] - x[0].mean((1, 2), dtype=np.float64)).max() < 2e-3


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_window_of_zeros_has_no_slope(memory_format):
    for p in (1.0, 2.0, 3.0):
        x = np.zeros((1, 2, 4, 4), np.float32)
        x[0, 1, 0, 0] = -2
        pool = layer("lp_pool", x.shape, memory_format, kernel_size=2, p=p)
        assert pool.forward(x)[0, 1, 0, 0] == pytest.approx(2)
        dx = pool.backward(np.ones((1, 2, 2, 2), np.float32))
        assert dx[0, 1, 0, 0] == pytest.approx(-1) and np.count_nonzero(dx) == 1


@pytest.mark.parametrize("memory_format", FORMATS)
def test_unpooling_undoes_pooling(memory_format):
    x = rng.standard_normal((2, 5, 7, 6)).astype(np.float32)
    pool = layer("max_pool", x.shape, memory_format, kernel_size=2, return_indices=True)
    y, places = (a.copy() for a in pool.forward(x))
    unpool = layer("max_unpool", [y.shape, y.shape], memory_format, kernel_size=2, output_size=(7, 6))
    back = unpool.forward(y, places)
    assert back.shape == x.shape and np.array_equal(back[back != 0], x[back != 0])
    assert np.count_nonzero(back) == y.size
    dy = rng.standard_normal(x.shape).astype(np.float32)
    dx, none = unpool.backward(dy)
    expected = np.take_along_axis(dy.reshape(2, 5, -1), places.reshape(2, 5, -1), -1)
    assert np.array_equal(dx, expected.reshape(y.shape)) and none is None


def test_the_later_of_two_values_for_one_place_wins():
    unpool = layer("max_unpool", [(1, 1, 2), (1, 1, 2)], kernel_size=2)
    assert unpool.forward(np.array([[[3, 5]]], np.float32), np.array([[[1, 1]]])).tolist() == [[[0, 5, 0, 0]]]


def test_unpooling_in_a_network_names_its_pool():
    net = normcore.Network.from_mapping(
        {
            "input": [2, 4, 4],
            "network": [
                {"max_pool": {"kernel_size": 2, "return_indices": True}, "name": "pool"},
                {"relu": {}, "name": "between"},
                {"max_unpool": {"kernel_size": 2}, "inputs": ["between", "pool.indices"]},
            ],
        }
    )
    x = rng.random((3, 2, 4, 4)).astype(np.float32)
    y = net.forward(x)
    assert y.shape == x.shape and np.array_equal(y[y != 0], x[y != 0]) and np.count_nonzero(y) == 24


@pytest.mark.parametrize("name", ["max_pool", "min_pool", "avg_pool", "lp_pool"])
def test_wrong_windows_print_the_arithmetic(name):
    with pytest.raises(ShapeError, match=r"4 \+ padding 0 \+ 0 = 4 elements, window 5"):
        layer(name, (2, 3, 4, 4), kernel_size=5)
    with pytest.raises(ParameterError, match="at most half of kernel_size 2, 1"):
        layer(name, (2, 3, 8, 8), kernel_size=2, padding=2)
    with pytest.raises(ParameterError, match="stride"):
        layer(name, (2, 3, 8, 8), kernel_size=2, stride=0)
    with pytest.raises(ParameterError, match="kernel_size"):
        layer(name, (2, 3, 8, 8), kernel_size=(2, 2, 2))
    with pytest.raises(ShapeError, match="spatial"):
        layer(name, (2, 3), kernel_size=2)


def test_other_wrong_parameters_say_what_was_expected():
    with pytest.raises(ShapeError, match="1 of 2 indices lie outside the map of 4 places"):
        layer("max_unpool", [(1, 1, 2), (1, 1, 2)], kernel_size=2).forward(
            np.ones((1, 1, 2), np.float32), np.array([[[1, 4]]])
        )
    with pytest.raises(ShapeError, match=r"\(1 - 1\) \* 1 - 2 \* 1 \+ 1 = -1 places"):
        layer("max_unpool", [(1, 1, 1), (1, 1, 1)], kernel_size=1, padding=1)
    with pytest.raises(ParameterError, match="output_size"):
        layer("adaptive_avg_pool", (1, 1, 4, 4), output_size=(1, 2, 3))
    with pytest.raises(ShapeError, match="none of them empty"):
        layer("adaptive_max_pool", (1, 1, 0, 4), output_size=2)
