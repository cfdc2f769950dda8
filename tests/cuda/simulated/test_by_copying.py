"""Ops without CUDA kernels: on the GPU they run on the CPU, by copying, with one warning for each op."""

import warnings

import numpy as np
import pytest

import normcore
from normcore import kernels
from normcore.bound_layer import Layer
from normcore.devices import by_copying
from normcore.kernels import cpu, epilogue, epilogue_gradient
from normcore.testing.declaration_checks import cuda as cuda_check
from normcore.testing.outcome import Failed, Skipped


@cpu
def _forward(a, b, scale, count, products, y):
    for i in range(a.size):
        products[i] = a[i] * b[i]
        y[i] = scale[0] * products[i]
    count[0] += 1.0


@cpu
def _backward(a, b, scale, products, dy, dscale, da, db):
    total = 0.0
    for i in range(a.size):
        total += dy[i] * products[i]
        da[i] = scale[0] * b[i] * dy[i]
        db[i] = scale[0] * a[i] * dy[i]
    dscale[0] = total


class ScaledProduct(normcore.Op, name="scaled_product", learnable=("scale",)):
    """scale a b: two inputs, a parameter, a saved array and state, on the CPU only."""

    inputs = ("a", "b")

    def plan(self, a, b):
        return normcore.Plan(
            y=a.shape,
            parameters={"scale": normcore.Array((1,), init={"constant": {"value": 3.0}})},
            state={"count": normcore.Array((1,))},
            saved={"products": normcore.Array((a.size,))},
        )

    def forward_cpu(self, t):
        _forward[t](t.a.reshape(-1), t.b.reshape(-1), t.scale, t.count, t.products, t.y.reshape(-1))

    def backward_cpu(self, t):
        flat = [array.reshape(-1) for array in (t.dy, t.da, t.db)]
        _backward[t](t.a.reshape(-1), t.b.reshape(-1), t.scale, t.products, flat[0], t.dscale, *flat[1:])


class HalfWritten(ScaledProduct, name="half_written"):
    """Has the first of two CUDA methods."""

    def forward_cuda(self, t):
        raise AssertionError("what it saves, the CPU's backward could not read")


class OnceReversed(normcore.Op, name="once_reversed"):
    """Turns each sample round; as simple as an op of a network can be."""

    backward_needs = ()

    def plan(self, x):
        return normcore.Plan(y=x.shape)

    def forward_cpu(self, t):
        t.y[...] = t.x[:, ::-1]

    def backward_cpu(self, t):
        if t.dx is not None:
            t.dx[...] = t.dy[:, ::-1]


@cpu
def _doubled(x, z, y, e):
    for i in range(x.size):
        z[i] = x[i] + x[i]
        y[i] = epilogue(z[i], e)


@cpu
def _doubled_gradient(known, dy, dx, e):
    for i in range(dx.size):
        g = epilogue_gradient(known[i], known[i], dy[i], e)
        dx[i] = g + g


class Doubled(normcore.Op, name="doubled"):
    """2 x, and what is fused behind it: told from its output, or from the value that it keeps."""

    backward_needs = ()
    epilogue = "output"

    def plan(self, x):
        return normcore.Plan(y=x.shape)

    def forward_cpu(self, t):
        z = t.y if t.z is None else t.z
        _doubled[t](t.x.reshape(-1), z.reshape(-1), t.y.reshape(-1), t.e)

    def backward_cpu(self, t):
        known = t.y if t.z is None else t.z
        _doubled_gradient[t](known.reshape(-1), t.dy.reshape(-1), t.dx.reshape(-1), t.e)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(by_copying, "_warned", set())


@pytest.mark.parametrize("cls", [ScaledProduct, HalfWritten])
@pytest.mark.parametrize("batch", [4, 3, 0])
def test_a_layer_runs_by_copying(cls, batch):
    a, b, dy = np.random.default_rng(0).standard_normal((3, batch, 5)).astype(np.float32)
    with pytest.warns(UserWarning, match=f"op '{cls.name}' has no .*runs on the CPU"):
        layer = Layer(cls.make(), [(4, 5), (4, 5)], "cuda")
    assert layer.device.name == "cuda"
    with kernels.uncompiled():
        y = layer.device.to_host(layer.forward(a, b))
        da, db = map(layer.device.to_host, layer.backward(dy))
    np.testing.assert_allclose(y, 3 * a * b, rtol=1e-6)
    np.testing.assert_allclose(da, 3 * b * dy, rtol=1e-6)
    np.testing.assert_allclose(db, 3 * a * dy, rtol=1e-6)
    dscale = layer.device.to_host(layer.gradients["scale"])
    np.testing.assert_allclose(dscale, [(a * b * dy).sum()], rtol=1e-5)
    assert layer.device.to_host(layer.state["count"]) == [1]
    layer.parameters["scale"][...] = 5
    with kernels.uncompiled():
        np.testing.assert_allclose(layer.device.to_host(layer.forward(a, b)), 5 * a * b, rtol=1e-6)


@pytest.mark.parametrize(
    ("op", "between"),
    [
        (OnceReversed, ["once_reversed", "relu", "once_reversed"]),
        (Doubled, ["doubled", "sigmoid", "doubled", "silu"]),
    ],
    ids=["by itself", "with a fused chain"],
)
def test_a_network_trains_with_it_and_warns_once(op, between):
    from normcore.config.config import from_mapping
    from normcore.registry import Registry

    class Plugin:
        @staticmethod
        @normcore.hookimpl
        def normcore_ops():
            return [op]

    registry = Registry()
    registry.load_entry_points()
    registry.add(Plugin)
    mapping = {"input": [6], "network": [{"dense": 5}, *between, {"dense": 3}]}
    x = np.random.default_rng(1).standard_normal((4, 6)).astype(np.float32)
    losses = {}
    for device in ("cuda", "cpu"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            net = normcore.Network(from_mapping(mapping, registry=registry), device=device)
            with kernels.uncompiled():
                trainer = normcore.Trainer(net, optimizer={"sgd": {"lr": 0.1}})
                losses[device] = [trainer.step(x, [0, 1, 2, 0]) for _ in range(3)]
        about = [w for w in caught if op.name in str(w.message)]
        assert len(about) == (device == "cuda")
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-5)
    assert losses["cuda"][2] < losses["cuda"][0]


def test_the_conformance_check_says_so():
    with pytest.raises(Skipped, match="runs on the CPU, by copying"):
        cuda_check(ScaledProduct, "cpu")
    with pytest.raises(Failed, match="forward_cuda without backward_cuda"):
        cuda_check(HalfWritten, "cpu")
