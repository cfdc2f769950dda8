"""batch_norm: what the paper proves, the numerics, and PyTorch. Conformance covers the rest."""

import itertools

import numba
import numpy as np
import pytest
from normcore_normalization.channel_shapes import as_lines

import normcore
from normcore.errors import ShapeError
from normcore.kernels import variant
from normcore.op import Op

FORMATS = ("channels_first", "channels_last")
rng = np.random.default_rng(0)


def layer(shape, dtype="float32", memory_format="channels_first", **parameters):
    return normcore.layer(
        "batch_norm", input_shape=shape, dtype=dtype, memory_format=memory_format, **parameters
    )


def exact(x, eps=1e-5):
    x = np.asarray(x, np.float64)
    axes = (0, *range(2, x.ndim))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


# -- numerics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("dtype, spread", [("float32", 1.0), ("float64", 1e-3)])
def test_a_mean_of_a_million(memory_format, dtype, spread):
    x = (rng.standard_normal((8, 3, 9, 9)) * spread + 1e6).astype(dtype)
    eps = 1e-5 * spread**2
    y = layer(x.shape, dtype, memory_format, eps=eps).forward(x)
    assert np.abs(y - exact(x, eps)).max() < 1e-3


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("value", [0.0, 3.7, -1e6, 1e30])
def test_a_constant_channel_gives_beta_exactly(memory_format, value):
    x = np.full((8, 3, 5, 5), value, np.float32)
    bn = layer(x.shape, memory_format=memory_format)
    bn.parameters["beta"][:] = 0.3
    assert np.all(bn.forward(x) == np.float32(0.3))
    assert np.all(bn.backward(np.ones_like(x)) == 0)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_identical_rows_give_beta_exactly(memory_format):
    """Every feature is constant over the batch, though no two features are the same."""
    x = np.repeat(rng.standard_normal((1, 13)).astype(np.float32) * 100, 64, 0)
    bn = layer(x.shape, memory_format=memory_format)
    bn.parameters["beta"][:] = 0.3
    assert np.all(bn.forward(x) == np.float32(0.3))
    assert np.all(bn.backward(np.ones_like(x)) == 0)


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("size, eps", [(1e30, 1e-5), (1e-30, 0.0)])
def test_huge_and_tiny_values(memory_format, size, eps):
    x = (rng.standard_normal((8, 3, 5, 5)) * size).astype(np.float32)
    bn = layer(x.shape, memory_format=memory_format, eps=eps)
    wanted = exact(x, eps)
    assert np.abs(bn.forward(x) - wanted).max() < 1e-5
    if size > 1:  # at 1e-30 the true gradient is beyond float32
        dy = rng.standard_normal(x.shape).astype(np.float32)
        dx = bn.backward(dy) * np.float64(size)
        g, xhat = dy.astype(np.float64), wanted
        axes, scale = (0, 2, 3), size / np.sqrt(x.astype(np.float64).var((0, 2, 3), keepdims=True))
        true = scale * (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True))
        assert np.abs(dx - true).max() < 1e-5


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_first_value_far_off_is_noticed(memory_format):
    """The shift is taken from the first values: here they are far from all others."""
    x = rng.standard_normal((64, 2, 8, 8)).astype(np.float32)
    x[0] += 1000
    x[0, :, 1:] -= 1000
    assert np.abs(layer(x.shape, memory_format=memory_format).forward(x) - exact(x)).max() < 1e-4


