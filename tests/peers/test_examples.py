"""Every net of examples/ beside the same net in torch: all gradients, and the loss over many steps of training.

A file added to examples/ is tested as it stands. Nets for large images are cut here: smaller images, fewer outputs.
"""

import dataclasses
import pathlib
import zlib

import numpy as np
import pytest

from normcore.config.config import load
from normcore.config.yaml_file import plain, read_file
from normcore.errors import ShapeError, UsageError
from normcore.network import Network
from normcore.sequences import Sequences
from normcore.training.loop import Trainer

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
pytestmark = pytest.mark.peers

ROOT = pathlib.Path(__file__).parents[2] / "examples"
FILES = {str(p.relative_to(ROOT)).removesuffix(".yaml"): p for p in sorted(ROOT.rglob("*.yaml"))}
# Statistics over very few samples magnify rounding; the large nets have positions to average over too.
BATCH, LARGE_BATCH = 32, 4
# Large nets: what is cut, and how many steps the normal run compares (the others: 50).
CUTS = {
    "alexnet": ["input=[3, 67, 67]", "network.16.dense.out_features=64", "network.19.dense.out_features=48",
                "network.22.dense.out_features=10"],
    "googlenet": ["input=[3, 64, 64]"],
    "resnet18": ["input=[3, 64, 64]"],
}  # fmt: skip
LARGE = {*CUTS, "alexnet-cifar", "inception-bn", "inception-resnet", "resnet20", "vgg11-bn"}
STEPS = 50
# The large nets learn at an early rate of a warm-up. At the files' whole rates, batches of four part resnet20 in PyTorch from
# itself with weights moved by one rounding: 1e-16 becomes 1e-6 in 25 steps; so it stays below 1e-8 over 50.
WARM_UP = 0.1
TOLERANCES = {"float64": 1e-6, "float32": 1e-4}


