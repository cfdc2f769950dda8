"""Losses: gradients against central differences, worked values, targets of every kind, and the same in torch."""

import numpy as np
import pytest

import normcore
from normcore.errors import DataError, ParameterError, ShapeError
from normcore.registry import default

SAMPLES, OUTPUTS = 5, 6
POINTWISE = ("mse", "mae", "huber", "binary_cross_entropy_with_logits")
LOSSES = [
    {"cross_entropy": {}},
    {"cross_entropy": {"label_smoothing": 0.1, "ignore_index": 3}},
    {"hinge": {}},
    {"hinge": {"margin": 0.7, "squared": True}},
    {"mse": {}},
    {"mae": {}},
    {"huber": {"delta": 0.6}},
    {"binary_cross_entropy_with_logits": {}},
]


def network(loss, dtype="float64"):
    return normcore.Network.from_mapping(
        {"input": [OUTPUTS], "network": ["identity"], "loss": loss}, dtype=dtype
    )


def inputs(loss, soft=False):
    rng = np.random.default_rng(4)
    x = 2 * rng.standard_normal((SAMPLES, OUTPUTS))
    if soft:
        shares = rng.uniform(0, 1, (SAMPLES, OUTPUTS))
        return x, shares / shares.sum(1, keepdims=True)
    if next(iter(loss)) in POINTWISE:
        return x, rng.uniform(0, 1, (SAMPLES, OUTPUTS))
    return x, np.array([0, 3, 5, 1, 3])


def named(loss):
    name, values = next(iter(loss.items()))
    return "-".join([name, *map(str, values)])


SOFT = [(loss, False) for loss in LOSSES] + [(loss, True) for loss in LOSSES[:2]]


@pytest.mark.parametrize(("loss", "soft"), SOFT, ids=lambda v: named(v) if isinstance(v, dict) else str(v))
def test_gradient_is_that_of_the_loss(loss, soft):
    net = network(loss)
    x, targets = inputs(loss, soft)
    net.loss(x, targets)
    dx = net.backward(input_gradient=True).copy()
    step = 1e-6
    for place in np.ndindex(x.shape):
        kept = x[place]
        x[place] = kept + step
        above = net.loss(x, targets, training=False)
        x[place] = kept - step
        below = net.loss(x, targets, training=False)
        x[place] = kept
        assert dx[place] == pytest.approx((above - below) / (2 * step), abs=1e-8)


@pytest.mark.peers
@pytest.mark.parametrize(("loss", "soft"), SOFT, ids=lambda v: named(v) if isinstance(v, dict) else str(v))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_like_torch(loss, soft, dtype):
    torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
    x, targets = inputs(loss, soft)
    x = x.astype(dtype)
    targets = targets.astype(dtype) if targets.dtype.kind == "f" else targets
    tx = torch.tensor(x, requires_grad=True)
    net = network(loss, dtype)
    theirs = net.config.loss.in_torch(torch, tx, torch.tensor(targets))
    theirs.backward()
    rtol = 1e-12 if dtype == "float64" else 1e-5
    assert net.loss(x, targets) == pytest.approx(theirs.item(), rel=rtol)
    np.testing.assert_allclose(net.backward(input_gradient=True), tx.grad.numpy(), rtol=rtol, atol=rtol / 10)


@pytest.mark.parametrize(
    ("loss", "x", "targets", "value"),
    [
        ("mae", [[1.0, -2.0]], [[0.0, 1.0]], 2.0),
        ("huber", [[3.0, 0.5]], [[0.0, 0.0]], (2.5 + 0.125) / 2),
        ("binary_cross_entropy_with_logits", [[1000.0, -1000.0]], [[0.0, 0.0]], 500.0),
        ("hinge", [[2.0, 0.5]], [0], 0.0),
        ("hinge", [[2.0, 1.5]], [0], 0.25),
        ("cross_entropy", [[1000.0, 0.0]], [1], 1000.0),
        ("cross_entropy", [[1000.0, 0.0]], [[0.25, 0.75]], 750.0),
    ],
)
def test_worked_values(loss, x, targets, value):
    net = normcore.Network.from_mapping(
        {"input": [2], "network": ["identity"], "loss": loss}, dtype="float64"
    )
    assert net.loss(np.array(x), np.array(targets)) == pytest.approx(value)
    assert np.isfinite(net.backward(input_gradient=True)).all()


@pytest.mark.parametrize("loss", [{"mse": {}}, {"mae": {}}, {"huber": {}}, {"cross_entropy": {}}])
def test_nan_reaches_the_loss(loss):
    x, targets = inputs(loss)
    x[2, 1] = np.nan
    assert np.isnan(network(loss).loss(x, targets))


@pytest.mark.parametrize(
    ("loss", "x", "targets", "correct"),
    [
        ("binary_cross_entropy_with_logits", [[1.0, -1.0], [1.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]], 1),
        ("hinge", [[1.0, 1.0], [0.0, 1.0]], [0, 1], 2),
        ("hinge", [[1.0, 1.0], [0.0, 1.0]], [1, 0], 0),
        ("cross_entropy", [[0.0, 1.0], [2.0, 1.0]], [[0.4, 0.6], [0.4, 0.6]], 1),
    ],
)
def test_correct_answers_are_counted(loss, x, targets, correct):
    net = normcore.Network.from_mapping({"input": [2], "network": ["identity"], "loss": loss})
    net.loss(np.array(x, np.float32), np.array(targets), training=True)
    assert net.loss_of(net.program(2, training=True)).totals()[1:] == (correct, 2)


def test_classes_and_shares_may_follow_each_other():
    net = network("cross_entropy")
    x, classes = inputs({"cross_entropy": {}})
    plain = net.loss(x, classes)
    assert net.loss(x, np.eye(OUTPUTS)[classes]) == pytest.approx(plain)
    assert net.loss(x, classes) == plain


def test_wrong_targets_are_refused():
    x, classes = inputs({"cross_entropy": {}})
    with pytest.raises(DataError, match="class numbers"):
        network("hinge").loss(x, classes.astype(float))
    with pytest.raises(DataError, match="label 6 is outside"):
        network("hinge").loss(x, classes + 1)
    with pytest.raises(ShapeError, match=r"expected targets of shape \(5, 6\)"):
        network("huber").loss(x, x[:, :3])
    with pytest.raises(ParameterError, match="delta"):
        default().get("loss", "huber").component.make(delta=0.0)
    with pytest.raises(ParameterError, match="margin"):
        default().get("loss", "hinge").component.make(margin=-1.0)
