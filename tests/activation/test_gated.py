"""Gated and grouping activations: halves, ties, special values, identities with the elementwise ops they are made of."""

import sys

import numpy as np
import pytest

import normcore

INF, NAN = float("inf"), float("nan")
GATES = {"glu": "sigmoid", "geglu": "gelu", "swiglu": "silu", "reglu": "relu"}
FORMATS = ("channels_first", "channels_last")


def numbers(shape, seed=5):
    return np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)


def run(name, x, dy=None, format="channels_first", **parameters):
    layer = normcore.layer(name, input_shape=x.shape, dtype=x.dtype.name, memory_format=format, **parameters)
    y = layer.forward(x, training=True).copy()
    dy = np.ones_like(y) if dy is None else dy
    return y, layer.backward(dy).copy(), layer


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("shape", "axis"),
    [((8,), 0), ((3, 34), 1), ((4, 5), -2), ((2, 6, 7), 1), ((2, 3, 4, 5), 2), ((2, 3, 2, 3, 4), -1)],
)
def test_gated_is_the_first_half_times_the_gate_of_the_second(name, format, shape, axis):
    x = numbers(shape)
    a, b = np.split(x, 2, axis)
    dy = numbers(a.shape, 7)
    y, dx, _ = run(name, x, dy, format, axis=axis)
    gate, slope, _ = run(GATES[name], np.ascontiguousarray(b))
    np.testing.assert_allclose(y, a * gate, rtol=1e-6, atol=1e-30)
    da, db = np.split(dx, 2, axis)
    np.testing.assert_allclose(da, dy * gate, rtol=1e-6, atol=1e-30)
    np.testing.assert_allclose(db, dy * a * slope, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", GATES)
def test_a_gate_far_out_is_open_or_shut(name):
    x = np.array([[2.0, 2.0, 2.0, 2.0, 1e4, -1e4, INF, -INF]], np.float32)
    y, _, _ = run(name, x)
    wide = 2.0 if name == "glu" else 2e4
    assert y[0].tolist() == [wide, 0, 2 if name == "glu" else INF, 0]


@pytest.mark.parametrize("name", (*GATES, "maxout", "crelu", "prelu", "rrelu"))
def test_nan_stays_where_it_is(name):
    x = numbers((2, 6, 35))
    x[1, 4, 3] = NAN
    y, _, _ = run(name, x)
    bad = np.argwhere(np.isnan(y))
    assert (bad[:, 0] == 1).all() and (bad[:, 2] == 3).all()
    assert len(bad) == (2 if name == "crelu" else 1)


@pytest.mark.parametrize("name", GATES)
def test_an_odd_number_of_entries_has_no_halves(name):
    with pytest.raises(normcore.ShapeError, match=r"7 entries.*even"):
        normcore.layer(name, input_shape=(2, 7, 4))


@pytest.mark.parametrize("format", FORMATS)
def test_maxout_of_x_and_zero_is_relu(format):
    x = numbers((3, 4, 5, 7))
    pairs = np.stack([x, np.zeros_like(x)], axis=2).reshape(3, 8, 5, 7)
    y, dx, _ = run("maxout", pairs, format=format)
    relu, slope, _ = run("relu", x)
    np.testing.assert_array_equal(y, relu)
    np.testing.assert_array_equal(dx.reshape(3, 4, 2, 5, 7)[:, :, 0], slope)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("pieces", [1, 2, 3, 6])
def test_maxout_groups_neighbouring_channels(format, pieces):
    x = numbers((2, 6, 5, 3))
    y, dx, _ = run("maxout", x, format=format, pieces=pieces)
    groups = x.reshape(2, 6 // pieces, pieces, 5, 3)
    np.testing.assert_array_equal(y, groups.max(2))
    expected = groups == groups.max(2, keepdims=True)
    np.testing.assert_array_equal(dx.reshape(groups.shape), expected)


@pytest.mark.parametrize("width", [1, 40])
def test_maxout_ties_go_to_the_first_and_nan_wins(width):
    groups = [[1, 1, 0], [0, 2, 2], [NAN, 3, NAN], [5, NAN, NAN], [-INF, -INF, -INF], [0, INF, INF]]
    x = np.repeat(np.array(groups, np.float32).reshape(1, 18, 1), width, axis=2)
    y, dx, _ = run("maxout", x, pieces=3)
    np.testing.assert_array_equal(y[0, :, 0], [1, 2, NAN, NAN, -INF, INF])
    taken = dx.reshape(6, 3, width)
    assert (taken.argmax(1) == np.array([0, 1, 0, 1, 0, 1])[:, None]).all()
    assert (taken.sum(1) == 1).all()


def test_more_pieces_than_a_byte_counts():
    x = np.zeros((2, 300), np.float32)
    x[0, 299], x[1, 257] = 1, 1
    y, dx, _ = run("maxout", x, pieces=300)
    assert y.tolist() == [[1], [1]]
    assert np.argwhere(dx).tolist() == [[0, 299], [1, 257]]


def test_maxout_refuses_a_group_that_is_cut():
    with pytest.raises(normcore.ShapeError, match=r"7 entries.*multiple of 2"):
        normcore.layer("maxout", input_shape=(2, 7))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("shape", "axis"), [((5,), -1), ((3, 7), 1), ((2, 3, 5, 4), 1), ((2, 3, 5), 0)])
def test_crelu_is_relu_of_both_signs(format, shape, axis):
    x = numbers(shape)
    x.reshape(-1)[:2] = 0.0
    up, slope_up, _ = run("relu", x)
    down, slope_down, _ = run("relu", -x)
    y, dx, _ = run("crelu", x, format=format, axis=axis)
    np.testing.assert_array_equal(y, np.concatenate([up, down], axis))
    np.testing.assert_array_equal(dx, slope_up - slope_down)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(40,), (70, 6), (3, 6, 7, 5)])
