"""rnn, lstm and gru: lengths, truncation, normalization's rules, PyTorch over random shapes. Conformance covers the
rest. float64 throughout: its kernels are those that the conformance suite compiles."""

import numpy as np
import pytest

import normcore
from normcore.errors import DataError, ShapeError

OPS = ("rnn", "lstm", "gru")


def layer(op, shape, lengths=False, **parameters):
    shapes = [shape, shape[:1]] if lengths else shape
    return normcore.layer(op, input_shape=shapes, dtype="float64", seed=3, **parameters)


def test_parameters_are_named_and_shaped_as_in_pytorch():
    parameters = layer("lstm", (2, 3, 5), hidden_size=4, num_layers=2, bidirectional=True).parameters
    assert {name: a.shape for name, a in parameters.items() if "_l1" not in name and "reverse" in name} == {
        "weight_ih_l0_reverse": (16, 5),
        "weight_hh_l0_reverse": (16, 4),
        "bias_ih_l0_reverse": (16,),
        "bias_hh_l0_reverse": (16,),
    }
    assert parameters["weight_ih_l1"].shape == (16, 8) and len(parameters) == 16
    assert all(np.abs(a).max() <= 0.5 for a in parameters.values())  # 1 / sqrt(hidden_size)


@pytest.mark.parametrize("op", OPS)
def test_what_lies_behind_a_sequences_end_does_not_matter(op):
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4])
    net = layer(op, x.shape, True, hidden_size=3, bidirectional=True, return_sequences=True)
    y = net.forward(x, lengths).copy()
    dy = rng.standard_normal(y.shape)
    dx, none = net.backward(dy)
    gradients = {name: g.copy() for name, g in net.gradients.items()}
    assert none is None
    ended = np.arange(6) >= lengths[:, None]
    assert not y[ended].any() and not dx[ended].any()
    x[ended], dy[ended] = 1e3, 1e3
    assert np.array_equal(net.forward(x, lengths), y)
    assert np.array_equal(net.backward(dy)[0], dx)
    assert all(np.array_equal(g, gradients[name]) for name, g in net.gradients.items())
    # The last state of a short sequence is that of the sequence by itself.
    last = layer(op, x.shape, True, hidden_size=3, bidirectional=True)
    alone = layer(op, (1, 2, 4), hidden_size=3, bidirectional=True)
    np.testing.assert_allclose(last.forward(x, lengths)[1], alone.forward(x[1:2, :2])[0], rtol=1e-12)


def test_lengths_are_checked():
    net = layer("gru", (3, 4, 2), True, hidden_size=3)
    x = np.zeros((3, 4, 2))
    with pytest.raises(ShapeError, match=r"lengths from 1 to 4 .* got 0 for sequence 1 of 3"):
        net.forward(x, np.array([4, 0, 1]))
    with pytest.raises(ShapeError, match="got 5 for sequence 2"):
        net.forward(x, np.array([4, 1, 5]))
    with pytest.raises(ShapeError, match=r"lengths of shape \(3,\), got \(3, 4\)"):
        normcore.layer("gru", input_shape=[(3, 4, 2), (3, 4)], hidden_size=3)


def test_padding_at_the_end_gives_the_lengths():
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 6, 4))
    x[1, 2:] = x[2, 4:] = -1.5
    x[0, 2] = x[2, 0] = -1.5  # no end: steps follow
    x[1, 3, 0] = np.nan  # nor is NaN padding
    lengths = np.array([6, 4, 4])
    padded = layer("gru", x.shape, hidden_size=3, bidirectional=True, padding_value=-1.5)
    given = layer("gru", x.shape, True, hidden_size=3, bidirectional=True)
    y = padded.forward(x).copy()
    assert np.array_equal(y, given.forward(x, lengths), equal_nan=True) and np.isfinite(y[[0, 2]]).all()
    dy = rng.standard_normal(y.shape)
    assert np.array_equal(padded.backward(dy), given.backward(dy)[0], equal_nan=True)
    x[1] = -1.5
    with pytest.raises(DataError, match=r"sequence 1 of 3 holds only padding \(padding_value -1.5"):
        padded.forward(x)
    with pytest.raises(ShapeError, match="lengths or padding_value, got both"):
        layer("gru", x.shape, True, hidden_size=3, padding_value=0.0)


