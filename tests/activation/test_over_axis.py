"""softmax and its kin: every axis, huge and infinite entries, NaN, definitions and identities."""

import numpy as np
import pytest

import normcore

INF, NAN = float("inf"), float("nan")
KIN = ("softmax", "log_softmax", "softmin", "sparsemax", "hardmax")


def run(name, x, format="channels_first", **parameters):
    layer = normcore.layer(name, input_shape=x.shape, dtype=x.dtype.name, memory_format=format, **parameters)
    y = layer.forward(x, training=True).copy()
    if name == "hardmax":
        return y, None
    dy = np.cos(np.arange(y.size, dtype=x.dtype)).reshape(y.shape)
    return y, layer.backward(dy).copy()


def numbers(shape, dtype="float32", scale=3.0):
    return np.random.default_rng(5).normal(0, scale, shape).astype(dtype)


def line(name, values, dtype="float32", **parameters):
    y, dx = run(name, np.array([values], dtype), **parameters)
    return y[0], None if dx is None else dx[0]


SHAPES = [(7,), (4, 33), (2, 5, 7), (2, 3, 5, 9), (2, 3, 4, 2, 5)]
AXES = [(shape, axis) for shape in SHAPES for axis in range(-len(shape), len(shape))]


@pytest.mark.parametrize("name", KIN)
@pytest.mark.parametrize("format", ["channels_first", "channels_last"])
def test_every_axis_is_the_last_one_of_the_array_turned(name, format):
    for shape, axis in AXES:
        x = numbers(shape, "float64")
        turned = np.ascontiguousarray(np.moveaxis(x, axis, -1)).reshape(-1, shape[axis])
        rows, _ = run(name, turned)
        expected = np.moveaxis(rows.reshape(np.moveaxis(x, axis, -1).shape), -1, axis)
        y, _ = run(name, x, format, axis=axis)
        np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-300, err_msg=f"{shape}, axis {axis}")


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin", "sparsemax"])
def test_gradients_over_every_axis_too(name):
    for shape, axis in AXES:
        x, dy = numbers(shape, "float64", 1.0), numbers(shape, "float64")
        flat = np.ascontiguousarray(np.moveaxis(x, axis, -1))
        rows = normcore.layer(name, input_shape=(x.size // shape[axis], shape[axis]), dtype="float64")
        rows.forward(flat.reshape(-1, shape[axis]), training=True)
        turned = np.ascontiguousarray(np.moveaxis(dy, axis, -1)).reshape(-1, shape[axis])
        expected = np.moveaxis(rows.backward(turned).reshape(flat.shape), -1, axis)
        for format in ("channels_first", "channels_last"):
            layer = normcore.layer(name, input_shape=shape, dtype="float64", axis=axis, memory_format=format)
            layer.forward(x, training=True)
            np.testing.assert_allclose(layer.backward(dy), expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", ["softmax", "softmin", "sparsemax"])
@pytest.mark.parametrize(("shape", "axis"), [((5, 1000), 1), ((3, 257, 70), 1), ((2, 3, 6, 5), -1)])
def test_probabilities_sum_to_one_and_their_gradients_to_zero(name, shape, axis):
    y, dx = run(name, numbers(shape), axis=axis)
    assert (y >= 0).all()
    np.testing.assert_allclose(y.sum(axis, dtype=np.float64), 1, atol=2e-6)
    np.testing.assert_allclose(dx.sum(axis, dtype=np.float64), 0, atol=2e-6)


@pytest.mark.parametrize("shape", [(6, 37), (2, 5, 9, 7)])
def test_softmin_is_the_softmax_of_minus_x_and_log_softmax_its_logarithm(shape):
    x = numbers(shape)
    y, dx = run("softmin", x)
    other, other_dx = run("softmax", -x)
    np.testing.assert_array_equal(y, other)
    np.testing.assert_array_equal(dx, -other_dx)
    np.testing.assert_allclose(run("log_softmax", x)[0], np.log(run("softmax", x)[0]), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 50), (2, 50, 40)])
def test_a_shift_of_the_whole_line_changes_nothing(shape):
    x = np.round(numbers(shape) * 64) / 64
    for name in ("softmax", "log_softmax", "softmin", "sparsemax", "hardmax"):
        np.testing.assert_array_equal(run(name, x)[0], run(name, x + 1024)[0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_huge_entry(dtype):
    for huge in (1e3, 1e4, 1e30):
        y, dx = line("softmax", [0.0, huge, -huge], dtype)
        assert y.tolist() == [0, 1, 0] and np.isfinite(dx).all()
        y, dx = line("log_softmax", [0.0, huge, -huge], dtype)
        np.testing.assert_array_equal(y, np.array([-huge, 0, -2 * huge], dtype))
        assert np.isfinite(dx).all()
        assert line("sparsemax", [0.0, huge, -huge], dtype)[0].tolist() == [0, 1, 0]
        assert line("softmin", [0.0, huge, -huge], dtype)[0].tolist() == [0, 0, 1]


def test_log_softmax_stays_right_where_the_probability_underflows():
    y, _ = line("log_softmax", [0.0, -500.0, -1e4])
    assert y.tolist() == [0.0, -500.0, -1e4]


def test_minus_infinity_is_an_entry_of_probability_zero():
    values = [1.0, -INF, 1.0, -INF]
    y, dx = line("softmax", values)
    np.testing.assert_allclose(y, [0.5, 0, 0.5, 0])
    assert np.isfinite(dx).all() and dx[1] == 0
    y, dx = line("log_softmax", values)
    np.testing.assert_allclose(y, [-np.log(2), -INF, -np.log(2), -INF], rtol=1e-6)
    assert np.isfinite(dx).all()
    y, dx = line("sparsemax", values)
    assert y.tolist() == [0.5, 0, 0.5, 0] and dx[1] == 0
    np.testing.assert_allclose(line("softmin", [-v for v in values])[0], [0.5, 0, 0.5, 0])
    assert line("hardmax", values)[0].tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(
    "values", [[-INF] * 3, [1.0, INF, 2.0], [INF, -INF, 0.0], [1.0, NAN, 2.0], [NAN] * 3]
)
@pytest.mark.parametrize("width", [1, 40])
@pytest.mark.parametrize("name", ["softmax", "log_softmax", "softmin", "sparsemax"])
def test_lines_without_an_answer_are_nan_and_alone(name, values, width):
    """width 1: a row, else a column among others."""
    x = np.ones((3, 3, width), np.float32)
    x[1, :, width // 2] = [-v for v in values] if name == "softmin" else values
    y, _ = run(name, x)
    bad = np.isnan(y)
    assert bad[1, :, width // 2].all() and bad.sum() == 3


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_nan_of_either_sign_reaches_its_whole_line(sign):
    for name in KIN:
        for width in (1, 33):
            x = numbers((2, 40, width))
            x[1, 7, width // 2] = np.copysign(np.float32(NAN), sign)
            bad = np.isnan(run(name, x)[0])
            assert bad[1, :, width // 2].all() and bad.sum() == 40, name


def test_hardmax_takes_the_first_maximum():
    for x, expected in [
        ([0.0, 2.0, 2.0, 1.0], [0, 1, 0, 0]),
        ([-0.0, 0.0], [1, 0]),
        ([-INF, -INF], [1, 0]),
        ([0.0, INF, INF], [0, 1, 0]),
    ]:
        assert line("hardmax", x)[0].tolist() == expected
        column = np.repeat(np.array(x, np.float32)[None, :, None], 40, axis=2)
        assert (run("hardmax", column)[0] == np.array(expected)[None, :, None]).all()


def test_hardmax_has_no_gradient():
    layer = normcore.layer("hardmax", input_shape=(2, 3))
    layer.forward(np.ones((2, 3), np.float32), training=True)
    with pytest.raises(normcore.NormcoreError, match="gradient"):
        layer.backward(np.ones((2, 3), np.float32))


def sparsemax_by_sorting(row):
    falling = np.sort(row.astype(np.float64))[::-1]
    sums = np.cumsum(falling)
    k = max(i + 1 for i in range(row.size) if 1 + (i + 1) * falling[i] > sums[i])
    return np.maximum(row - (sums[k - 1] - 1) / k, 0)


@pytest.mark.parametrize("scale", [1e-4, 0.05, 0.5, 5.0, 1e3])
def test_sparsemax_is_its_definition(scale):
    x = numbers((20, 301), scale=scale)
    expected = np.stack([sparsemax_by_sorting(row) for row in x])
    np.testing.assert_allclose(run("sparsemax", x)[0], expected, atol=3e-7 * max(1, scale))
    columns = np.ascontiguousarray(x.T)[None]
    np.testing.assert_allclose(run("sparsemax", columns)[0][0].T, expected, atol=3e-7 * max(1, scale))


def test_sparsemax_of_ties_and_its_gradient_by_the_support():
    y, _ = line("sparsemax", [2.0, 2.0, 0.0])
    assert y.tolist() == [0.5, 0.5, 0]
    assert line("sparsemax", [0.0] * 4)[0].tolist() == [0.25] * 4
    y, dx = run("sparsemax", numbers((9, 50), scale=0.7))
    dy = np.cos(np.arange(y.size, dtype=np.float32)).reshape(y.shape)
    for row, g, d in zip(y, dy, dx, strict=True):
        support = row > 0
        assert 1 < support.sum() < 50
        np.testing.assert_allclose(d, np.where(support, g - g[support].mean(), 0), atol=1e-6)


def test_an_axis_of_one_entry():
    x = numbers((3, 1, 40))
    for name in ("softmax", "softmin", "sparsemax", "hardmax"):
        assert (run(name, x)[0] == 1).all()
    y, dx = run("log_softmax", x)
    assert (y == 0).all() and np.abs(dx).max() == 0


@pytest.mark.parametrize("name", (*KIN, "glu", "geglu", "swiglu", "reglu", "maxout", "crelu"))
def test_an_axis_out_of_range_is_refused(name):
    for shape, axis in [((2, 4), 2), ((2, 4), -3), ((4,), 1)]:
        with pytest.raises(normcore.ShapeError, match=f"axis {axis} .*{len(shape) - 1}"):
            normcore.layer(name, input_shape=shape, axis=axis)
