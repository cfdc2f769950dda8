"""conv against torch, its own reference, and itself with other numbers of threads."""

import numba
import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, ShapeError

# (shape, parameters): each a way in which the blocks, tiles or windows do not come out even
CASES = {
    "3x3 same": ((2, 5, 9, 7), dict(out_channels=33, kernel_size=3, padding="same")),
    "tiles in several blocks": ((3, 8, 31, 25), dict(out_channels=16, kernel_size=3, padding=1)),
    "one channel": ((2, 1, 25, 31), dict(out_channels=32, kernel_size=3, padding=1)),
    "one channel, stride and dilation": (
        (2, 1, 25, 31),
        dict(out_channels=40, kernel_size=5, stride=3, dilation=2, padding=4),
    ),
    "stride 2": ((3, 5, 13, 11), dict(out_channels=34, kernel_size=3, stride=2, padding=1)),
    "groups, stride 2": ((3, 6, 13, 11), dict(out_channels=34, kernel_size=3, stride=2, padding=1, groups=2)),
    "groups, dilation": (
        (3, 6, 13, 11),
        dict(out_channels=34, kernel_size=3, dilation=2, padding=3, groups=2),
    ),
    "depthwise": ((2, 8, 6, 7), dict(out_channels=8, kernel_size=3, padding=1, groups=8)),
    "alexnet's first": ((1, 3, 43, 31), dict(out_channels=48, kernel_size=11, stride=4)),
    "pointwise": ((5, 24, 14, 13), dict(out_channels=40, kernel_size=1)),
    "pointwise, stride 2": ((5, 24, 14, 13), dict(out_channels=40, kernel_size=1, stride=2)),
    "deeper than a chunk": ((2, 300, 8, 6), dict(out_channels=20, kernel_size=3)),
    "one pixel out": ((2, 3, 4, 5), dict(out_channels=3, kernel_size=[4, 5])),
    "1-D": ((2, 8, 40), dict(out_channels=10, kernel_size=4, stride=3, dilation=2, padding=2)),
    "3-D": ((2, 4, 6, 7, 8), dict(out_channels=10, kernel_size=3, stride=2, padding=1)),
    "no bias": ((2, 3, 7, 7), dict(out_channels=4, kernel_size=2, bias=False)),
    "one sample": ((1, 7, 15, 16), dict(out_channels=7, kernel_size=3, padding=1)),
}
rng = np.random.default_rng(0)


def run(shape, params, dtype="float32", seed=1):
    """(x, dy, layer, y, dx) of one forward and backward, channels last."""
    layer = normcore.layer(
        "conv", input_shape=shape, dtype=dtype, memory_format="channels_last", seed=seed, **params
    )
    draw = np.random.default_rng(7)
    x = draw.standard_normal(shape).astype(dtype)
    dy = draw.standard_normal(layer.output_shape).astype(dtype)
    y = layer.forward(x)
    return x, dy, layer, y, layer.backward(dy)


def relative(found, expected):
    return np.abs(np.asarray(found, float) - expected).max() / np.abs(expected).max()


@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch_in_float64(name):
    torch = pytest.importorskip("torch", reason="install the extra `peers`")
    shape, params = CASES[name]
    x, dy, layer, y, dx = run(shape, params)
    arguments = dict(params)
    bias = arguments.pop("bias", True)
    peer = getattr(torch.nn, f"Conv{len(shape) - 2}d")(
        shape[1], arguments.pop("out_channels"), **arguments, bias=bias, dtype=torch.float64
    )
    with torch.no_grad():
        peer.weight[...] = torch.tensor(layer.parameters["weight"])
        if bias:
            peer.bias[...] = torch.tensor(layer.parameters["bias"])
    tx = torch.tensor(x, dtype=torch.float64, requires_grad=True)
    ty = peer(tx)
    ty.backward(torch.tensor(dy, dtype=torch.float64))
    assert relative(y, ty.detach().numpy()) < 2e-6
    assert relative(dx, tx.grad.numpy()) < 2e-6
    assert relative(layer.gradients["weight"], peer.weight.grad.numpy()) < 2e-6
    if bias:
        assert relative(layer.gradients["bias"], peer.bias.grad.numpy()) < 2e-6


