"""local_response_norm: the paper's worked example, the two alphas, Caffe's within-channel form, and the numerics."""

import numpy as np
import pytest

import normcore

rng = np.random.default_rng(0)
FORMATS = ("channels_first", "channels_last")


def layer(shape, **parameters):
    return normcore.layer("local_response_norm", input_shape=shape, **parameters)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_the_worked_example(memory_format):
    """Kernel 10 of 96 at one position with n = 5 is divided by the energy of kernels 8 to 12."""
    x = rng.standard_normal((2, 96, 3, 4)).astype(np.float32) * 100
    lrn = layer(
        x.shape, memory_format=memory_format, size=5, alpha=1e-4, beta=0.75, k=2.0, alpha_scaling="sum"
    )
    energy = (x[0, 8:13, 1, 2].astype(np.float64) ** 2).sum()
    assert lrn.forward(x)[0, 10, 1, 2] == pytest.approx(
        x[0, 10, 1, 2] / (2 + 1e-4 * energy) ** 0.75, rel=1e-6
    )


def test_mean_is_sum_with_alpha_over_size():
    x = rng.standard_normal((2, 9, 5)).astype(np.float32) * 10
    mean = layer(x.shape, alpha=0.5).forward(x)
    assert np.array_equal(mean, layer(x.shape, alpha=0.1, alpha_scaling="sum").forward(x))
    assert not np.allclose(mean, layer(x.shape, alpha=0.5, alpha_scaling="sum").forward(x), rtol=0.1)


def test_an_even_window_reaches_one_further_to_the_front():
    x = np.zeros((1, 8, 1))
    x[0, 3] = x[0, 5] = 1.0
    y = layer(x.shape, dtype="float64", size=4, alpha=4.0, beta=1.0).forward(x)
    # channel 5 sums 3 to 6, channel 3 sums 1 to 4
    assert np.allclose(y[0, [3, 5], 0], [1 / 2, 1 / 3])


def test_within_a_channel_as_caffe():
    """x / (1 + alpha / size^2 * the sum over a size x size square, zeros outside)^beta."""
    x = rng.standard_normal((2, 3, 6, 5))
    y = layer(x.shape, dtype="float64", size=3, alpha=2.0, region="within").forward(x)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    energy = sum(padded[:, :, i : i + 6, j : j + 5] ** 2 for i in range(3) for j in range(3))
    assert np.allclose(y, x / (1 + 2.0 / 9 * energy) ** 0.75, rtol=1e-12)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_huge_and_tiny_values(size):
    x = (rng.standard_normal((2, 7, 4, 3)) * size).astype(np.float32)
    dy = rng.standard_normal(x.shape).astype(np.float32)
    narrow, wide = layer(x.shape), layer(x.shape, dtype="float64")
    y, exact = narrow.forward(x, training=True), wide.forward(x.astype(np.float64), training=True)
    assert np.allclose(y, exact, rtol=1e-5, atol=0 if size < 1 else 1e-5 * np.abs(exact).max())
    assert np.allclose(narrow.backward(dy), wide.backward(dy.astype(np.float64)), rtol=1e-4, atol=1e-37)


@pytest.mark.peers
@pytest.mark.parametrize("memory_format", FORMATS)
def test_torch_agrees_on_random_shapes(memory_format):
    """Window sizes, powers and shapes at random: tiles, lines and vectors end anywhere. The kernels are the same."""
    torch = pytest.importorskip("torch")
    for _ in range(25):
        shape = tuple(int(n) for n in rng.integers(1, (4, 20, 12, 70)))
        size, alpha, k = int(rng.integers(1, 8)), float(rng.uniform(0, 3)), float(rng.uniform(0.5, 3))
        x, dy = rng.standard_normal((2, *shape)).astype(np.float32)
        lrn = layer(shape, memory_format=memory_format, size=size, alpha=alpha, k=k)
        theirs = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        ty = torch.nn.functional.local_response_norm(theirs, size, alpha, 0.75, k)
        ty.backward(torch.tensor(dy, dtype=torch.float64))
        assert np.allclose(lrn.forward(x, training=True), ty.detach().numpy(), rtol=2e-6, atol=1e-6)
        assert np.allclose(lrn.backward(dy), theirs.grad.numpy(), rtol=1e-5, atol=5e-6)
