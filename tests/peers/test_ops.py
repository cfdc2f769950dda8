"""Ops against torch: outputs and all gradients on random shapes and parameters, float64 close, float32 to rounding."""

import numpy as np
import pytest

import normcore

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
F = torch.nn.functional
pytestmark = pytest.mark.peers


def batch_norm(x, arrays, training, eps=1e-5, momentum=0.1):
    mean, var = arrays["running_mean"].clone(), arrays["running_var"].clone()
    return F.batch_norm(x, mean, var, arrays.get("gamma"), arrays.get("beta"), training, momentum, eps)


# name, parameters, input shape, the same in torch
CASES = [
    ("batch_norm", {}, (5, 7, 6, 4), lambda x, a, t: batch_norm(x, a, t)),
    ("batch_norm", {"eps": 1e-2, "momentum": 0.3}, (9, 6), lambda x, a, t: batch_norm(x, a, t, 1e-2, 0.3)),
    ("batch_norm", {"affine": False}, (3, 4, 5, 3, 2), lambda x, a, t: batch_norm(x, a, t)),
    ("max_pool", {"kernel_size": 3, "stride": 2}, (2, 5, 13, 11), lambda x, a, t: F.max_pool2d(x, 3, 2)),
    (
        "max_pool",
        {"kernel_size": [3, 2], "stride": [1, 2], "padding": [1, 0], "dilation": [2, 1]},
        (2, 3, 9, 8),
        lambda x, a, t: F.max_pool2d(x, (3, 2), (1, 2), (1, 0), (2, 1)),
    ),
    (
        "max_pool",
        {"kernel_size": 2, "ceil_mode": True},
        (3, 4, 7),
        lambda x, a, t: F.max_pool1d(x, 2, ceil_mode=True),
    ),
    ("max_pool", {"kernel_size": 2, "padding": 1}, (2, 3, 5, 4, 6), lambda x, a, t: F.max_pool3d(x, 2, 2, 1)),
    ("global_avg_pool", {}, (3, 5, 4, 6), lambda x, a, t: F.adaptive_avg_pool2d(x, 1)),
    ("dense", {"out_features": 7}, (4, 11), lambda x, a, t: F.linear(x, a["weight"], a["bias"])),
    (
        "conv",
        {"out_channels": 6, "kernel_size": 3, "stride": 2, "padding": 1, "groups": 2},
        (3, 4, 9, 8),
        lambda x, a, t: F.conv2d(x, a["weight"], a["bias"], 2, 1, 1, 2),
    ),
    ("relu", {}, (3, 50), lambda x, a, t: F.relu(x)),
    ("leaky_relu", {"negative_slope": 0.2}, (3, 50), lambda x, a, t: F.leaky_relu(x, 0.2)),
    ("elu", {"alpha": 1.5}, (3, 50), lambda x, a, t: F.elu(x, 1.5)),
    ("celu", {"alpha": 0.7}, (3, 50), lambda x, a, t: F.celu(x, 0.7)),
    ("selu", {}, (3, 50), lambda x, a, t: F.selu(x)),
    ("gelu", {}, (3, 50), lambda x, a, t: F.gelu(x)),
    ("gelu", {"approximate": "tanh"}, (3, 50), lambda x, a, t: F.gelu(x, approximate="tanh")),
    ("silu", {}, (3, 50), lambda x, a, t: F.silu(x)),
    ("mish", {}, (3, 50), lambda x, a, t: F.mish(x)),
    ("softplus", {"beta": 2.0}, (3, 50), lambda x, a, t: F.softplus(x, 2.0)),
    ("softsign", {}, (3, 50), lambda x, a, t: F.softsign(x)),
    ("sigmoid", {}, (3, 50), lambda x, a, t: torch.sigmoid(x)),
    ("log_sigmoid", {}, (3, 50), lambda x, a, t: F.logsigmoid(x)),
    ("tanh", {}, (3, 50), lambda x, a, t: torch.tanh(x)),
    ("tanh_shrink", {}, (3, 50), lambda x, a, t: F.tanhshrink(x)),
    ("hard_tanh", {}, (3, 50), lambda x, a, t: F.hardtanh(x)),
    ("hard_sigmoid", {}, (3, 50), lambda x, a, t: F.hardsigmoid(x)),
    ("hard_swish", {}, (3, 50), lambda x, a, t: F.hardswish(x)),
    ("hard_shrink", {}, (3, 50), lambda x, a, t: F.hardshrink(x)),
    ("soft_shrink", {}, (3, 50), lambda x, a, t: F.softshrink(x)),
    ("relu6", {}, (3, 50), lambda x, a, t: F.relu6(x)),
]


