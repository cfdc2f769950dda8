"""Random networks: gradients against central differences, and the planner's freedoms against doing nothing clever.

The menu is small on purpose: each new neighbourhood of ops is a new fused kernel to compile.
"""

import numpy as np
import pytest

import normcore

SEEDS = range(8)
SHAPE = (4, 6, 6)  # channels, height, width of a sample
BATCH = 3
STEP = 1e-6
# Central differences in float64 with this step: rounding 1e-10, truncation far below; kinks are rarely met, and
# then by one unit of many.
GRADIENT = 1e-5
SAME = 1e-10  # fused or not, planned or not: other orders of a few additions


class Maker:
    """Draws the layers of one network; keeps the channels and the map's size where they must be kept."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.named = 0

    def pick(self, *choices):
        return choices[int(self.rng.integers(len(choices)))]

    def activation(self):
        return self.pick("relu", "tanh", {"leaky_relu": 0.1})

    def same(self, channels):
        """Layers that keep (channels, height, width)."""
        return self.pick(
            lambda: [self.conv(channels), "batch_norm", self.activation()],
            lambda: [self.conv(channels, 1), self.activation()],
            lambda: [self.conv(channels), "tanh", {"leaky_relu": 0.1}],
            lambda: ["batch_norm"],
            lambda: [{"dropout": 0.3}],
            lambda: [self.activation()],
            lambda: [{"residual": {"body": [self.conv(channels), "batch_norm"]}}, "relu"],
            lambda: [{"residual": {"body": ["batch_norm", "relu"], "shortcut": [self.conv(channels, 1)]}}],
            lambda: [{"branches": {"merge": "add", "paths": [["tanh"], [self.conv(channels, 1)], []]}}],
            lambda: [{"repeat": {"times": 2, "layers": [self.conv(channels), "relu"]}}],
            lambda: self.crossed(channels),
        )()

    def conv(self, channels, size=3):
        return {
            "conv": {
                "out_channels": channels,
                "kernel_size": size,
                "padding": "same",
                "bias": self.pick(True, False),
            }
        }

    def crossed(self, channels):
        """A graph that blocks cannot say: one value read three times, by name."""
        self.named += 1
        stem, side = f"stem{self.named}", f"side{self.named}"
        return [
            {**self.conv(channels), "name": stem},
            {"relu": {}, "name": side},
            {"multiply": {}, "inputs": [stem, side]},
            {"add": {}, "inputs": [f"multiply{self.named}", stem]},
        ]

    def widened(self, channels):
        """Layers that change the channels; returns them and the new number."""
        if self.pick(True, False):
            return [self.conv(channels + 2, 1)], channels + 2
        return [{"branches": {"paths": [[self.conv(2)], ["relu"]]}}], channels + 2

    def network(self):
        channels = SHAPE[0]
        layers = []
        for _ in range(int(self.rng.integers(2, 4))):
            layers += self.same(channels)
        widened, channels = self.widened(channels)
        layers += widened
        layers += self.pick([{"max_pool": {"kernel_size": 3, "stride": 2}}], [{"max_pool": 2}], [])
        layers += self.same(channels)
        layers += self.pick(["global_avg_pool", "flatten"], ["flatten"])
        return [*layers, {"dense": 3}]


def network(seed, **keywords):
    """A random network whose parameters are moved from their initial ones and zeros."""
    spec = {
        "input": list(SHAPE),
        "seed": int(seed),
        "network": Maker(seed).network(),
        "loss": "cross_entropy",
    }
    net = normcore.Network.from_mapping(spec, dtype="float64", **keywords)
    rng = np.random.default_rng(100 + seed)
    for array in net.parameters.values():
        array += rng.uniform(-0.3, 0.3, array.shape)
    return net


def batch(seed, count=BATCH):
    rng = np.random.default_rng([seed, count])
    return rng.normal(size=(count, *SHAPE)), rng.integers(0, 3, count)


def step(net, x, targets):
    """The loss, and copies of every gradient with the input's, of the first call."""
    net.call_number = 0
    loss = net.loss(x, targets)
    dx = net.backward(input_gradient=True)
    return loss, {"input": dx.copy(), **{path: a.copy() for path, a in net.gradients.items()}}


def assert_same(got, expected):
    assert got[0] == pytest.approx(expected[0], rel=SAME, abs=SAME)
    for path, gradient in expected[1].items():
        scale = max(1e-3, float(np.abs(gradient).max()))
        np.testing.assert_allclose(got[1][path], gradient, rtol=0, atol=SAME * scale * 100, err_msg=path)


@pytest.mark.parametrize("seed", SEEDS)
def test_gradients(seed):
    """Along one random direction in each array: every array is checked, at the cost of two losses each."""
    net = network(seed)
    x, targets = batch(seed)
    _, gradients = step(net, x, targets)
    rng = np.random.default_rng(seed)
    for path, array in {"input": x, **net.parameters}.items():
        direction = rng.normal(size=array.shape)
        direction /= np.linalg.norm(direction)
        losses = []
        kept = array.copy()
        for sign in (1, -1):
            array[...] = kept + sign * STEP * direction
            net.call_number = 0
            losses.append(net.loss(x, targets))
        array[...] = kept
        numeric = (losses[0] - losses[1]) / (2 * STEP)
        analytic = float((gradients[path] * direction).sum())
        scale = max(float(np.linalg.norm(gradients[path])), 1e-2)
        assert abs(numeric - analytic) <= GRADIENT * scale, f"{path}: {analytic}, differences give {numeric}"


@pytest.mark.parametrize("seed", SEEDS)
def test_fused_equals_unfused(seed):
    x, targets = batch(seed)
    fused, plain = network(seed), network(seed, fuse=False)
    assert_same(step(fused, x, targets), step(plain, x, targets))
    np.testing.assert_allclose(
        fused.forward(x), plain.forward(x), rtol=1e-9, atol=1e-9
    )  # inference fuses more


@pytest.mark.parametrize("seed", SEEDS)
def test_reused_memory_keeps_results_right(seed):
    """The trainer's plan gives memory away as soon as backward has passed; here all of it holds NaN at the start."""
    x, targets = batch(seed)
    net = network(seed)
    net.call_number = 0
    expected = net.loss(x, targets)
    net.backward()
    gradients = {path: array.copy() for path, array in net.gradients.items()}
    program = net.program(BATCH, training=True, keep=False)
    kept = net.program(BATCH, training=True, keep=True)
    assert program.nbytes <= kept.nbytes
    loss = net.loss_of(program)
    for _ in range(2):
        for arena in net._arenas.values():
            arena[...] = 0xFF
        for array in net.gradients.values():
            array[...] = np.nan
        loss.set_targets(targets)
        program.forward(x, 0)
        loss.run()
        program.backward()
        assert_same((loss.mean(), net.gradients), (expected, gradients))


@pytest.mark.parametrize("seed", SEEDS)
def test_batch_sizes_take_turns(seed):
    net = network(seed)
    for count in (BATCH, 2, BATCH + 2, BATCH):
        x, targets = batch(seed, count)
        fresh = network(seed)
        assert_same(step(net, x, targets), step(fresh, x, targets))


def test_backward_may_run_again():
    net = network(0)
    x, targets = batch(0)
    net.loss(x, targets)
    net.backward()
    first = {path: array.copy() for path, array in net.gradients.items()}
    net.backward()
    for path, array in first.items():
        assert (net.gradients[path] == array).all(), path