def test_a_network_remembers_lengths_until_backward():
    """Layers between forward and backward reuse memory: the lengths must not lie in it."""
    rng = np.random.default_rng(8)
    x = rng.standard_normal((3, 6, 4))
    x[1, 2:] = x[2, 4:] = 0
    stack = [
        {"gru": {"hidden_size": 3, "padding_value": 0.0, "return_sequences": True}},
        {"gru": 3},
        {"dense": 3},
    ]
    net = normcore.Network.from_mapping(
        {"input": [6, 4], "network": stack, "loss": "cross_entropy"}, dtype="float64"
    )
    net.loss(x, np.array([0, 1, 2]))
    dx = net.backward(input_gradient=True)
    assert dx[0].all() and dx[1, :2].all() and dx[2, :4].all()
    assert not dx[1, 2:].any() and not dx[2, 4:].any()


def test_a_network_reads_lengths_beside_its_input():
    """As the layers do by themselves; stacked, each layer names the lengths, and one that does not sees all steps."""
    rng = np.random.default_rng(9)
    x, lengths = rng.standard_normal((3, 6, 4)), np.array([6, 2, 4], np.int32)
    stack = [
        {"gru": {"hidden_size": 3, "return_sequences": True}, "inputs": ["input", "lengths"]},
        {"gru": {"hidden_size": 3}, "inputs": ["gru1", "lengths"]},
    ]
    net = normcore.Network.from_mapping({"input": [6, 4], "network": stack, "loss": "mse"}, dtype="float64")
    first, second = (
        layer("gru", s, True, hidden_size=3, return_sequences=k == 0)
        for k, s in enumerate([x.shape, (3, 6, 3)])
    )
    for alone, path in ((first, "gru1"), (second, "gru2")):
        for name, array in alone.parameters.items():
            array[...] = net.parameters[f"{path}.{name}"]
    wide = lengths.astype(np.int64)
    expected = second.forward(first.forward(x, wide), wide)
    given = normcore.Sequences(x, lengths)
    assert np.array_equal(net.forward(given), expected)
    net.loss(given, np.zeros((3, 3)))
    dx = net.backward(input_gradient=True)
    assert all(dx[n, :end].all() and not dx[n, end:].any() for n, end in enumerate(lengths))
    with pytest.raises(ShapeError, match="got 0 for sequence 1"):
        net.forward(normcore.Sequences(x, np.array([6, 0, 4])))
    with pytest.raises(ShapeError, match=r"expected normcore.Sequences\(x, lengths\)"):
        net.forward(x)
    with pytest.raises(ShapeError, match=r"whole numbers of shape \(3,\) for lengths, got float64"):
        net.forward(normcore.Sequences(x, np.ones(3)))
    plain = normcore.Network.from_mapping({"input": [6, 4], "network": [{"gru": 3}]}, dtype="float64")
    with pytest.raises(ShapeError, match="no layer of the network names `lengths`"):
        plain.forward(given)


@pytest.mark.parametrize("normalization", ["none", "layer_norm"])
def test_a_sample_does_not_depend_on_its_batch(normalization):
    x = np.random.default_rng(1).standard_normal((3, 3, 3))
    net = layer("lstm", x.shape, hidden_size=5, normalization=normalization)
    together = net.forward(x).copy()
    np.testing.assert_allclose(net.forward(x[1:2])[0], together[1], rtol=1e-12)


def test_layer_norm_takes_any_scale_of_the_weights():
    """Ba 2016, section 5.1: the output does not change when all weights of a product are scaled."""
    x = np.random.default_rng(2).standard_normal((2, 3, 3))
    for op in OPS:
        net = layer(op, x.shape, hidden_size=5, normalization="layer_norm", eps=1e-12)
        before = net.forward(x).copy()
        net.parameters["weight_ih_l0"] *= 10
        net.parameters["weight_hh_l0"] *= 10
        np.testing.assert_allclose(net.forward(x), before, rtol=1e-6, atol=1e-7)


