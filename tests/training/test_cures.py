"""What the cures for vanishing gradients do, on whole trainings: the claims of the examples, held by slow tests."""

import pathlib

import pytest

from normcore.config.config import load
from normcore.network import Network
from normcore.training.loop import Trainer
from normcore.training.observer import Observer

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Accuracies(Observer):
    def __init__(self):
        self.values = []

    def epoch(self, metrics, best):
        self.values.append(metrics["test_accuracy"])


def accuracies(name, *overrides):
    watched = Accuracies()
    Trainer(Network(load(EXAMPLES / f"{name}.yaml", overrides), "cpu"), observer=watched).fit()
    return watched.values


def test_batch_norm_beats_plain_sigmoids_at_every_evaluation():
    """Ioffe and Szegedy 2015, section 4.1."""
    normalized = accuracies("mlp-sigmoid-mnist")
    plain = accuracies("mlp-sigmoid-mnist-plain")
    assert all(a > b for a, b in zip(normalized, plain, strict=True))


def test_ten_sigmoid_layers_learn_with_batch_norm_only():
    assert max(accuracies("deep-sigmoid-mnist")) > 0.9
    assert max(accuracies("deep-sigmoid-mnist", "vars.norm=identity")) < 0.15


def test_layer_norm_inside_an_lstm():
    assert accuracies("lstm-layernorm")[-1] > 0.96


def test_lenet_reaches_99_percent():
    assert accuracies("lenet-mnist")[-1] >= 0.99
