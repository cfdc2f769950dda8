"""examples/lenet-mnist.yaml beside the same net in torch: gradients, and the loss over fifty steps."""

import pathlib

import numpy as np
import pytest

from normcore.config.config import load
from normcore.network import Network
from normcore.training.loop import Trainer

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
nn = torch.nn
pytestmark = pytest.mark.peers
EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "lenet-mnist.yaml"
BATCH = 16


class Peer(nn.Sequential):
    """The example without dropout, whose random numbers differ."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
            nn.Flatten(),
            nn.Linear(64 * 6 * 6, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


def pair(dtype):
    config = load(EXAMPLE, ["network.12.dropout=0.0", f"data.batch_size={BATCH}", "schedule=constant"])
    net = Network(config, dtype=dtype)
    peer = Peer().to(getattr(torch, dtype))
    ours = {k: v for k, v in net.parameters.items()}
    for (name, array), theirs in zip(ours.items(), peer.parameters(), strict=True):
        assert tuple(theirs.shape) == array.shape, name
        theirs.data.copy_(torch.tensor(array))
    return net, peer


def batches(dtype, count):
    rng = np.random.default_rng(0)
    for _ in range(count):
        targets = rng.integers(0, 10, BATCH)
        x = rng.standard_normal((BATCH, 1, 28, 28)) + 0.1 * targets[:, None, None, None]
        yield x.astype(dtype), targets


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-6), ("float32", 1e-3)])
def test_all_gradients_agree(dtype, tolerance):
    net, peer = pair(dtype)
    ((x, targets),) = batches(dtype, 1)
    loss = net.loss(x, targets)
    net.backward()
    theirs = nn.functional.cross_entropy(peer(torch.tensor(x)), torch.tensor(targets))
    theirs.backward()
    assert loss == pytest.approx(theirs.item(), rel=tolerance)
    for (name, gradient), parameter in zip(net.gradients.items(), peer.parameters(), strict=True):
        expected = parameter.grad.numpy()
        error = np.abs(gradient - expected).max() / np.abs(expected).max()
        assert error < tolerance, (name, error)


def test_the_loss_curve_agrees_over_fifty_steps():
    """float64: in float32 two right programs drift apart, for rounding grows along a training."""
    net, peer = pair("float64")
    trainer = Trainer(net, optimizer={"sgd": {"lr": 0.02, "momentum": 0.9, "weight_decay": 5e-4}})
    optimizer = torch.optim.SGD(peer.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    for x, targets in batches("float64", 50):
        ours = trainer.step(x, targets)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(peer(torch.tensor(x)), torch.tensor(targets))
        loss.backward()
        optimizer.step()
        assert ours == pytest.approx(loss.item(), rel=1e-6)
