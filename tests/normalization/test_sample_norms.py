"""Norms whose statistics belong to one sample: identities between them, numerics, errors. Conformance covers the rest."""

import numba
import numpy as np
import pytest

import normcore
from normcore.errors import ShapeError

FORMATS = ("channels_first", "channels_last")
SHAPE = (9, 6, 5, 7)
NORMS = {
    "layer_norm": {"axis": 1},
    "group_norm": {"num_groups": 2},
    "instance_norm": {},
    "mean_variance_norm": {},
}
CASES = [(name, f) for name in NORMS for f in (FORMATS if name != "layer_norm" else FORMATS[:1])]
rng = np.random.default_rng(0)


def layer(name, shape=SHAPE, dtype="float32", memory_format="channels_first", **parameters):
    parameters = parameters or NORMS.get(name, {})
    return normcore.layer(name, input_shape=shape, dtype=dtype, memory_format=memory_format, **parameters)


def both_ways(norm, x, dy):
    return norm.forward(x).copy(), norm.backward(dy).copy()


def groups_of(name, x):
    """x as (rows, values that share a statistic)."""
    rows = {"layer_norm": 1, "group_norm": 2}.get(name, x.shape[1])
    return np.asarray(x, np.float64).reshape(x.shape[0] * rows, -1)


def exact(name, x, eps):
    v = groups_of(name, x)
    sigma = (
        v.std(1, keepdims=True) + eps
        if name == "mean_variance_norm"
        else np.sqrt(v.var(1, keepdims=True) + eps)
    )
    return ((v - v.mean(1, keepdims=True)) / sigma).reshape(x.shape)


# -- identities --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", FORMATS)
def test_one_group_is_layer_norm_of_a_sample(memory_format):
    x, dy = rng.standard_normal((2, *SHAPE))
    group = both_ways(layer("group_norm", SHAPE, "float64", memory_format, num_groups=1), x, dy)
    whole = both_ways(layer("layer_norm", SHAPE, "float64", axis=1), x, dy)
    for one, other in zip(group, whole, strict=True):
        assert np.abs(one - other).max() < 1e-12


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_group_for_each_channel_is_instance_norm(memory_format):
    x, dy = rng.standard_normal((2, *SHAPE))
    group = layer("group_norm", SHAPE, "float64", memory_format, num_groups=6)
    instance = layer("instance_norm", SHAPE, "float64", memory_format, affine=True)
    for norm in (group, instance):
        norm.parameters["gamma"][:] = [1, -2, 0.5, 3, 0, 1]
    for one, other in zip(both_ways(group, x, dy), both_ways(instance, x, dy), strict=True):
        assert np.abs(one - other).max() < 1e-12
    for name in ("gamma", "beta"):
        assert np.abs(group.gradients[name] - instance.gradients[name]).max() < 1e-10


@pytest.mark.parametrize("memory_format", FORMATS)
def test_across_the_batch_is_onnx_and_batch_norm(memory_format):
    x, dy = rng.standard_normal((2, *SHAPE)) + 3
    y, dx = both_ways(layer("mean_variance_norm", SHAPE, "float64", memory_format, across_batch=True), x, dy)
    mean = x.mean((0, 2, 3), keepdims=True)
    onnx = (x - mean) / (np.sqrt((x**2).mean((0, 2, 3), keepdims=True) - mean**2) + 1e-9)
    assert np.abs(y - onnx).max() < 1e-10
    by, bdx = both_ways(layer("batch_norm", SHAPE, "float64", memory_format, eps=0.0), x, dy)
    assert np.abs(y - by).max() < 1e-8 and np.abs(dx - bdx).max() < 1e-8


@pytest.mark.parametrize("name, memory_format", CASES)
def test_identical_samples_give_identical_results(name, memory_format):
    x = np.repeat(rng.standard_normal((1, *SHAPE[1:])).astype(np.float32), SHAPE[0], 0)
    y, dx = both_ways(layer(name, memory_format=memory_format), x, x**2)
    assert np.array_equal(y, np.repeat(y[:1], SHAPE[0], 0)) and np.array_equal(
        dx, np.repeat(dx[:1], SHAPE[0], 0)
    )
    alone = layer(name, memory_format=memory_format).forward(x[:1])
    assert np.abs(alone - y[:1]).max() < 1e-6