# torch rounds a constant of these to float32 (1/6, alpha), in float64 too.
ROUNDED_BY_TORCH = ("celu", "hard_sigmoid", "hard_swish")


def identity(case):
    return f"{case[0]}-{'x'.join(map(str, case[2]))}-" + "-".join(f"{k}={v}" for k, v in case[1].items())


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_outputs_and_gradients(case):
    name, parameters, shape, peer = case
    rng = np.random.default_rng(11)
    for dtype, tolerance in (("float64", 1e-9), ("float32", 2e-4)):
        layer = normcore.layer(name, input_shape=shape, dtype=dtype, **parameters)
        for array in (*layer.parameters.values(), *layer.state.values()):
            array[...] = rng.uniform(0.5, 1.5, array.shape)
        x = (2.0 * rng.standard_normal(shape)).astype(dtype)
        tx = torch.tensor(x, requires_grad=True)
        peers = {k: torch.tensor(v.copy(), requires_grad=True) for k, v in layer.parameters.items()}
        states = {k: torch.tensor(v.copy()) for k, v in layer.state.items()}
        if name in ROUNDED_BY_TORCH:
            tolerance = max(tolerance, 1e-7)
        y = layer.forward(x, training=True)
        ty = peer(tx, {**states, **peers}, True)
        np.testing.assert_allclose(y, ty.detach().numpy(), rtol=tolerance, atol=tolerance)
        dy = rng.standard_normal(y.shape).astype(dtype)
        dx = layer.backward(dy)
        ty.backward(torch.tensor(dy))
        np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=tolerance, atol=tolerance)
        for key, array in layer.gradients.items():
            scale = float(np.abs(peers[key].grad.numpy()).max()) + 1.0
            np.testing.assert_allclose(array, peers[key].grad.numpy(), rtol=tolerance, atol=tolerance * scale)


def test_running_statistics_and_inference_like_torch():
    rng = np.random.default_rng(2)
    layer = normcore.layer("batch_norm", input_shape=(6, 5, 4, 4), dtype="float64")
    peer = torch.nn.BatchNorm2d(5, dtype=torch.float64)
    for _ in range(3):
        x = rng.standard_normal((6, 5, 4, 4)) * 3 + 1
        layer.forward(x)
        peer(torch.tensor(x))
    np.testing.assert_allclose(layer.state["running_mean"], peer.running_mean.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.state["running_var"], peer.running_var.numpy(), rtol=1e-12)
    peer.eval()
    one = rng.standard_normal((1, 5, 4, 4))
    np.testing.assert_allclose(
        layer.forward(one, training=False), peer(torch.tensor(one)).detach().numpy(), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_like_torch(smoothing):
    rng = np.random.default_rng(3)
    net = normcore.Network.from_mapping(
        {
            "input": [9],
            "network": [{"dense": 7}],
            "loss": {"cross_entropy": {"label_smoothing": smoothing, "ignore_index": 3}},
        },
        dtype="float64",
    )
    x, targets = rng.standard_normal((8, 9)), rng.integers(0, 7, 8)
    targets[2] = 3
    loss = net.loss(x, targets)
    dx = net.backward(input_gradient=True)
    tx = torch.tensor(x, requires_grad=True)
    weight, bias = (torch.tensor(net.parameters[f"dense1.{k}"].copy()) for k in ("weight", "bias"))
    peer = F.cross_entropy(
        F.linear(tx, weight, bias), torch.tensor(targets), label_smoothing=smoothing, ignore_index=3
    )
    peer.backward()
    assert loss == pytest.approx(peer.item(), rel=1e-12)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-9, atol=1e-12)
