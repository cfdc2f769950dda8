"""What the `train:` section asks for: gathering gradients over batches, and ending early."""

import numpy as np
import pytest

from normcore.errors import ConfigError
from normcore.training.loop import Interrupted, Trainer
from normcore.training.observer import Observer

from . import small
from .test_resume import Stopper

LAYERS = ["flatten", {"dense": 10}]
SGD = {"sgd": {"lr": 0.5, "momentum": 0.9}}


def trained(batch, **train):
    data = {**small.MLP["data"], "batch_size": batch, "augment": []}
    net = small.network(LAYERS, data=data, optimizer=SGD, train={"epochs": 1, **train})
    Trainer(net).fit()
    return net


@pytest.mark.parametrize("limit", [None, 0.1])
def test_gathering_four_batches_is_one_batch_of_four_times_the_size(limit):
    """Also where the epoch ends in a smaller batch and a smaller group: 5,000 digits in groups of 1,200."""
    whole = trained(1200, clip_grad_norm=limit)
    parts = trained(300, clip_grad_norm=limit, accumulate=4)
    for name, array in whole.parameters.items():
        np.testing.assert_allclose(parts.parameters[name], array, rtol=2e-4, atol=2e-5, err_msg=name)


def test_single_steps_gather_too():
    net = small.network(LAYERS, train={"accumulate": 2})
    trainer = Trainer(net)
    rng = np.random.default_rng(0)
    x, targets = rng.standard_normal((8, 1, 28, 28)).astype(np.float32), rng.integers(0, 10, 8)
    before = net.parameters["dense1.weight"].copy()
    trainer.step(x, targets)
    np.testing.assert_array_equal(net.parameters["dense1.weight"], before)
    trainer.step(x, targets)
    assert (net.parameters["dense1.weight"] != before).any()


def test_interruption_waits_for_the_update():
    net = small.network(LAYERS, train={"epochs": 1, "accumulate": 4})
    trainer = Trainer(net, observer=Stopper(1))
    with pytest.raises(Interrupted):
        trainer.fit()
    assert trainer.batch == 4


class Notes(Observer):
    def __init__(self):
        self.notes = []

    def note(self, message):
        self.notes.append(message)


def test_training_ends_when_nothing_gets_better():
    notes = Notes()
    net = small.network(LAYERS, optimizer={"sgd": {"lr": 0.0}}, train={"epochs": 9, "patience": 2})
    trainer = Trainer(net, observer=notes)
    trainer.fit()
    assert (trainer.epoch, trainer.best_epoch) == (3, 1)
    assert notes.notes == ["stopped after epoch 3: nothing better since epoch 1 (train.patience 2)"]


@pytest.mark.parametrize("train", [{"accumulate": 0}, {"patience": 0}])
def test_wrong_settings(train):
    with pytest.raises(ConfigError, match="at least 1"):
        small.network(LAYERS, train=train)
