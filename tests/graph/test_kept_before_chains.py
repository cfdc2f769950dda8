"""conv and dense keep the value before a fused chain whose derivative does not follow from its output.

Fused or not, a training step has the same values and gradients. Most run as plain Python, which checks every index.
"""

import numpy as np
import pytest

from normcore import Network, Trainer
from normcore.kernels import uncompiled

CONV = {"conv": {"out_channels": 6, "kernel_size": 3, "padding": 1}}
GROUPS = {"conv": {"out_channels": 6, "kernel_size": 3, "stride": 2, "groups": 2, "bias": False}}
POINTWISE = {"conv": {"out_channels": 19, "kernel_size": 1}}  # one whole tile and a part
DENSE = {"dense": 19}
HOSTS = {
    "conv": ((2, 4, 5, 6), CONV),
    "groups": ((2, 4, 5, 6), GROUPS),
    "pointwise": ((2, 4, 5, 6), POINTWISE),
    "dense, few rows": ((3, 5), DENSE),
    "dense, packed forward": ((100, 5), DENSE),  # beyond FORWARD_ROWS of kernels/dense.py
    "dense, packed": ((520, 5), DENSE),  # beyond BACKWARD_ROWS
}
CHAINS = {
    "leaky_relu": [{"leaky_relu": 0.1}],
    "elu": ["elu"],
    "gelu": ["gelu"],
    "silu": ["silu"],
    "two": ["relu", "tanh"],  # each alone could be told from its output
}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}  # relative to the largest element


def network(layers, shape, dtype="float64", **options):
    mapping = {"input": list(shape[1:]), "network": layers, "loss": "mse"}
    return Network.from_mapping(mapping, dtype=dtype, **options)


def step(net, shape):
    """Everything that a training step computes, and its backward once more."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(net.dtype)
    y = net.forward(x, training=True).copy()
    targets = rng.standard_normal(y.shape).astype(net.dtype)
    found = [np.float64(net.loss(x, targets)), y]
    for _ in range(2):
        found += [net.backward(input_gradient=True).copy(), *(g.copy() for g in net.gradients.values())]
    return found


def program(net, shape):
    return net.program(shape[0], training=True)


def covers(net, shape):
    """The layers that each pass runs; format changes run none."""
    return [node.covers for node in program(net, shape).nodes if node.covers]


def compare(layers, shape, dtype, kept=1):
    fused, single = (network(layers, shape, dtype, fuse=f) for f in (True, False))
    assert sum(b.keeps_z for b in program(fused, shape).bindings) == kept
    assert [len(c) for c in covers(fused, shape)] == [len(layers)]
    for a, b in zip(step(fused, shape), step(single, shape), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE[dtype] * np.abs(b).max())


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("host", HOSTS)
def test_values_and_gradients_are_those_of_single_ops(host, chain):
    shape, layer = HOSTS[host]
    with uncompiled():
        compare([layer, *CHAINS[chain]], shape, "float64")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("host", ["conv", "dense, few rows", "dense, packed"])
def test_compiled(host, dtype):
    shape, layer = HOSTS[host]
    compare([layer, "silu"], shape, dtype)


def test_what_its_output_tells_keeps_nothing():
    shape, layer = HOSTS["conv"]
    with uncompiled():
        for name in ("relu", "sigmoid", "tanh"):
            compare([layer, name], shape, "float64", kept=0)


def test_inference_keeps_nothing():
    shape, layer = HOSTS["conv"]
    found = network([layer, "silu"], shape).program(shape[0], training=False)
    assert not any("z" in b.plan.saved for b in found.bindings)
    assert next(b for b in found.bindings if b.op.name == "conv").t.z is None


def test_what_somebody_else_reads_is_not_fused():
    shape, layer = HOSTS["conv"]
    layers = [{**layer, "name": "stem"}, "silu", {"add": {}, "inputs": ["silu1", "stem"]}]
    assert covers(network(layers, shape), shape) == [("stem",), ("silu1",), ("add1",)]


def test_memory_is_shared_as_it_was():
    """The kept array takes the place of the op's own output; what a deep net needs does not grow."""
    shape, layer = HOSTS["conv"]
    layers = [layer, "silu"] * 6
    fused, single = (program(network(layers, shape, fuse=f), shape).nbytes for f in (True, False))
    assert fused <= single


@pytest.mark.parametrize("fuse", [True, False])
def test_trainers_reuse_no_kept_array_too_early(fuse):
    """Without `keep` memory is shared between directions: the same steps as a network that keeps everything."""
    shape, layer = HOSTS["conv"]
    layers = [layer, "silu", layer, "gelu", layer, "relu", "tanh"]
    rng = np.random.default_rng(1)
    x, targets = rng.standard_normal(shape), rng.standard_normal((2, 6, 5, 6))
    with uncompiled():
        net, single = network(layers, shape, fuse=fuse), network(layers, shape, fuse=False)
        trained = Trainer(net)
        trained.step(x, targets)
        single.loss(x, targets)
        single.backward()
    for name, gradient in single.gradients.items():
        np.testing.assert_allclose(net.gradients[name], gradient, rtol=1e-11, atol=1e-14)
