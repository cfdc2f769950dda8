"""normcore.interop.torch: ops as torch modules. Gradients by torch's gradcheck, and the habits of PyTorch's own modules."""

import copy
import math
import pathlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

import normcore
from normcore.errors import DeviceError, ParameterError, ShapeError

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
nn = torch.nn
pytestmark = pytest.mark.peers
DOUBLE = torch.float64


@normcore.elementwise(source="Ziyin, Hartwig and Ueda 2020, arXiv:2006.08195")
class snake_of_a_test:
    """x + sin(alpha x)^2 / alpha"""

    alpha: float = 1.0

    def forward(x, alpha):
        return x + math.sin(alpha * x) ** 2 / alpha

    def derivative(x, y, alpha):
        return 1.0 + math.sin(2.0 * alpha * x)


def module(op, shape, **options):
    return normcore.interop.torch.Module(op, input_shape=shape, dtype=DOUBLE, seed=3, **options)


def drawn(*shapes):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(s, dtype=DOUBLE, generator=generator, requires_grad=True) for s in shapes]


CASES = {
    "batch_norm": ("batch_norm", [(4, 3, 5, 2)], {}),
    "batch_norm in inference": ("batch_norm", [(4, 3, 5, 2)], {}),
    "a plugin's elementwise op": (snake_of_a_test.make(alpha=1.5), [(3, 7)], {}),
    "max_pool": ("max_pool", [(2, 3, 5, 6)], {"kernel_size": 3, "stride": 2}),
    "max_pool with indices": ("max_pool", [(2, 3, 5, 6)], {"kernel_size": 2, "return_indices": True}),
    "conv, whose kernels take channels last only": (
        "conv",
        [(2, 4, 5, 4)],
        {"out_channels": 6, "kernel_size": 3, "padding": 1, "groups": 2},
    ),
    "dense": ("dense", [(4, 5)], {"out_features": 3, "bias_init": {"constant": 1}}),
    "two inputs": ("multiply", [(3, 4), (3, 4)], {}),
    "a gradient passed on": ("add", [(3, 4), (3, 4)], {}),
    "any number of inputs": ("concat", [(2, 1, 3), (2, 2, 3), (2, 3, 3)], {}),
    "a view": ("flatten", [(2, 3, 4)], {}),
    "a random op": ("dropout", [(5, 6)], {}),
    "layer_norm": ("layer_norm", [(3, 6)], {}),
    "a recurrent op": ("gru", [(2, 4, 3)], {"hidden_size": 3}),
}


def function_of(layer):
    """The module as a function of its inputs and parameters, and the parameters."""
    names = list(dict(layer.named_parameters()))

    def run(*tensors):
        layer.call_number = 0  # the same random numbers at each call
        count = len(tensors) - len(names)
        y = torch.func.functional_call(layer, dict(zip(names, tensors[count:])), tensors[:count])
        return y[0] if isinstance(y, tuple) else y

    return run, list(layer.parameters())


FORMATS = [(case, False) for case in CASES] + [
    (case, True) for case, (_, shapes, _) in CASES.items() if len(shapes[0]) == 4
]


@pytest.mark.parametrize(("case", "last"), FORMATS, ids=[c + ", channels last" * f for c, f in FORMATS])
def test_gradcheck(case, last):
    op, shapes, parameters = CASES[case]
    layer = module(op, shapes[0] if len(shapes) == 1 else shapes, **parameters)
    layer.train("inference" not in case)
    run, own = function_of(layer)
    inputs = drawn(*shapes)
    if last:
        inputs = [x.detach().contiguous(memory_format=torch.channels_last).requires_grad_() for x in inputs]
        assert run(*inputs, *own).is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradcheck(run, (*inputs, *own))