@pytest.mark.parametrize("memory_format", FORMATS)
def test_nan_stays_in_its_channel(memory_format):
    x = rng.standard_normal((6, 4, 5, 3)).astype(np.float32)
    clean = layer(x.shape, memory_format=memory_format).forward(x).copy()
    x[2, 1, 3, 2] = np.nan
    bn = layer(x.shape, memory_format=memory_format)
    y = bn.forward(x)
    assert np.isnan(y[:, 1]).all() and np.isnan(bn.state["running_var"][1])
    assert np.array_equal(np.delete(y, 1, 1), np.delete(clean, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", FORMATS)
def test_ten_million_values_a_statistic(memory_format):
    x = rng.standard_normal((10, 1, 1000, 1000), np.float32) + np.float32(3)
    bn = layer(x.shape, memory_format=memory_format, momentum=1.0)
    bn.forward(x)
    assert abs(bn.state["running_mean"][0] / x.mean(dtype=np.float64) - 1) < 1e-6
    assert abs(bn.state["running_var"][0] / x.var(dtype=np.float64, ddof=1) - 1) < 1e-5


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_same_bits_for_any_number_of_threads(memory_format):
    x = rng.standard_normal((9, 13, 31, 17)).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    found = []
    before = numba.get_num_threads()
    try:
        for threads in sorted({1, min(2, before), before}):
            numba.set_num_threads(threads)
            bn = layer(x.shape, memory_format=memory_format)
            y, dx = bn.forward(x).tobytes(), bn.backward(dy).tobytes()
            found.append((y, dx, bn.gradients["gamma"].tobytes(), bn.state["running_var"].tobytes()))
    finally:
        numba.set_num_threads(before)
    assert len(set(found)) == 1


# -- the paper ---------------------------------------------------------------------------------------------


def test_weights_times_a_number_change_nothing():
    """BN((a W) u) = BN(W u): the same gradient to u, 1/a of it to a W."""
    u, w, dy = rng.standard_normal((32, 5)), rng.standard_normal((5, 4)), rng.standard_normal((32, 4))
    found = []
    for a in (1.0, 8.0):
        bn = layer((32, 4), "float64", eps=0.0)
        y = bn.forward(u @ (a * w)).copy()
        dz = bn.backward(dy)
        found.append((y, dz @ (a * w).T, u.T @ dz))
    (y1, du1, dw1), (y8, du8, dw8) = found
    for one, other in ((y1, y8), (du1, du8), (dw1, 8 * dw8)):
        assert np.abs(one - other).max() < 1e-9


def test_the_right_parameters_give_the_input_back():
    x = rng.standard_normal((16, 3, 6)) * 3 + 2
    bn = layer(x.shape, "float64")
    bn.parameters["gamma"][:] = np.sqrt(x.var((0, 2)) + bn.op.eps)
    bn.parameters["beta"][:] = x.mean((0, 2))
    assert np.abs(bn.forward(x) - x).max() < 1e-12


def test_running_statistics_move_as_algorithm_2_says():
    x = rng.standard_normal((8, 3, 5))
    bn = layer(x.shape, "float64", momentum=0.25)
    bn.forward(x)
    assert np.allclose(bn.state["running_mean"], 0.25 * x.mean((0, 2)), rtol=1e-12)
    assert np.allclose(bn.state["running_var"], 0.75 + 0.25 * x.var((0, 2), ddof=1), rtol=1e-12)
    y = bn.forward(x, training=False)
    mean, var = bn.state["running_mean"][:, None], bn.state["running_var"][:, None]
    assert np.allclose(y, (x - mean) / np.sqrt(var + 1e-5), rtol=1e-12)


def test_without_momentum_all_batches_weigh_the_same():
    bn = layer((4, 3, 5), "float64", momentum=None)
    batches = rng.standard_normal((5, 4, 3, 5))
    for x in batches:
        bn.forward(x)
    bn.forward(batches[0], training=False)
    assert bn.state["num_batches"][0] == 5
    assert np.allclose(bn.state["running_mean"], batches.mean((0, 1, 3)), rtol=1e-12)
    assert np.allclose(bn.state["running_var"], batches.var((1, 3), ddof=1).mean(0), rtol=1e-12)


# -- errors and shapes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1), (0, 4, 3, 3)])
def test_one_value_or_none_per_channel_is_an_error_in_training_only(shape):
    bn = layer(shape)
    x = np.ones(shape, np.float32)
    with pytest.raises(ShapeError, match="more than one value per channel"):
        bn.forward(x)
    assert bn.forward(x, training=False).shape == shape


def test_a_smaller_batch_uses_views_of_the_same_buffers():
    x = rng.standard_normal((8, 3, 5, 5)).astype(np.float32)
    for memory_format in FORMATS:
        bn = layer(x.shape, memory_format=memory_format)
        bn.forward(x)
        assert np.abs(bn.forward(x[:3]) - exact(x[:3])).max() < 1e-5
        assert bn.backward(x[:3]).shape == (3, 3, 5, 5)


# -- a fused elementwise chain -----------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", FORMATS)
def test_a_fused_relu_is_relu_of_the_output(memory_format):
    shape = (6, 5, 7, 3)
    x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
    plain, fused = layer(shape, memory_format=memory_format), layer(shape, memory_format=memory_format)
    relu: Op = normcore.layer("relu", input_shape=shape).op
    t = fused._binding.t
    t.variant = variant("float32", t.variant.parallel, relu.chain)
    for bn in (plain, fused):
        bn.parameters["gamma"][:] = [1.0, -2.0, 0.5, 1.5, 3.0]
    y = plain.forward(x).copy()
    dx = plain.backward(np.where(y > 0, dy, 0)).copy()
    assert np.array_equal(fused.forward(x), np.maximum(y, 0))
    # Two kernels, in which the compiler may add the sums over a channel in different orders.
    np.testing.assert_allclose(fused.backward(dy), dx, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(fused.gradients["gamma"], plain.gradients["gamma"], rtol=1e-6, atol=1e-6)


# -- PyTorch -----------------------------------------------------------------------------------------------


@pytest.mark.peers
@pytest.mark.parametrize("memory_format", FORMATS)
def test_torch_agrees(memory_format):
    torch = pytest.importorskip("torch")
    shapes = [(7, 5), (133, 300), (4, 3, 9), (5, 33, 6, 4), (3, 4, 2, 3, 5), (130, 1, 3, 3)]
    for shape, momentum, affine in itertools.product(shapes, (0.1, None), (True, False)):
        x, dy = rng.standard_normal((2, *shape)) * 2 + 0.5
        bn = layer(shape, "float64", memory_format, momentum=momentum, affine=affine)
        theirs = torch.nn.modules.batchnorm._BatchNorm(
            shape[1], momentum=momentum, affine=affine, dtype=torch.float64
        )
        theirs._check_input_dim = lambda x: None
        tx = torch.from_numpy(x).requires_grad_()
        for _ in range(2):
            y, ty = bn.forward(x), theirs(tx)
        ty.backward(torch.from_numpy(dy))
        assert np.allclose(y, ty.detach().numpy(), atol=1e-12)
        assert np.allclose(bn.backward(dy), tx.grad.numpy(), atol=1e-12)
        for name, value in (("running_mean", theirs.running_mean), ("running_var", theirs.running_var)):
            assert np.allclose(bn.state[name], value.numpy(), rtol=1e-12)
        if affine:
            assert np.allclose(bn.gradients["gamma"], theirs.weight.grad.numpy(), atol=1e-11)
            assert np.allclose(bn.gradients["beta"], theirs.bias.grad.numpy(), atol=1e-11)
        theirs.eval()
        assert np.allclose(bn.forward(x, training=False), theirs(tx).detach().numpy(), atol=1e-12)


def test_lines_hold_whole_rows():
    """Channels last: a line repeats the channels, the tail is shorter, and together they are the array."""
    x = np.arange(70, dtype=np.float32).reshape(10, 7)
    whole, tail = as_lines(x, np.empty((6, 21), np.float32))
    assert whole.shape == (3, 21) and tail.tolist() == list(range(63, 70))
