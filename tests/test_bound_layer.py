"""normcore.layer: what goes in, what comes out, who owns what."""

import numpy as np
import pytest

import normcore
from normcore.errors import ParameterError, PluginError, ShapeError

SHAPE = (4, 6, 5, 5)


@pytest.fixture
def x():
    return np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def test_forward_backward_and_what_it_holds(x):
    layer = normcore.layer("batch_norm", input_shape=SHAPE, eps=1e-3)
    y = layer.forward(x)
    assert y.shape == layer.output_shape == SHAPE and y.dtype == np.float32
    assert set(layer.parameters) == set(layer.gradients) == {"gamma", "beta"}
    assert set(layer.state) == {"running_mean", "running_var"}
    np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    dx = layer.backward(np.ones(SHAPE, np.float32))
    assert dx.shape == SHAPE
    np.testing.assert_allclose(layer.gradients["beta"], 4 * 25, rtol=1e-6)
    layer.parameters["gamma"][...] = 2.0  # writing into the arrays takes effect at the next call
    np.testing.assert_allclose(layer.forward(x).std(axis=(0, 2, 3)), 2, rtol=1e-2)


def test_backward_may_run_again(x):
    layer = normcore.layer("batch_norm", input_shape=SHAPE)
    layer.forward(x)
    first = layer.backward(x).copy()
    gradient = layer.gradients["gamma"].copy()
    assert np.array_equal(layer.backward(x), first)
    assert np.array_equal(layer.gradients["gamma"], gradient)  # overwritten, not added up


@pytest.mark.parametrize("op", ["batch_norm", "tanh", "max_pool"])
def test_channels_last_gives_the_same_logical_arrays(x, op):
    parameters = {"kernel_size": 2} if op == "max_pool" else {}
    first = normcore.layer(op, input_shape=SHAPE, **parameters)
    last = normcore.layer(op, input_shape=SHAPE, memory_format="channels_last", **parameters)
    y = last.forward(x)
    np.testing.assert_allclose(y, first.forward(x), rtol=1e-5, atol=1e-6)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
    dx = last.backward(dy)
    np.testing.assert_allclose(dx, first.backward(dy), rtol=1e-4, atol=1e-5)
    assert dx.transpose(0, 2, 3, 1).flags.c_contiguous
    as_given = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(last.forward(as_given), y)


def test_other_memory_orders_and_dtypes_are_taken(x):
    layer = normcore.layer("tanh", input_shape=SHAPE)
    expected = np.tanh(x)
    wide = np.zeros((4, 6, 5, 10), np.float32)
    wide[..., ::2] = x
    for given in (x, np.asfortranarray(x), wide[..., ::2], x.astype(np.float64)):
        before = given.copy()
        np.testing.assert_allclose(layer.forward(given), expected, rtol=1e-6, atol=1e-7)
        np.testing.assert_array_equal(given, before)
    with pytest.raises(ParameterError, match="casts to float32"):
        layer.forward(x.astype(np.complex64))


def test_any_batch_size_and_nothing_is_allocated_for_a_smaller_one(x):
    layer = normcore.layer("batch_norm", input_shape=SHAPE)
    peer = normcore.layer("batch_norm", input_shape=(2, *SHAPE[1:]))
    memory = dict(layer._memory)
    np.testing.assert_array_equal(layer.forward(x[:2]), peer.forward(x[:2]))
    assert all(layer._memory[key] is value for key, value in memory.items())
    larger = np.concatenate([x, x])
    assert layer.forward(larger).shape == (8, *SHAPE[1:])
    assert layer.forward(x[:2]).shape == (2, *SHAPE[1:])
    assert layer.backward(x[:2]).shape == (2, *SHAPE[1:])


@pytest.mark.peers
def test_torch_tensors_are_read_without_a_copy(x):
    torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
    layer = normcore.layer("relu", input_shape=SHAPE)
    np.testing.assert_array_equal(layer.forward(torch.from_numpy(x)), np.maximum(x, 0))
    assert np.shares_memory(layer._t.x, x)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: normcore.layer("batch_nrom", input_shape=SHAPE), PluginError, "did you mean 'batch_norm'"),
        (
            lambda: normcore.layer("batch_norm", input_shape=SHAPE, esp=1),
            ParameterError,
            "did you mean 'eps'",
        ),
        (lambda: normcore.layer("batch_norm", input_shape=(4,)), ShapeError, "batch_norm"),
        (
            lambda: normcore.layer("relu", input_shape=SHAPE, dtype="float16"),
            ParameterError,
            "float32 or float64 on the CPU",
        ),
        (
            lambda: normcore.layer("relu", input_shape=SHAPE, memory_format="nhwc"),
            ParameterError,
            "channels_last",
        ),
        (lambda: normcore.layer("add", input_shape=SHAPE), ShapeError, "expected 2 input shapes"),
        (lambda: normcore.layer("max_pool", input_shape=SHAPE), ParameterError, "kernel_size"),
    ],
)
def test_wrong_arguments(make, error, said):
    with pytest.raises(error, match=said):
        make()


def test_wrong_arrays(x):
    layer = normcore.layer("batch_norm", input_shape=SHAPE)
    with pytest.raises(ShapeError, match=r"\(N, 6, 5, 5\)"):
        layer.forward(x[:, :5])
    with pytest.raises(ShapeError, match="after a forward"):
        layer.backward(x)
    layer.forward(x)
    with pytest.raises(ShapeError, match="the output's shape"):
        layer.backward(x[:2])


def test_a_device_that_is_not_there():
    from normcore.devices import cuda
    from normcore.errors import DeviceError

    if cuda.missing() is None:
        pytest.skip("CUDA works here")
    with pytest.raises(DeviceError, match="cuda"):
        normcore.layer("relu", input_shape=SHAPE, device="cuda")
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        normcore.layer("relu", input_shape=SHAPE, device="gpu")
