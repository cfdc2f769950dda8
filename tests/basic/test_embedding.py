"""embedding and spatial_dropout: wrong numbers, repeated ones, whole channels. Conformance covers the rest."""

import numpy as np
import pytest

import normcore
from normcore.errors import ShapeError


def test_a_number_that_is_asked_for_often_adds_up():
    layer = normcore.layer("embedding", input_shape=(2, 4), num=5, dim=3)
    x = np.array([[1, 4, 1, 1], [0, 1, 4, 1]])
    assert np.array_equal(layer.forward(x), layer.parameters["weight"][x])
    dy = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    assert layer.backward(dy) is None
    expected = np.zeros((5, 3), np.float32)
    np.add.at(expected, x, dy)
    assert np.array_equal(layer.gradients["weight"], expected)


@pytest.mark.parametrize("wrong", [-1, 5])
def test_numbers_outside_the_table(wrong):
    layer = normcore.layer("embedding", input_shape=(2, 2), num=5, dim=3)
    with pytest.raises(ShapeError, match=rf"from 0 to 4, got {wrong} at \(1, 0\)"):
        layer.forward(np.array([[0, 4], [wrong, 2]]))


def test_in_a_network_numbers_come_as_floats():
    net = normcore.Network.from_mapping(
        {
            "input": [6],
            "network": [{"embedding": {"num": 4, "dim": 3}}, {"gru": {"hidden_size": 5}}, {"dense": 2}],
            "loss": "cross_entropy",
            "optimizer": {"sgd": {"lr": 0.5, "momentum": 0.9}},
        },
        dtype="float64",
    )
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (40, 6)).astype(np.float64)
    labels = rng.integers(0, 2, 40)
    x[labels == 1, 2] = 3  # the one number that tells
    trainer = normcore.Trainer(net)
    first = trainer.step(x, labels)
    for _ in range(60):
        last = trainer.step(x, labels)
    assert last < 0.1 < first
    with pytest.raises(ShapeError, match=r"whole numbers from 0 to 3, got 0.5 at \(0, 1\)"):
        net.forward(np.array([[0, 0.5, 1, 1, 1, 1]]))


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
def test_whole_channels_are_dropped(memory_format):
    layer = normcore.layer(
        "spatial_dropout", input_shape=(40, 50, 3, 2), memory_format=memory_format, p=0.25, seed=1
    )
    x = np.random.default_rng(1).uniform(1, 2, (40, 50, 3, 2)).astype(np.float32)
    y = layer.forward(x)
    kept = (y != 0).all((2, 3))
    assert np.array_equal(kept, (y != 0).any((2, 3)))
    assert abs(kept.mean() - 0.75) < 4 * np.sqrt(0.25 * 0.75 / 2000)
    np.testing.assert_allclose(y[kept], x[kept] / 0.75, rtol=1e-6)
    assert np.array_equal(layer.backward(np.ones_like(x)) != 0, y != 0)
