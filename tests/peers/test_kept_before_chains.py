"""A net whose activations are fused into conv and dense, and need the value before them: gradients beside torch's."""

import numpy as np
import pytest

from normcore import Network

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
nn = torch.nn
pytestmark = pytest.mark.peers

LAYERS = [
    {"conv": {"out_channels": 5, "kernel_size": 3, "padding": 1}},
    "silu",
    {"conv": {"out_channels": 6, "kernel_size": 3, "stride": 2}},
    "gelu",
    {"conv": {"out_channels": 4, "kernel_size": 1}},
    {"leaky_relu": 0.1},
    "tanh",
    "flatten",
    {"dense": 8},
    "elu",
    {"dense": 3},
]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_all_gradients_agree(dtype, tolerance):
    net = Network.from_mapping({"input": [3, 8, 7], "network": LAYERS, "loss": "mse"}, dtype=dtype)
    assert sum(b.keeps_z for b in net.program(2, training=True).bindings) == 4
    peer = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(5, 6, 3, stride=2),
        nn.GELU(),
        nn.Conv2d(6, 4, 1),
        nn.LeakyReLU(0.1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(4 * 3 * 3, 8),
        nn.ELU(),
        nn.Linear(8, 3),
    ).to(getattr(torch, dtype))
    for array, theirs in zip(net.parameters.values(), peer.parameters(), strict=True):
        theirs.data.copy_(torch.tensor(array))
    rng = np.random.default_rng(0)
    x, targets = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 8, 7), (2, 3)))
    loss = net.loss(x, targets)
    theirs = nn.functional.mse_loss(peer(torch.tensor(x)), torch.tensor(targets))
    theirs.backward()
    net.backward()
    np.testing.assert_allclose(loss, theirs.item(), rtol=tolerance)
    for (name, ours), parameter in zip(net.gradients.items(), peer.parameters(), strict=True):
        expected = parameter.grad.numpy()
        limit = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(ours, expected, rtol=0, atol=limit, err_msg=name)