def test_prelu_with_a_slope_of_0_is_relu_and_with_01_leaky_relu(format, shape):
    x, dy = numbers(shape), numbers(shape, 8)
    x.reshape(-1)[:3] = 0.0
    for count in (1, 6) if len(shape) > 1 else (1,):
        for init, other in ((0.0, "relu"), (0.1, "leaky_relu")):
            y, dx, _ = run("prelu", x, dy, format, num_parameters=count, init=init)
            parameters = {"negative_slope": 0.1} if init else {}
            expected, expected_dx, _ = run(other, x, dy, **parameters)
            assert (y == expected).all() and (dx == expected_dx).all()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("shape", [(300, 6), (3, 6, 37, 5), (2, 6, 140, 130)])
def test_prelus_weight_collects_what_lies_below_zero(format, shape):
    x, dy = numbers(shape), numbers(shape, 8)
    x.reshape(-1)[:3] = 0.0
    products = np.moveaxis(np.where(x > 0, 0, x.astype(np.float64) * dy), 1, 0).reshape(6, -1)
    _, _, layer = run("prelu", x, dy, format, num_parameters=6)
    np.testing.assert_allclose(layer.gradients["weight"], products.sum(1), rtol=1e-5, atol=1e-4)
    _, _, layer = run("prelu", x, dy, format)
    np.testing.assert_allclose(layer.gradients["weight"], [products.sum()], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("rows", [(3, 37), (4, 35), (1, 97)])  # 37, 70 and 1 of them together
def test_prelu_takes_short_rows_together_where_they_leave_the_caches(rows, monkeypatch):
    monkeypatch.setattr(sys.modules["normcore_activation.prelu"], "STREAM_BYTES", 1)
    x = numbers((rows[0], 6, rows[1]))
    layer = normcore.layer("prelu", input_shape=x.shape, memory_format="channels_last", num_parameters=6)
    slopes = np.linspace(-0.5, 0.5, 6, dtype=np.float32)
    for factor in (1, -2):  # forward takes the slopes as they are now
        layer.parameters["weight"][:] = factor * slopes
        y = layer.forward(x)
        np.testing.assert_array_equal(y, np.where(x > 0, x, (factor * slopes)[:, None] * x))


def test_prelu_starts_from_init_unless_the_layer_has_an_initializer():
    layer = normcore.layer("prelu", input_shape=(2, 3), num_parameters=3, init=0.5)
    assert layer.parameters["weight"].tolist() == [0.5] * 3
    layer = normcore.layer("prelu", input_shape=(2, 3), num_parameters=3, weight_init="ones")
    assert layer.parameters["weight"].tolist() == [1] * 3
    assert normcore.layer("prelu", input_shape=(2, 3)).parameters["weight"].tolist() == [0.25]


def test_prelu_refuses_another_number_than_one_or_the_channels():
    with pytest.raises(normcore.ShapeError, match=r"5.*3 channels"):
        normcore.layer("prelu", input_shape=(2, 3, 4), num_parameters=5)


def test_rrelu_draws_slopes_between_its_bounds_and_keeps_them_for_backward():
    x = np.full((40, 50), -1.0, np.float32)
    x[:, ::2] = 2.0
    y, dx, layer = run("rrelu", x, lower=0.25, upper=0.5)
    assert (y[:, ::2] == 2).all() and (dx[:, ::2] == 1).all()
    slopes = -y[:, 1::2]
    np.testing.assert_array_equal(dx[:, 1::2], slopes)
    assert slopes.min() >= 0.25 and slopes.max() < 0.5
    assert abs(slopes.mean() - 0.375) < 0.01 and len(np.unique(slopes)) > 950
    again = layer.forward(x, training=True)
    assert (again[:, 1::2] != y[:, 1::2]).mean() > 0.99


def test_rrelu_in_inference_has_the_mean_slope():
    x = numbers((6, 50))
    layer = normcore.layer("rrelu", input_shape=x.shape, lower=0.25, upper=0.5)
    expected, _, _ = run("leaky_relu", x, negative_slope=0.375)
    np.testing.assert_array_equal(layer.forward(x, training=False), expected)


def test_rrelu_draws_the_same_in_every_format_and_dtype():
    x = numbers((3, 5, 7, 9))
    y, dx, _ = run("rrelu", x)
    other, other_dx, _ = run("rrelu", x, format="channels_last")
    np.testing.assert_array_equal(y, other)
    np.testing.assert_array_equal(dx, other_dx)
    np.testing.assert_allclose(run("rrelu", x.astype(np.float64))[0], y, rtol=1e-6)


def test_rrelu_refuses_bounds_the_wrong_way_round():
    with pytest.raises(normcore.ParameterError, match="lower"):
        normcore.layer("rrelu", input_shape=(2, 3), lower=0.5, upper=0.25)
