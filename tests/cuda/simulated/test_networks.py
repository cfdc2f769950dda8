"""Whole networks in the simulator against the CPU: losses, gradients, optimizer steps, format changes."""

import numpy as np
import pytest

import normcore
from normcore import kernels

LAYERS = {
    "plain": [
        {"conv": {"out_channels": 4, "kernel_size": 3, "padding": "same"}},
        "batch_norm",
        "relu",
        {"max_pool": {"kernel_size": 2}},
        "flatten",
        {"dense": 4},
    ],
    "kept": [
        {"conv": {"out_channels": 4, "kernel_size": 3, "padding": "same", "groups": 2}},
        "silu",
        {"conv": {"out_channels": 4, "kernel_size": 1, "bias": False}},
        {"leaky_relu": 0.1},
        "tanh",
        "flatten",
        {"dense": 4},
        "elu",
    ],
    "residual": [{"residual": {"body": ["batch_norm", "relu"]}}, "gelu", {"dropout": 0.2}, "flatten"],
    "branches": [{"branches": {"merge": "concat", "paths": [["relu"], ["silu"], ["tanh"]]}}, "flatten"],
}
SEQUENCES = [{"gru": {"hidden_size": 2}, "inputs": ["input", "lengths"]}, {"dense": 4}]
OPTIMIZERS = {
    "sgd": {"sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}},
    "adam": {"adam": {"lr": 0.01}},
    "adamw": {"adamw": {"lr": 0.01}},
    "rmsprop": {"rmsprop": {"momentum": 0.5, "centered": True}},
    "adagrad": {"adagrad": {"lr": 0.1}},
}
CLASSES = {"plain": 4, "kept": 4, "residual": 50, "branches": 150}


def network(device, layers, loss="cross_entropy", optimizer="sgd", shape=(2, 5, 5), **train):
    mapping = {
        "seed": 3,
        "input": list(shape),
        "network": layers,
        "loss": loss,
        "optimizer": OPTIMIZERS[optimizer],
    }
    return normcore.Network.from_mapping({**mapping, "train": train} if train else mapping, device=device)


def steps(device, x, targets, **choices):
    """Losses of three training steps, and the parameters and state that they end in."""
    net = network(device, **choices)
    trainer = normcore.Trainer(net)
    losses = [trainer.step(x, targets) for _ in range(3)]
    everything = {**net.parameters, **net.state}
    return losses, {k: net.device.to_host(v).astype(np.float64) for k, v in everything.items()}


def compare(x, targets, **choices):
    simulated = steps("cuda", x, targets, **choices)
    with kernels.uncompiled():
        expected = steps("cpu", x, targets, **choices)
    np.testing.assert_allclose(simulated[0], expected[0], rtol=1e-5)
    assert simulated[1].keys() == expected[1].keys()
    for name, array in expected[1].items():
        np.testing.assert_allclose(simulated[1][name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def inputs(classes, batch=3):
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, 2, 5, 5)).astype(np.float32), rng.integers(0, classes, batch)


@pytest.mark.parametrize("name", LAYERS)
def test_training_steps(name):
    compare(*inputs(CLASSES[name]), layers=LAYERS[name])


def test_sequences_of_different_lengths():
    rng = np.random.default_rng(1)
    x = normcore.Sequences(rng.standard_normal((3, 4, 2)), np.array([4, 1, 3]))
    compare(x, rng.integers(0, 4, 3), layers=SEQUENCES, shape=(4, 2))


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "adagrad"])
def test_optimizers(optimizer):
    compare(*inputs(50), layers=["batch_norm", "relu", "flatten"], optimizer=optimizer)


def test_clipping():
    layers = ["batch_norm", "relu", "flatten"]
    compare(*inputs(50), layers=layers, clip_grad_norm=0.05)


SMOOTHED = {"cross_entropy": {"label_smoothing": 0.1, "ignore_index": 7}}


@pytest.mark.parametrize(
    "loss", [SMOOTHED, "hinge", "mse", "huber", "binary_cross_entropy_with_logits"], ids=str
)
def test_losses(loss):
    x, targets = inputs(50)
    if isinstance(loss, str) and loss != "hinge":
        targets = np.random.default_rng(1).uniform(0, 1, (3, 50)).astype(np.float32)
    else:
        targets[1] = 7
    compare(x, targets, layers=["batch_norm", "flatten"], loss=loss)


def test_shares_of_classes():
    x, _ = inputs(50)
    shares = np.random.default_rng(1).dirichlet(np.ones(50), 3).astype(np.float32)
    compare(x, shares, layers=["batch_norm", "flatten"], loss=SMOOTHED)


def test_more_samples_than_threads():
    x, targets = inputs(50, batch=40)
    compare(x, targets, layers=["batch_norm", "flatten"])


def test_memory_formats_are_converted():
    """A channels-last layer goes through the transposing kernel."""
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5)).astype(np.float32)
    first = normcore.layer("batch_norm", x.shape, device="cuda")
    last = normcore.layer("relu", x.shape, device="cuda", memory_format="channels_last")
    np.testing.assert_array_equal(last.device.to_host(last.forward(x)), np.maximum(x, 0))
    y = last.forward(first.forward(x).copy())
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_torch_like_inputs_are_adopted():
    class Tensor:  # speaks DLPack and nothing else
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    layer = normcore.layer("relu", x.shape, device="cuda")
    np.testing.assert_array_equal(layer.device.to_host(layer.forward(Tensor(x))), np.maximum(x, 0))


def test_fitting_evaluating_and_keeping(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 255, (20, 6, 6, 1), dtype=np.uint8), rng.integers(0, 3, 20)
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    mapping = {
        "seed": 3,
        "data": {"source": "npz", "path": str(tmp_path / "data.npz"), "batch_size": 8},
        "network": ["batch_norm", "relu", "flatten"],
        "loss": "cross_entropy",
        "optimizer": OPTIMIZERS["sgd"],
        "train": {"epochs": 2},
    }

    def fitted(device):
        trainer = normcore.Trainer(normcore.Network.from_mapping(mapping, device=device))
        return trainer.net, trainer.fit()

    net, metrics = fitted("cuda")
    with kernels.uncompiled():
        _, expected = fitted("cpu")
    for key in ("train_loss", "test_loss", "train_accuracy", "test_accuracy"):
        assert metrics[key] == pytest.approx(expected[key], rel=1e-5), key
    net.save(tmp_path / "weights.safetensors")
    other = normcore.Network.from_mapping(mapping, device="cuda")
    other.load(tmp_path / "weights.safetensors")
    images = rng.standard_normal((2, 1, 6, 6)).astype(np.float32)
    host = net.device.to_host
    np.testing.assert_array_equal(host(net.forward(images)), host(other.forward(images)))