def test_the_same_numbers_as_the_layer():
    layer = normcore.layer("batch_norm", input_shape=(4, 3, 5, 2), dtype="float64")
    peer = module("batch_norm", (4, 3, 5, 2))
    (x,) = drawn((4, 3, 5, 2))
    dy = torch.cos(x.detach())
    y = peer(x)
    y.backward(dy)
    assert np.array_equal(layer.forward(x.detach().numpy()), y.detach().numpy())
    assert np.array_equal(layer.backward(dy.numpy()), x.grad.numpy())
    assert np.array_equal(layer.gradients["gamma"], peer.gamma.grad.numpy())
    assert np.array_equal(layer.state["running_var"], peer.running_var.numpy())


@pytest.mark.parametrize("case", ["batch_norm", "layer_norm", "max_pool", "dense", "a random op"])
def test_several_calls_before_one_backward(case):
    """Each call keeps its own; another batch size in between; backward twice where the graph is kept."""
    op, (shape,), parameters = CASES[case]
    layer = module(op, shape, **parameters)
    a, b, c = (x.detach() * k for k, x in enumerate(drawn(shape, shape, (shape[0] - 1, *shape[1:])), start=1))
    separate = []
    for x in (a, b, c):
        x.requires_grad_()
        layer(x).square().sum().backward()
        separate.append(x.grad)
        x.grad = None
    alone = {k: p.grad.clone() for k, p in layer.named_parameters()}
    layer.zero_grad()
    layer.call_number = 0
    total = sum(layer(x).square().sum() for x in (a, b, c))
    total.backward(retain_graph=True)
    total.backward()
    for x, expected in zip((a, b, c), separate):
        torch.testing.assert_close(x.grad, 2 * expected)
    for name, p in layer.named_parameters():
        torch.testing.assert_close(p.grad, 2 * alone[name])


def test_memory_is_shared_not_copied(monkeypatch):
    seen = {}
    op = type(module("batch_norm", (4, 3, 5, 2)).op)
    forward = op.forward_cpu

    def spy(self, t):
        seen.update({name: getattr(t, name).ctypes.data for name in ("x", "y", "gamma", "running_mean")})
        forward(self, t)

    monkeypatch.setattr(op, "forward_cpu", spy)
    layer = module("batch_norm", (4, 3, 5, 2))
    (x,) = drawn((4, 3, 5, 2))
    y = layer(x)
    tensors = {"x": x, "y": y, "gamma": layer.gamma, "running_mean": layer.running_mean}
    assert seen == {name: tensor.data_ptr() for name, tensor in tensors.items()}


