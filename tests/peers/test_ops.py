"""Ops against torch: outputs and all gradients, for every op that names its counterpart, on each of its samples.

An op says how PyTorch spells it (`in_torch`, see normcore/op.py); nothing here knows an op by name but the tests
at the end. The kernels are the ones that the conformance suite compiles.
"""

import numpy as np
import pytest

import normcore
from normcore.registry import default
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Skipped
from normcore.testing.running import Case, Runner
from normcore.testing.tolerances import compare

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
F = torch.nn.functional
pytestmark = pytest.mark.peers

# float64: two algebras. float32: both sides round. Relative to the largest element compared.
TOLERANCES = {"float64": 1e-9, "float32": 2e-4}
# torch rounds a constant of these to float32 (1/6, alpha), in float64 too.
ROUNDED_BY_TORCH = ("celu", "hard_sigmoid", "hard_swish")


def cases():
    for registered in default().all("op"):
        cls = registered.component
        if not cls.has_torch():
            continue
        try:
            samples = samples_of(cls)
        except Skipped:
            continue  # the conformance suite complains about it
        for sample in samples:
            yield pytest.param(cls, sample, id=f"{cls.name}-{sample.reason.replace(' ', '_')}")


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("cls", "sample"), list(cases()))
def test_outputs_and_gradients(cls, sample, dtype):
    case = Case.of(cls, sample)
    # Random numbers are nobody else's: such an op is compared in inference.
    training = sample.training and not cls.stochastic
    runner = Runner(case, dtype)
    inputs = runner.cast(case.inputs())
    tensors = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in inputs]
    parameters = {
        k: torch.tensor(runner.host(a), requires_grad=True) for k, a in runner.layer.parameters.items()
    }
    state = {k: torch.tensor(runner.host(a)) for k, a in runner.state.items()}
    try:
        theirs = case.op.in_torch(torch, *tensors, training=training, **parameters, **state)
    except NotImplementedError as reason:
        pytest.skip(f"torch: {reason}")
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    run = runner.run(inputs, training)
    tolerance = max(TOLERANCES[dtype], sample.rtol32 or 0.0 if dtype == "float32" else sample.rtol64 or 0.0)
    if cls.name in ROUNDED_BY_TORCH:
        tolerance = max(tolerance, 1e-7)
    assert len(run.y) == len(theirs)
    for k, (y, ty) in enumerate(zip(run.y, theirs, strict=True)):
        compare(f"output {k}", y, ty.detach().numpy(), tolerance)
    if not run.dx:
        return
    theirs[0].backward(torch.tensor(runner.dy(run.y[0].shape)))
    for k, (dx, tensor) in enumerate(zip(run.dx, tensors, strict=True)):
        if dx is not None:
            compare(f"gradient of input {k}", dx, gradient(tensor), tolerance)
    for name, parameter in parameters.items():
        compare(f"gradient of {name}", run.gradients[name], gradient(parameter), tolerance)


def gradient(tensor):
    """What autograd gave; zeros for a tensor that the output does not depend on."""
    return np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()


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
