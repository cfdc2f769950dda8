"""Reductions over gathered positions, where they run in several rounds or write past the caches."""

import numpy as np
import pytest

import normcore

MAP = (4, 64, 128, 128)  # 16.8 MB: more than caches are expected to hold


def layer(name, shape, **parameters):
    return normcore.layer(name, shape, memory_format="channels_last", **parameters)


@pytest.mark.parametrize("side", [5, 13])  # more terms than are read side by side, and than one block adds up
@pytest.mark.parametrize("channels", [16, 13])  # whole vectors, and a last one that overlaps the one before
@pytest.mark.parametrize("name", ["max_pool", "min_pool", "mixed_pool", "avg_pool", "lp_pool"])
def test_many_terms(name, channels, side):
    x = np.random.default_rng(side).standard_normal((3, channels, side, side + 1)).astype(np.float32)
    x[0, 0, 0, 1] = np.nan  # in the first round
    x[1, 1, -1, -1] = np.nan  # in the last one
    pool = layer(name, x.shape, kernel_size=side, stride=1)
    y = pool.forward(x, training=True).copy()
    wanted = pool._binding.op.reference(x, **pool.parameters)
    np.testing.assert_allclose(y, wanted, rtol=2e-6, atol=1e-7)
    if name == "mixed_pool":
        np.testing.assert_allclose(pool.backward(np.ones_like(y)).sum(), y.size, rtol=1e-6)
    if name in ("max_pool", "min_pool"):
        dx = pool.backward(np.ones_like(y))
        assert dx.sum() == y.size
        assert np.isin(y[~np.isnan(y)], x[dx > 0]).all()


def test_large_gradients():
    """Every line of them is written, and by the time that backward returns."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(MAP).astype(np.float32)
    for name in ("max_pool", "avg_pool"):
        pool = layer(name, MAP, kernel_size=2)
        y = pool.forward(x, training=True)
        dy = rng.standard_normal(y.shape).astype(np.float32)
        wide = dy.repeat(2, axis=2).repeat(2, axis=3)
        wanted = (
            np.where(x == y.repeat(2, axis=2).repeat(2, axis=3), wide, 0) if name == "max_pool" else wide / 4
        )
        np.testing.assert_array_equal(pool.backward(dy), wanted)


def test_large_outputs():
    x = np.random.default_rng(2).standard_normal(MAP).astype(np.float32)
    around = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)), constant_values=-np.inf)
    pool = layer("max_pool", MAP, kernel_size=(3, 1), stride=1, padding=(1, 0))
    wanted = np.maximum(np.maximum(around[:, :, :-2], around[:, :, 1:-1]), around[:, :, 2:])
    np.testing.assert_array_equal(pool.forward(x, training=True), wanted)
