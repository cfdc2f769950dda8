"""lp_norm, filter_response_norm and dynamic_tanh: what conformance does not look at."""

import math

import numpy as np
import pytest

import normcore

rng = np.random.default_rng(0)


@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_lp_norm_of_huge_and_tiny_vectors(size):
    x = rng.standard_normal((3, 5, 4)).astype(np.float32)
    op = normcore.layer("lp_norm", input_shape=x.shape, eps=0.0)
    wanted = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    assert np.allclose(op.forward((x * np.float64(size)).astype(np.float32)), wanted, rtol=1e-5)


def test_lp_norm_shares_the_gradient_of_the_largest_among_ties():
    x = np.array([[2.0, -2.0, 1.0]])
    op = normcore.layer("lp_norm", input_shape=x.shape, dtype="float64", p=math.inf)
    op.forward(x, training=True)
    dx = op.backward(np.array([[0.0, 0.0, 1.0]]))
    assert np.allclose(dx, [[-1 / 8, 1 / 8, 1 / 2]])


def test_a_vector_of_zeros_has_a_gradient():
    for p in (1.0, 2.0, 0.5, math.inf):
        op = normcore.layer("lp_norm", input_shape=(2, 3), dtype="float64", p=p)
        assert np.all(op.forward(np.zeros((2, 3)), training=True) == 0)
        assert np.isfinite(op.backward(np.ones((2, 3)))).all()


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("size, eps", [(1e30, 1e-6), (1e-30, 0.0)])
def test_filter_response_norm_of_huge_and_tiny_maps(memory_format, size, eps):
    x = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    given = (x * np.float64(size)).astype(np.float32)
    op = normcore.layer(
        "filter_response_norm", input_shape=x.shape, memory_format=memory_format, eps=eps, tlu=False
    )
    wanted = x / np.sqrt((x.astype(np.float64) ** 2).mean((2, 3), keepdims=True))
    assert np.allclose(op.forward(given), wanted, rtol=1e-5)


def test_what_the_threshold_takes_goes_to_tau():
    x = rng.standard_normal((3, 2, 4, 4))
    op = normcore.layer("filter_response_norm", input_shape=x.shape, dtype="float64")
    op.parameters["tau"][:] = 0.3
    y = op.forward(x, training=True)
    dy = rng.standard_normal(x.shape)
    at_tau = (dy * (y == 0.3)).sum((0, 2, 3))
    op.backward(dy)
    assert np.allclose(op.gradients["tau"], at_tau)
    assert np.allclose(op.gradients["tau"] + op.gradients["beta"], dy.sum((0, 2, 3)))


def test_dynamic_tanh_learns_alpha_without_gamma():
    op = normcore.layer("dynamic_tanh", input_shape=(2, 3), affine=False)
    assert set(op.parameters) == {"alpha"} and op.parameters["alpha"][0] == np.float32(0.5)


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_dynamic_tanh_is_the_same_in_both_memory_formats(axis):
    x, dy = (rng.standard_normal((3, 4, 5, 2)) for _ in range(2))
    found = []
    for memory_format in ("channels_first", "channels_last"):
        op = normcore.layer(
            "dynamic_tanh", input_shape=x.shape, dtype="float64", memory_format=memory_format, axis=axis
        )
        gamma = op.parameters["gamma"]
        gamma[...] = np.arange(gamma.size).reshape(gamma.shape)
        found.append([op.forward(x, training=True).copy(), op.backward(dy).copy(), *op.gradients.values()])
    assert all(np.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(*found, strict=True))