def test_rms_norm_of_centered_rows_is_layer_norm():
    x, dy = rng.standard_normal((2, 20, 33))
    x -= x.mean(1, keepdims=True)
    rms, ln = (
        layer("rms_norm", x.shape, "float64", eps=1e-5),
        layer("layer_norm", x.shape, "float64", axis=-1),
    )
    (y, dx), (ly, ldx) = both_ways(rms, x, dy), both_ways(ln, x, dy)
    assert np.abs(y - ly).max() < 1e-12
    assert np.abs(dx - dx.mean(1, keepdims=True) - ldx).max() < 1e-12
    assert np.abs(rms.gradients["gamma"] - ln.gradients["gamma"]).max() < 1e-11


def test_sequences_of_any_length_and_batches_of_one():
    """A time step's values do not depend on the others': (N, T, C) with any T, and one step by itself."""
    x = rng.standard_normal((2, 9, 12)).astype(np.float32)
    y = layer("layer_norm", x.shape, axis=-1).forward(x).copy()
    for length in (1, 4):
        part = np.ascontiguousarray(x[:, :length])
        assert np.array_equal(layer("layer_norm", part.shape, axis=-1).forward(part), y[:, :length])
    assert np.array_equal(layer("layer_norm", (1, 12), axis=-1).forward(x[0, 3:4]), y[0, 3:4])


@pytest.mark.parametrize("memory_format", FORMATS)
def test_running_statistics_of_instance_norm(memory_format):
    x = rng.standard_normal(SHAPE) + 2
    norm = layer("instance_norm", SHAPE, "float64", memory_format, momentum=0.25, track_running_stats=True)
    assert np.abs(norm.forward(x) - exact("instance_norm", x, 1e-5)).max() < 1e-12
    mean, var = x.mean((2, 3)).mean(0), x.var((2, 3), ddof=1).mean(0)
    assert np.allclose(norm.state["running_mean"], 0.25 * mean, rtol=1e-12)
    assert np.allclose(norm.state["running_var"], 0.75 + 0.25 * var, rtol=1e-10)
    y = norm.forward(x, training=False)
    shift, scale = norm.state["running_mean"][:, None, None], norm.state["running_var"][:, None, None]
    assert np.allclose(y, (x - shift) / np.sqrt(scale + 1e-5), atol=1e-12)


# -- numerics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, memory_format", CASES)
@pytest.mark.parametrize("dtype, spread", [("float32", 1.0), ("float64", 1e-3)])
def test_a_mean_of_a_million(name, memory_format, dtype, spread):
    x = (rng.standard_normal(SHAPE) * spread + 1e6).astype(dtype)
    y = layer(name, SHAPE, dtype, memory_format, **NORMS[name], eps=1e-12).forward(x)
    assert np.abs(y - exact(name, x, 1e-12)).max() < 1e-3


@pytest.mark.parametrize("name, memory_format", CASES)
@pytest.mark.parametrize("value", [0.0, 3.7, -1e6, 1e30])
def test_a_constant_map_is_exact(name, memory_format, value):
    x = np.full(SHAPE, value, np.float32)
    norm = layer(name, memory_format=memory_format)
    if "beta" in norm.parameters:
        norm.parameters["beta"][:] = 0.3
    assert np.all(norm.forward(x) == np.float32(0.3 if "beta" in norm.parameters else 0))
    assert np.all(norm.backward(np.ones_like(x)) == 0)