def dropouts(value, path=""):
    """Overrides that turn every dropout off: its random numbers are nobody else's."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == "dropout":
                yield f"{path}.dropout=0.0"
            else:
                yield from dropouts(inner, f"{path}.{key}".lstrip("."))
    elif isinstance(value, list):
        for k, inner in enumerate(value):
            yield from dropouts(inner, f"{path}.{k}")


def net_of(name, dtype):
    overrides = [*CUTS.get(name, ()), *dropouts(plain(read_file(FILES[name], [])))]
    overrides.append("schedule=constant")
    # start_from wants another run's weights: here every layer starts from its own and learns.
    config = dataclasses.replace(load(FILES[name], overrides), start_from=None)
    if (
        name in LARGE
    ):  # the early rate of a warm-up: at the whole one, batches of four drive PyTorch from itself too
        slower = dataclasses.replace(config.optimizer, lr=WARM_UP * config.optimizer.lr)
        config = dataclasses.replace(config, optimizer=slower)
    return Network(config, dtype=dtype)


def batches(name, net, count):
    """Images with a little of their class in them, so that there is something to learn."""
    rng = np.random.default_rng(zlib.crc32(net.config.name.encode()))
    classes, size = net.output_shape[0], LARGE_BATCH if name in LARGE else BATCH
    for _ in range(count):
        targets = rng.integers(0, classes, size)
        x = rng.standard_normal((size, *net.sample_shape))
        x += 0.3 * (targets % 7 - 3).reshape(-1, *(1,) * len(net.sample_shape))
        x = x.astype(net.dtype)
        yield Sequences(x, rng.integers(1, x.shape[1] + 1, size)) if net.reads_lengths else x, targets


def tensors(x, dtype=None):
    """The same input for torch; dtype: another than its own."""
    if isinstance(x, Sequences):
        return Sequences(tensors(x.x, dtype), torch.tensor(x.lengths))
    return torch.tensor(x, dtype=dtype)


def peer_of(net):
    from normcore.interop.torch_network import TorchNetwork

    return TorchNetwork(net)


# The large nets in float32 are a slow test: each dtype compiles kernels of its own.
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]
CASES = [
    pytest.param(name, dtype, marks=SLOW if name in LARGE and dtype == "float32" else [])
    for name in FILES
    for dtype in TOLERANCES
]


TRIES = 4  # batches of which one must decide
NUDGES, NUDGE = 16, 1e-6  # by which an input is moved: what a float32 convolution's rounding comes to


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_all_gradients_agree(name, dtype):
    """Relative to the largest element of each array. Where the gradient is zero but for rounding (a bias in front of
    batch_norm), relative to the largest of the net.

    In float32 a batch may lie on a kink: two values of a max_pool window are so near that rounding decides where the
    gradient goes, which moves a filter's by percents. Such a batch decides nothing, and the next one is taken; that it
    is one is proven by PyTorch in float64, whose own gradients must jump as its input moves by as little.
    """
    net = net_of(name, dtype)
    for x, targets in batches(name, net, TRIES):
        peer = peer_of(net)
        loss, expected = peer.gradients(tensors(x), torch.tensor(targets))
        assert net.loss(x, targets) == pytest.approx(loss, rel=TOLERANCES[dtype])
        net.backward()
        assert list(net.gradients) == list(expected)
        exact = in_float64(peer, tensors(x, torch.float64), targets)
        worst, error = difference(net.gradients, {k: g.numpy() for k, g in expected.items()}, exact)
        if error < TOLERANCES[dtype]:
            return
        assert dtype == "float32" and on_a_kink(peer, x, targets, exact, error), (worst, error)
    raise AssertionError(f"all of {TRIES} batches lie on a kink")


def in_float64(peer, x, targets):
    peer.parameters = {k: v.detach().double().requires_grad_() for k, v in peer.parameters.items()}
    peer.state = {k: v.double() if v.is_floating_point() else v for k, v in peer.state.items()}
    return {k: g.numpy() for k, g in peer.gradients(x, torch.tensor(targets))[1].items()}


def difference(found, expected, exact):
    """The path of the gradient that differs most, and by how much of its size."""
    sizes = {k: float(np.abs(g).max()) for k, g in exact.items()}
    errors = {}
    for path, gradient in found.items():
        zero = sizes[path] < 1e-12 * max(sizes.values())
        error = np.abs(gradient - expected[path]).max()
        errors[path] = float(error / (max(sizes.values()) if zero else sizes[path]))
    worst = max(errors, key=errors.__getitem__)
    return worst, errors[worst]


def on_a_kink(peer, x, targets, exact, error):
    """Whether some nudge of the input moves PyTorch's float64 gradients by half the error or more."""
    rng = np.random.default_rng(0)
    for _ in range(NUDGES):
        x64 = tensors(x, torch.float64)
        values = x64.x if isinstance(x64, Sequences) else x64
        values *= 1 + NUDGE * torch.tensor(rng.uniform(-1, 1, tuple(values.shape)))
        if difference(in_float64(peer, x64, targets), exact, exact)[1] >= error / 2:
            return True
    return False


def compare_curves(name, steps):
    """float64: in float32 two right programs drift apart, for rounding grows along a training.

    It does in float64 too: Adam on the LSTM turns 3e-13 after one step into 1e-6 after fifty, steadily.
    """
    net = net_of(name, "float64")
    peer = peer_of(net)
    trainer = Trainer(net)
    optimizer, clip = peer.optimizer()
    for step, (x, targets) in enumerate(batches(name, net, steps)):
        ours = trainer.step(x, targets)
        optimizer.zero_grad()
        loss = peer.loss(tensors(x), torch.tensor(targets))
        loss.backward()
        clip()
        optimizer.step()
        assert ours == pytest.approx(loss.item(), rel=1e-6 if step < 25 else 1e-4), step


@pytest.mark.parametrize("name", FILES)
def test_the_loss_curve_agrees(name):
    compare_curves(name, 10 if name in LARGE else STEPS)


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) for name in sorted(LARGE)])
def test_the_whole_loss_curve_agrees(name):
    compare_curves(name, STEPS)


def test_what_torch_lacks_is_named():
    net = Network.from_mapping(
        {"input": [1, 4, 4], "network": [{"stochastic_pool": {"kernel_size": 2}}, "flatten", {"dense": 3}]}
    )
    with pytest.raises(UsageError, match=r"stochastic_pool1 \(stochastic_pool\)"):
        peer_of(net)
    config = load(FILES["finetune"])
    with pytest.raises(UsageError, match="start_from"):
        peer_of(Network(config)).optimizer()
    with pytest.raises(ShapeError, match=r"\(N, 1, 28, 28\)"):
        peer_of(Network(config)).forward(torch.zeros(2, 1, 28, 27))