def test_changes_in_place_are_noticed():
    layer = module("batch_norm", (4, 3, 5, 2))
    (x,) = drawn((4, 3, 5, 2))
    for changed in (x, layer.gamma):
        y = layer(x)
        with torch.no_grad():
            changed.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
    layer.eval()
    y = layer(x)
    layer.train()(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_outputs_may_be_changed_and_kept():
    layer = module("gelu", (3, 7))
    x, other = drawn((3, 7), (3, 7))
    kept = layer(x)
    before = kept.detach().clone()
    layer(other)
    assert torch.equal(kept, before)
    kept.add_(1).sum().backward()  # gelu's backward reads its input only
    assert x.grad is not None


def test_no_gradient_where_none_is_wanted():
    layer = module("dense", (4, 5), out_features=3)
    layer.weight.requires_grad_(False)
    (x,) = drawn((4, 5))
    layer(x.detach()).sum().backward()
    assert layer.weight.grad is None
    assert torch.equal(layer.bias.grad, torch.full((3,), 4.0, dtype=DOUBLE))
    with torch.no_grad():
        assert not layer(x).requires_grad
    y, indices = module("max_pool", (2, 3, 4, 4), kernel_size=2, return_indices=True)(*drawn((2, 3, 4, 4)))
    assert y.requires_grad
    assert not indices.requires_grad
    assert indices.dtype == torch.int64


def test_second_derivatives_are_refused():
    (x,) = drawn((3, 7))
    (slope,) = torch.autograd.grad(module("gelu", (3, 7))(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_a_model_of_pytorch_with_layers_of_both():
    """Trained by torch.optim, beside PyTorch's own layers; then saved, loaded, copied, pickled and converted."""
    Module = normcore.interop.torch.Module
    torch.manual_seed(1)
    ours = nn.Sequential(
        nn.Linear(5, 6), Module("batch_norm", (8, 6)), Module("relu", (8, 6)), nn.Linear(6, 2)
    )
    theirs = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2))
    for k in (0, 3):
        theirs[k].load_state_dict(ours[k].state_dict())
    ours, theirs = ours.double(), theirs.double()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (ours, theirs)]
    for step in range(10):
        x = torch.randn(8, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(step))
        losses = []
        for model, optimizer in zip((ours, theirs), optimizers):
            optimizer.zero_grad()
            loss = (model(x)[:, 0] - x.sum(1)).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
    expected = ours(x)
    again = nn.Sequential(
        nn.Linear(5, 6), Module("batch_norm", (8, 6)), Module("relu", (8, 6)), nn.Linear(6, 2)
    )
    again.double().eval().load_state_dict(ours.state_dict())
    for model in (again, copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(model(x), expected)
    assert ours.float()(x.float()).dtype == torch.float32
    assert "batch_norm, eps=1e-05" in repr(ours)


def test_recomputed_activations():
    """torch.utils.checkpoint drops what is saved and runs forward again: saved arrays are autograd's, so it works."""
    from torch.utils.checkpoint import checkpoint

    layer = module("layer_norm", (3, 6))
    (x,) = drawn((3, 6))
    layer(x).square().sum().backward()
    expected, x.grad = x.grad, None
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    torch.testing.assert_close(x.grad, expected)


def test_random_ops_follow_pytorchs_seed():
    Module = normcore.interop.torch.Module

    def masks():
        torch.manual_seed(7)
        return [Module("dropout", (4, 8))(torch.ones(4, 8)) for _ in range(2)]

    (a, b), (c, d) = masks(), masks()
    assert torch.equal(a, c)
    assert torch.equal(b, d)
    assert not torch.equal(a, b)
    layer = Module("dropout", (4, 8))
    x = torch.ones(4, 8, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # the same mask
    assert not torch.equal(layer(x), y)
    assert torch.equal(layer.eval()(x), x)


def test_bad_input_has_one_clear_error():
    layer = module("dense", (4, 5), out_features=3)
    (x,) = drawn((4, 5))
    for inputs, error, message in (
        ((x, x), ShapeError, "expected 1 inputs"),
        ((drawn((4, 6))[0],), ShapeError, r"need weight of shape \(3, 6\), the module has \(3, 5\)"),
        ((x.float(),), ParameterError, "torch.float64"),
        ((x.detach().numpy(),), ParameterError, "torch.Tensor"),
        ((torch.empty(4, 5, dtype=DOUBLE, device="meta"),), DeviceError, "on meta"),
    ):
        with pytest.raises(error, match=message):
            layer(*inputs)
    Module = normcore.interop.torch.Module
    for options, error, message in (
        ({"dtype": torch.float16}, ParameterError, "torch.float32 or torch.float64"),
        ({"device": "meta"}, DeviceError, "on the CPU or on CUDA"),
        ({"no_such": 1}, ParameterError, "no_such"),
    ):
        with pytest.raises(error, match=message):
            Module("relu", (3, 4), **options)
    with pytest.raises(ParameterError, match="float16"):
        Module("relu", (3, 4)).half()(torch.ones(3, 4).half())


def test_torch_is_imported_when_it_is_named():
    """And a machine without it hears what to install."""
    script = (
        "import sys, normcore\n"
        "normcore.interop\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "try:\n"
        "    normcore.interop.torch\n"
        "except ImportError as fault:\n"
        "    assert 'pip install \"normcore[peers]\"' in str(fault), fault\n"
        "else:\n"
        "    raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_guides_program(tmp_path):
    """plugins/README.md, "Inside PyTorch", beside the guide's own scale_norm.py."""
    guide = (pathlib.Path(__file__).parents[2] / "plugins" / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```py\w* title=(\S+)\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)
    for title, text in blocks:
        (tmp_path / title).write_text(text, encoding="utf-8")
    program = [sys.executable, str(tmp_path / "in_pytorch.py")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "learned: True\n", done.stdout + done.stderr
