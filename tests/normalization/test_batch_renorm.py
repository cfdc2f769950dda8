"""batch_renorm: what it shares with batch_norm, and that an unclipped batch is normalized as inference does it."""

import numpy as np
import pytest

import normcore

rng = np.random.default_rng(0)


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
def test_without_room_it_is_batch_norm(memory_format):
    x, dy = rng.standard_normal((2, 4, 5, 3, 6)).astype(np.float32)
    options = {"input_shape": x.shape, "memory_format": memory_format}
    plain = normcore.layer("batch_norm", **options)
    renorm = normcore.layer("batch_renorm", r_max=1.0, d_max=0.0, **options)
    for layer in (plain, renorm):
        layer.parameters["gamma"][:] = [1, -2, 3, 0.5, 1]
    assert np.array_equal(plain.forward(x), renorm.forward(x))
    assert np.array_equal(plain.backward(dy), renorm.backward(dy))
    for name in ("running_mean", "running_var"):
        assert np.array_equal(plain.state[name], renorm.state[name])


def test_an_unclipped_batch_sees_the_running_statistics():
    x, dy = rng.standard_normal((2, 9, 4, 5)).astype(np.float32)
    layer = normcore.layer("batch_renorm", input_shape=x.shape)
    layer.state["running_mean"][:] = 0.2
    layer.state["running_var"][:] = 1.5
    inference = layer.forward(x, training=False).copy()
    y = layer.forward(x)
    assert np.abs(y - inference).max() < 1e-5
    layer.backward(dy)
    xhat = y.astype(np.float64)  # gamma 1, beta 0
    assert np.allclose(layer.gradients["gamma"], (dy * xhat).sum((0, 2)), atol=1e-4)
    assert np.allclose(layer.gradients["beta"], dy.sum((0, 2)), atol=1e-4)
