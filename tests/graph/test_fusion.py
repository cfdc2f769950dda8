"""Every elementwise op fuses: with others, and into batch_norm, add, conv and dense. One pass, the same numbers.

Plans are looked at for all ops; the numbers run as plain Python, for compiling each chain would take minutes.
"""

import numpy as np
import pytest

from normcore import Network
from normcore.graph.fuse import backward_needs, chain_of, fuse
from normcore.kernels import uncompiled
from normcore.registry import default
from normcore.testing.derive import samples_of

OPS = {
    s.name: s.component
    for s in default().all("op")
    if s.component.is_elementwise and s.component.inputs == ("x",)
}
SHAPE = (3, 4, 4)
CONV = {"conv": {"out_channels": 3, "kernel_size": 1}}


def entry(name):
    return {name: dict(samples_of(OPS[name])[0].params)} if samples_of(OPS[name])[0].params else name


def network(layers, shape=SHAPE, **options):
    mapping = {"input": list(shape), "network": layers, "loss": "mse"}
    return Network.from_mapping(mapping, dtype="float64", **options)


def nodes(layers, training):
    return fuse(network(layers)._graph(2), training).nodes


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", OPS)
def test_every_op_joins_its_neighbours(name, training):
    op = entry(name)
    for layers in (
        [op, "tanh"],
        ["silu", op],
        [op, op, "gelu", op],
        ["batch_norm", op],
        ["batch_norm", op, "elu"],
    ):
        assert len(nodes(layers, training)) == 1, f"{layers} is more than one pass"
    joined = nodes([{"residual": {"body": ["batch_norm"]}}, op], training)
    assert [len(n.covers) for n in joined] == [1, 2], "an op behind a residual block joins its sum"


@pytest.mark.parametrize("name", OPS)
def test_conv_and_dense_take_an_op_in(name):
    """Any. Only training keeps the value before the op, where the derivative cannot be told from the output."""
    op = entry(name)
    from_output = OPS[name].make(**samples_of(OPS[name])[0].params).chain.uses <= {"y"}
    for layers in ([CONV, op], ["flatten", {"dense": 5}, op]):
        for training in (True, False):
            last = nodes(layers, training)[-1]
            assert len(last.covers) == 2
            knows_input = chain_of(last, training)[0].knows == "input"
            assert knows_input == (training and not from_output)
            assert ("y" in backward_needs(last)) == from_output


def step(net, x, targets):
    loss = net.loss(x, targets)
    dx = net.backward(input_gradient=True)
    return [loss, dx.copy(), *(g.copy() for g in net.gradients.values())]


@pytest.mark.parametrize("name", OPS)
def test_fused_numbers_are_those_of_single_ops(name):
    rng = np.random.default_rng(5)
    x, targets = rng.standard_normal((2, *SHAPE)), rng.standard_normal((2, *SHAPE))
    layers = ["tanh", entry(name), "sigmoid", {"residual": {"body": ["batch_norm", entry(name)]}}, "softplus"]
    with uncompiled(), np.errstate(all="ignore"):
        fused, single = (step(network(layers, fuse=f), x, targets) for f in (True, False))
    for a, b in zip(fused, single, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


POOL = {"max_pool": {"kernel_size": 3, "stride": 2, "padding": 1}}
SPREAD = {"dropout": {"p": 0.0}}  # a layer that takes nothing in


def order(layers, training=True):
    return [path for node in nodes(layers, training) for path in node.covers]


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_what_commutes_with_maxima_runs_behind_them(name):
    paths = [f"{name}1", "max_pool1"]
    assert order([SPREAD, name, POOL]) == ["dropout1", *paths[::-1]]
    assert order([name, POOL]) == paths[::-1]
    assert order([CONV, name, POOL]) == ["conv1", *paths[::-1]], "backward would mask the large output"
    assert order([name, {"min_pool": 2}, "global_max_pool"]) == ["min_pool1", "global_max_pool1", paths[0]]


def test_what_stays_before_maxima():
    """Ops fused for nothing where they stand, other functions, outputs as large as inputs, values read elsewhere."""
    assert order([CONV, "relu", POOL], training=False) == ["conv1", "relu1", "max_pool1"]
    assert order(["batch_norm", "relu", POOL]) == ["batch_norm1", "relu1", "max_pool1"]
    for name in (
        "sigmoid",
        "hard_tanh",
        "leaky_relu",
        "clip",
    ):  # rounding and bounds make ties, factors round
        assert order([SPREAD, entry(name), POOL]) == ["dropout1", f"{name}1", "max_pool1"]
    same = {"max_pool": {"kernel_size": 3, "stride": 1, "padding": 1}}
    assert order([SPREAD, "relu", same]) == ["dropout1", "relu1", "max_pool1"]
    shared = [SPREAD, "relu", {"branches": {"paths": [[POOL], [{"avg_pool": 2}]]}}]
    assert order(shared).index("relu1") == 1
    indices = {"max_pool": {"kernel_size": 2, "return_indices": True}}
    unpool = {"max_unpool": {"kernel_size": 2}, "inputs": ["max_pool1", "max_pool1.indices"]}
    assert order([SPREAD, "relu", indices, unpool])[:3] == ["dropout1", "relu1", "max_pool1"]


def test_moving_keeps_the_lengths_of_sequences():
    """relu runs behind a pool along the features; the recurrent layer still reads the lengths."""
    layers = ["relu", {"max_pool": 2}, {"gru": {"hidden_size": 3}, "inputs": ["max_pool1", "lengths"]}]
    graph = network(layers, shape=(5, 8))._graph(2)
    assert graph.lengths is not None
    fused = fuse(graph, training=True)
    assert [path for node in fused.nodes for path in node.covers][:2] == ["max_pool1", "relu1"]
    assert fused.lengths is graph.lengths


@pytest.mark.parametrize("pool", [POOL, {"min_pool": {"kernel_size": 2, "stride": 1}}, "global_max_pool"])
@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_moving_changes_no_number(name, pool):
    """Ties, windows wholly below 0 and above 6, zeros, NaN and infinities included; == takes -0 for 0."""
    x = np.random.default_rng(3).integers(-8, 9, (2, 2, 6, 7)).astype(float)  # ties
    x[0] = np.minimum(x[0], 5)
    x[0, 0, :4, :4], x[1, 0, 3:, 3:] = -np.arange(16).reshape(4, 4), 7.0
    x[0, 1, 2, 2], x[0, 1, 5, 5], x[1, 1, 1, 1] = np.nan, np.inf, -np.inf
    layers = [SPREAD, name, pool]
    finite = np.where(np.isfinite(x), x, 0.0)  # for a gradient that is
    found = []
    with uncompiled(), np.errstate(all="ignore"):
        for fused in (True, False):
            net = network(layers, fuse=fused, shape=x.shape[1:])
            y = net.forward(x, training=True).copy()
            net.loss(finite, np.arange(1.0, y.size + 1).reshape(y.shape))
            found.append((y, net.backward(input_gradient=True).copy()))
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isnan(found[0][0]).any()
    assert (found[0][1] != 0).any()