def test_batch_norm_keeps_statistics_of_each_step():
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 5, 3)) * np.arange(1, 6)[:, None]  # the spread grows with time
    parameters = {"hidden_size": 3, "normalization": "batch_norm", "momentum": 1.0}
    net = layer("lstm", x.shape, True, **parameters)
    three = np.array([3, 3, 2, 1])
    with pytest.raises(ShapeError, match="statistics of 0 time steps"):
        net.forward(x, three, training=False)
    net.forward(x, three)
    product = x @ net.parameters["weight_ih_l0"].T
    for step, rows in enumerate(([0, 1, 2, 3], [0, 1, 2], [0, 1])):
        mean, var = net.state["running_mean_ih_l0"][step], net.state["running_var_ih_l0"][step]
        np.testing.assert_allclose(mean, product[rows, step].mean(0), rtol=1e-9)
        np.testing.assert_allclose(var, product[rows, step].var(0, ddof=1), rtol=1e-9)
    assert net.state["trained_steps"].tolist() == [3]
    net.forward(x, three, training=False)
    with pytest.raises(ShapeError, match="statistics of 3 time steps, the input has sequences of 5"):
        net.forward(x, np.array([5, 1, 1, 1]), training=False)
    lenient = layer("lstm", x.shape, True, longer="last", **parameters)
    lenient.forward(x, three)
    assert np.isfinite(lenient.forward(x, np.array([5, 1, 1, 1]), training=False)).all()
    with pytest.raises(ShapeError, match="only 1 of the batch's 4 reaches step 5"):
        lenient.forward(x, np.array([5, 1, 1, 1]))


def test_a_network_learns_which_step_was_marked():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 60)
    x = rng.standard_normal((60, 3, 4)) * 0.3
    x[np.arange(60), labels, 0] += 2
    net = normcore.Network.from_mapping(
        {
            "input": [3, 4],
            "network": [{"gru": {"hidden_size": 6}}, {"dense": 3}],
            "loss": "cross_entropy",
            "optimizer": {"sgd": {"lr": 0.5, "momentum": 0.9}},
        },
        dtype="float64",
    )
    trainer = normcore.Trainer(net)
    first = trainer.step(x, labels)
    for _ in range(60):
        last = trainer.step(x, labels)
    assert last < 0.1 < first


@pytest.mark.peers
@pytest.mark.parametrize("op", OPS)
def test_truncation_is_detaching_every_few_steps(op):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(5)
    x, dy = rng.standard_normal((2, 7, 3)), rng.standard_normal((2, 7, 4))
    net = layer(op, x.shape, hidden_size=4, return_sequences=True, truncate=3)
    y = net.forward(x).copy()
    dx = net.backward(dy)
    module = getattr(torch.nn, op.upper())(3, 4, batch_first=True, dtype=torch.float64)
    module.load_state_dict({name: torch.tensor(a) for name, a in net.parameters.items()})
    tx = torch.tensor(x, requires_grad=True)
    state, parts = None, []
    for start in (0, 3, 6):
        out, state = module(tx[:, start : start + 3], state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        parts.append(out)
    ty = torch.cat(parts, 1)
    ty.backward(torch.tensor(dy))
    np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-10)
    np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-9, atol=1e-12)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(net.gradients[name], parameter.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("op", OPS)
def test_torch_agrees_over_random_shapes(op):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(6)
    for k in range(12):
        batch, steps, channels = (int(n) for n in rng.integers(1, 7, 3))
        parameters = {
            "hidden_size": int(rng.integers(1, 20)),
            "num_layers": int(rng.integers(1, 4)),
            "bidirectional": bool(k % 2),
            "return_sequences": bool(k % 3),
        }
        x, lengths = rng.standard_normal((batch, steps, channels)), rng.integers(1, steps + 1, batch)
        net = layer(op, x.shape, True, **parameters)
        y = net.forward(x, lengths).copy()
        dy = rng.standard_normal(y.shape)
        dx, _ = net.backward(dy)
        tx = torch.tensor(x, requires_grad=True)
        arrays = {name: torch.tensor(a, requires_grad=True) for name, a in net.parameters.items()}
        ty = net.op.in_torch(torch, tx, torch.tensor(lengths), training=True, **arrays)
        ty.backward(torch.tensor(dy))
        np.testing.assert_allclose(y, ty.detach().numpy(), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(dx, tx.grad.numpy(), rtol=1e-9, atol=1e-12)
        for name, array in arrays.items():
            np.testing.assert_allclose(net.gradients[name], array.grad.numpy(), rtol=1e-9, atol=1e-12)
