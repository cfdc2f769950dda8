"""Every op on a GPU against the CPU: samples, batches that fill the device, dtypes and memory formats."""

import numpy as np
import pytest

import normcore
from normcore.registry import default
from normcore.testing import check_op
from normcore.testing.against_cpu import comparisons
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Skipped
from normcore.testing.running import Case, Runner

pytestmark = pytest.mark.gpu
LARGE = 1_500_000  # elements: more than any GPU runs threads, so that grid-stride loops go round
OPS = {s.name: s.component for s in default().all("op") if s.component.has_cuda() and not s.component.is_view}
# One generated loop serves all elementwise ops: a few of them stand for the rest where CPU kernels must compile.
LARGE_OPS = [
    n for n, cls in OPS.items() if not cls.is_elementwise or n in ("relu", "gelu", "add", "softplus")
]
CASES = [c for cls in OPS.values() for c in comparisons(cls)]


def first_sample(name):
    try:
        return samples_of(OPS[name])[0]
    except Skipped as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("comparison", CASES, ids=[c.label for c in CASES])
def test_same_as_cpu(comparison):
    """The CPU side runs as plain Python: compiling it would take the session's time."""
    comparison.run(uncompiled=True)


@pytest.mark.parametrize("name", LARGE_OPS)
def test_large_batch(name):
    """Many blocks, the grid's upper bound, remainders: against compiled CPU kernels."""
    first_sample(name)
    seen = set()
    for comparison in comparisons(OPS[name]):
        if comparison.dtype == "float32" and comparison.training and comparison.format not in seen:
            seen.add(comparison.format)
            comparison.run(uncompiled=False, elements=LARGE)


@pytest.mark.parametrize("name", OPS)
def test_repeatable(name):
    """The same bits every time."""
    case = Case.of(OPS[name], first_sample(name))
    count = sum(np.prod(shape) for shape in case.shapes)
    case = case.with_batch(int(case.shapes[0][0] * 100_000 // count + 1))
    runner = Runner(case, "float32", device="cuda")
    inputs = runner.cast(case.inputs())
    first = dict(runner.run(inputs).arrays())
    for _ in range(3):
        for what, array in runner.run(inputs).arrays():
            assert array.tobytes() == first[what].tobytes(), what


@pytest.mark.parametrize("name", OPS)
def test_conformance(name):
    """The conformance suite itself, without the checks that need one particular kernel's text."""
    report = check_op(name, device="cuda")
    assert not report.failed, "\n".join(map(str, report.failed))


def test_a_network_trains_as_on_the_cpu():
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((10, 3, 8, 8))
    labels = rng.integers(0, 10, 256)
    images = (centers[labels] + 0.5 * rng.standard_normal((256, 3, 8, 8))).astype(np.float32)
    layers = [{"residual": {"body": ["batch_norm", "relu"]}}, "gelu", {"dropout": 0.1}, "flatten"]

    def losses(device):
        mapping = {
            "seed": 1,
            "input": [3, 8, 8],
            "network": layers,
            "loss": "cross_entropy",
            "optimizer": {"sgd": {"lr": 0.5, "momentum": 0.9}},
        }
        trainer = normcore.Trainer(normcore.Network.from_mapping(mapping, device=device))
        return [trainer.step(images, labels) for _ in range(30)]

    gpu = losses("cuda")
    assert gpu[-1] < 0.9 * gpu[0]
    np.testing.assert_allclose(gpu, losses("cpu"), rtol=1e-4)
    assert gpu == losses("cuda"), "two runs on the GPU differ"


def test_arrays_of_other_libraries(hardware):
    cupy = pytest.importorskip("cupy")
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4)
    layer = normcore.layer("relu", x.shape, device="cuda")
    expected = np.maximum(x, 0)
    np.testing.assert_array_equal(hardware.to_host(layer.forward(cupy.asarray(x))), expected)
    with cupy.cuda.Stream():
        other = cupy.asarray(x) * 1
    np.testing.assert_array_equal(hardware.to_host(layer.forward(other)), expected)
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    tensor = torch.tensor(x, device="cuda", requires_grad=True)
    y = layer.forward(tensor)
    np.testing.assert_array_equal(torch.from_dlpack(y).cpu().numpy(), expected)


def test_full_precision_products(hardware):
    """No TF32: its 10 bits would show at once."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((300, 300)).astype(np.float32) for _ in range(2))
    out = hardware.array(np.zeros((300, 300)), "float32")
    hardware.matmul(hardware.array(a, "float32"), hardware.array(b, "float32"), out)
    np.testing.assert_allclose(hardware.to_host(out), a.astype(np.float64) @ b, atol=1e-4)


def test_a_launch_costs_little(hardware):
    """Microseconds of host time for a layer's forward; converting arrays at each launch costs far more."""
    import time

    layer = normcore.layer("relu", (2, 8), device="cuda")
    x = hardware.array(np.ones((2, 8)), "float32")
    for _ in range(10):
        layer.forward(x)
    hardware.synchronize()
    started = time.perf_counter()
    for _ in range(200):
        layer.forward(x)
    hardware.synchronize()
    assert (time.perf_counter() - started) / 200 < 200e-6