@pytest.mark.parametrize("name, memory_format", CASES)
@pytest.mark.parametrize("size, eps", [(1e30, 1e-5), (1e-30, 0.0)])
def test_huge_and_tiny_values(name, memory_format, size, eps):
    x = (rng.standard_normal(SHAPE) * size).astype(np.float32)
    dy = rng.standard_normal(SHAPE).astype(np.float32)
    norm = layer(name, SHAPE, "float32", memory_format, **NORMS[name], eps=eps)
    wanted = exact(name, x, eps)
    assert np.abs(norm.forward(x) - wanted).max() < 1e-5
    if size > 1:  # at 1e-30 the true gradient is beyond float32
        sigma = groups_of(name, x).std(1, keepdims=True) / size
        g, xhat = groups_of(name, dy), groups_of(name, wanted)
        true = (g - g.mean(1, keepdims=True) - xhat * (g * xhat).mean(1, keepdims=True)) / sigma
        assert np.abs(groups_of(name, norm.backward(dy)) * size - true).max() < 1e-5


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_rms_norm_of_huge_and_tiny_values(size):
    x = (rng.standard_normal((4, 65)) * size).astype(np.float32)
    y = layer("rms_norm", x.shape, eps=0.0).forward(x)
    wide = x.astype(np.float64)
    assert np.abs(y - wide / np.sqrt((wide**2).mean(1, keepdims=True))).max() < 1e-5


@pytest.mark.parametrize("name, memory_format", CASES)
def test_a_first_value_far_off_is_noticed(name, memory_format):
    x = rng.standard_normal((9, 6, 40, 40)).astype(np.float32)
    x[:, :, 0, 0] += 1e4
    norm = layer(name, x.shape, memory_format=memory_format)
    assert np.abs(norm.forward(x) - exact(name, x, norm.op.eps)).max() < 1e-4


@pytest.mark.parametrize("name, memory_format", CASES)
def test_nan_stays_in_its_group(name, memory_format):
    x = rng.standard_normal(SHAPE).astype(np.float32)
    clean = groups_of(name, layer(name, memory_format=memory_format).forward(x))
    x[2, 1, 3, 2] = np.nan
    y = groups_of(name, layer(name, memory_format=memory_format).forward(x))
    hit = np.isnan(groups_of(name, x)).any(1)
    assert np.isnan(y[hit]).all() and np.array_equal(y[~hit], clean[~hit])


@pytest.mark.slow
@pytest.mark.parametrize("name, memory_format", CASES)
def test_ten_million_values_a_statistic(name, memory_format):
    shape = (1, 2, 2240, 2240) if name in ("layer_norm",) else (1, 2, 3163, 3163)
    parameters = {"num_groups": 2} if name == "group_norm" else NORMS[name]
    x = rng.standard_normal(shape, np.float32) + np.float32(3)
    y = layer(name, shape, "float32", memory_format, **parameters, eps=1e-9).forward(x)
    rows = y.reshape(1 if name == "layer_norm" else 2, -1)
    assert np.abs(rows.mean(1, dtype=np.float64)).max() < 1e-6
    assert np.abs(rows.var(1, dtype=np.float64) - 1).max() < 1e-5


@pytest.mark.parametrize("name, memory_format", [*CASES, ("rms_norm", "channels_first")])
def test_the_same_bits_for_any_number_of_threads(name, memory_format):
    shape = (9, 12, 31, 17)
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    found = []
    before = numba.get_num_threads()
    try:
        for threads in sorted({1, min(2, before), before}):
            numba.set_num_threads(threads)
            norm = layer(name, shape, memory_format=memory_format)
            y, dx = both_ways(norm, x, dy)
            found.append((y.tobytes(), dx.tobytes(), *(g.tobytes() for g in norm.gradients.values())))
    finally:
        numba.set_num_threads(before)
    assert len(set(found)) == 1


# -- errors ------------------------------------------------------------------------------------------------


def test_groups_that_do_not_divide_the_channels():
    with pytest.raises(ShapeError, match=r"48 channels .* 32 groups"):
        normcore.layer("group_norm", input_shape=(2, 48, 4))


def test_a_map_of_one_position_has_no_variance():
    norm = normcore.layer("instance_norm", input_shape=(2, 3, 1, 1))
    with pytest.raises(ShapeError, match="more than one position"):
        norm.forward(np.ones((2, 3, 1, 1), np.float32))


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm"])
def test_the_batch_axis_is_no_feature(name):
    with pytest.raises(ShapeError, match="axis 0"):
        normcore.layer(name, input_shape=(2, 3), axis=0)
