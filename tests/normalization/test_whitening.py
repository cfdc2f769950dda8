"""decorrelated_batch_norm: it whitens, and its gradient holds where eigenvalues coincide."""

import numba
import numpy as np
import pytest

import normcore
from normcore.errors import ShapeError

rng = np.random.default_rng(0)


def layer(shape, dtype="float64", **parameters):
    return normcore.layer("decorrelated_batch_norm", input_shape=shape, dtype=dtype, **parameters)


def covariance(y):
    rows = np.moveaxis(np.asarray(y, np.float64), 1, 0).reshape(y.shape[1], -1)
    return np.cov(rows, bias=True)


@pytest.mark.parametrize("memory_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_eigenvalues_of_the_output(memory_format, offset):
    mix = rng.standard_normal((6, 6))
    x = np.einsum("ij,njhw->nihw", mix, rng.standard_normal((8, 6, 7, 9))) + offset
    x = x.astype(np.float32)
    eps = 0.1
    y = layer(x.shape, "float32", memory_format=memory_format, eps=eps, affine=False).forward(
        x, training=True
    )
    values = np.linalg.eigvalsh(covariance(x))
    assert np.allclose(np.sort(np.linalg.eigvalsh(covariance(y))), values / (values + eps), atol=1e-4)


def test_gradient_where_eigenvalues_coincide():
    """The covariance is a multiple of the identity: every pair of eigenvalues coincides."""
    x = np.concatenate([np.eye(4), -np.eye(4)])  # covariance 1/4 I
    dy = rng.standard_normal(x.shape)
    op = layer(x.shape, eps=1e-3, affine=False)
    op.forward(x, training=True)
    dx = op.backward(dy).copy()
    numeric = np.empty_like(x)
    for at in np.ndindex(*x.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = x.copy()
            moved[at] += step
            ends.append((op.forward(moved, training=True) * dy).sum())
        numeric[at] = (ends[0] - ends[1]) / 2e-5
    assert np.isfinite(dx).all()
    assert np.allclose(dx, numeric, atol=1e-7 * np.abs(numeric).max() + 1e-8)


def test_groups_are_whitened_apart():
    x = rng.standard_normal((5, 6, 7))
    both = layer(x.shape, num_groups=2, affine=False).forward(x, training=True).copy()
    half = layer((5, 3, 7), affine=False).forward(np.ascontiguousarray(x[:, 3:]), training=True)
    assert np.allclose(both[:, 3:], half, rtol=1e-12)


def test_running_statistics_store_the_unbiased_covariance():
    x = rng.standard_normal((5, 3, 7))
    op = layer(x.shape, momentum=1.0, affine=False)
    y = op.forward(x, training=True).copy()
    assert np.allclose(op.state["running_covariance"][0], covariance(x) * 35 / 34)
    op.state["running_covariance"][...] *= 34 / 35
    assert np.allclose(op.forward(x), y, atol=1e-9)


def test_nan_stays_in_its_group():
    x = rng.standard_normal((4, 4, 5))
    x[1, 0, 2] = np.nan
    y = layer(x.shape, num_groups=2).forward(x, training=True)
    assert np.isnan(y[:, :2]).all() and np.isfinite(y[:, 2:]).all()


def test_one_vector_is_an_error():
    with pytest.raises(ShapeError, match="more than one vector"):
        layer((1, 3)).forward(np.ones((1, 3)), training=True)


def test_exact_population_statistics_average_the_batches():
    """Algorithm 2: after training, one more pass averages batch means and unbiased covariances."""
    batches = rng.standard_normal((3, 5, 3, 7))
    op = layer(batches[0].shape, affine=False)
    for k, x in enumerate(batches, start=1):
        op._binding.t.calibrating = k
        op.forward(x, training=True)
    assert np.allclose(op.state["running_mean"], batches.mean((0, 1, 3)), rtol=1e-12)
    unbiased = np.mean([covariance(x) * 35 / 34 for x in batches], axis=0)
    assert np.allclose(op.state["running_covariance"][0], unbiased, rtol=1e-12)


def test_the_same_bits_for_any_number_of_threads():
    x, dy = rng.standard_normal((2, 6, 5, 9, 70)).astype(np.float32)
    found = []
    before = numba.get_num_threads()
    try:
        for threads in sorted({1, min(2, before), before}):
            numba.set_num_threads(threads)
            op = layer(x.shape, "float32")
            found.append((op.forward(x, training=True).tobytes(), op.backward(dy).tobytes()))
    finally:
        numba.set_num_threads(before)
    assert len(set(found)) == 1