def adjoint_error(shape, params, dtype):
    """y is linear in x and in the weights, so <dy, y - bias> = <dx, x> = <dweight, weight>."""
    x, dy, layer, y, dx = run(shape, params, dtype)
    weight = layer.parameters["weight"]
    reference = layer.op.reference(x.astype(float), weight.astype(float))
    bias = layer.parameters.get("bias")
    whole = reference if bias is None else reference + bias.reshape(-1, *(1,) * (len(shape) - 2))
    product = (dy.astype(float) * reference).sum()
    scale = np.abs(dy * reference).sum()
    errors = [
        relative(y, whole),
        abs((dx.astype(float) * x).sum() - product) / scale,
        abs((layer.gradients["weight"].astype(float) * weight).sum() - product) / scale,
    ]
    if bias is not None:
        expected = dy.astype(float).sum(axis=(0, *range(2, len(shape))))
        errors.append(relative(layer.gradients["bias"], expected))
    return max(errors)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_its_reference(name):
    assert adjoint_error(*CASES[name], "float32") < 2e-6


@pytest.mark.parametrize("name", ["3x3 same", "groups, stride 2", "one channel", "deeper than a chunk"])
def test_float64(name):
    assert adjoint_error(*CASES[name], "float64") < 1e-14


def test_padding_that_differs_by_side():
    params = dict(out_channels=5, kernel_size=[3, 2], padding=[[0, 2], [1, 0]], stride=[1, 2])
    assert adjoint_error((2, 3, 9, 8), params, "float32") < 2e-6


@pytest.mark.parametrize("name", ["tiles in several blocks", "groups, stride 2", "one channel"])
def test_same_bits_for_any_number_of_threads(name):
    shape, params = CASES[name]
    shape = (16, *shape[1:])  # large enough for the parallel kernels
    results = []
    before = numba.get_num_threads()
    for threads in (1, min(2, numba.config.NUMBA_NUM_THREADS)):
        numba.set_num_threads(threads)
        try:
            _, _, layer, y, dx = run(shape, params)
        finally:
            numba.set_num_threads(before)
        results.append([np.array(v) for v in (y, dx, *layer.gradients.values())])
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


def test_a_smaller_batch_gives_the_same_rows():
    shape, params = CASES["3x3 same"]
    layer = normcore.layer("conv", input_shape=shape, **params)
    x = rng.standard_normal(shape).astype("float32")
    whole = layer.forward(x, training=False).copy()
    np.testing.assert_array_equal(layer.forward(x[:1], training=False), whole[:1])


def test_weights_are_read_at_every_call():
    layer = normcore.layer("conv", input_shape=(1, 2, 4, 4), out_channels=3, kernel_size=3)
    x = rng.standard_normal((1, 2, 4, 4)).astype("float32")
    layer.forward(x)
    layer.parameters["weight"][...] = 0
    layer.parameters["bias"][...] = [1, 2, 3]
    np.testing.assert_array_equal(layer.forward(x)[0, :, 0, 0], [1, 2, 3])


def test_not_a_number_stays_in_its_windows():
    layer = normcore.layer("conv", input_shape=(1, 3, 9, 9), out_channels=5, kernel_size=3, padding=1)
    x = rng.standard_normal((1, 3, 9, 9)).astype("float32")
    x[0, 1, 4, 4] = np.nan
    found = np.isnan(layer.forward(x)).any(axis=(0, 1))
    expected = np.zeros((9, 9), bool)
    expected[3:6, 3:6] = True
    np.testing.assert_array_equal(found, expected)


def test_messages_print_the_arithmetic():
    with pytest.raises(ShapeError, match="5 = 2 \\* 2 \\+ 1"):
        normcore.layer("conv", input_shape=(2, 5, 4, 4), out_channels=4, kernel_size=1, groups=2)
    with pytest.raises(ParameterError, match="4 = 1 \\* 3 \\+ 1"):
        normcore.layer("conv", input_shape=(2, 3, 4, 4), out_channels=4, kernel_size=1, groups=3)
    with pytest.raises(ShapeError, match="window 5"):
        normcore.layer("conv", input_shape=(2, 3, 4, 4), out_channels=4, kernel_size=5)
