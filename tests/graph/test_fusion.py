"""Every elementwise op fuses: with others, and into batch_norm, add, conv and dense. One pass, the same numbers.

Plans are looked at for all ops; the numbers run as plain Python, for compiling each chain would take minutes.
"""

import numpy as np
import pytest

from normcore import Network
from normcore.graph.fuse import fuse
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


def network(layers, **options):
    mapping = {"input": list(SHAPE), "network": layers, "loss": "mse"}
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
    """In inference any; in training those whose derivative can be told from the output, which is all they keep."""
    op = entry(name)
    from_output = OPS[name].make(**samples_of(OPS[name])[0].params).chain.uses <= {"y"}
    for layers in ([CONV, op], ["flatten", {"dense": 5}, op]):
        last = nodes(layers, training=False)[-1]
        assert len(last.covers) == 2
        assert (len(nodes(layers, training=True)[-1].covers) == 2) == from_output


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
