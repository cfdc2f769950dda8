"""mixed_pool and spatial_pyramid_pool: worked examples and the order of outputs. Conformance and the peer tests
cover the rest."""

import numpy as np
import pytest

import normcore

FORMATS = ("channels_first", "channels_last")
X = np.array([[1, 3, 2, 1], [4, 2, 0, 5], [6, 1, 1, 2], [0, 2, 3, 8]], np.float32).reshape(1, 1, 4, 4)
DY = np.array([1, 2, 3, 4], np.float32).reshape(1, 1, 2, 2)


@pytest.mark.parametrize("memory_format", FORMATS)
def test_mixed_pool_of_the_worked_example(memory_format):
    x, dy = np.repeat(X, 2, axis=1), np.repeat(DY, 2, axis=1)
    pool = normcore.layer("mixed_pool", input_shape=x.shape, memory_format=memory_format, kernel_size=2)
    assert pool.parameters["mix"].tolist() == [0.5]
    pool.parameters["mix"][0] = 0.75
    means = np.array([2.5, 2, 2.25, 3.5])
    largest = np.array([4, 5, 6, 8])
    np.testing.assert_allclose(pool.forward(x)[0, 1].ravel(), 0.75 * largest + 0.25 * means, rtol=1e-6)
    dx = pool.backward(dy)
    quarter = np.kron(DY[0, 0], np.full((2, 2), 1 / 16))
    quarter[[1, 1, 2, 3], [0, 3, 0, 3]] += 0.75 * DY.ravel()
    np.testing.assert_allclose(dx[0, 0], quarter, rtol=1e-6)
    assert dx.sum() == pytest.approx(dy.sum())  # whatever the mixture, a window passes on what it got
    assert pool.gradients["mix"][0] == pytest.approx(2 * DY.ravel() @ (largest - means))


def test_one_mix_for_all_makes_max_and_average():
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    pool = normcore.layer("mixed_pool", input_shape=x.shape, kernel_size=3, stride=2)
    pool.parameters["mix"][0] = 1
    largest = normcore.layer("max_pool", input_shape=x.shape, kernel_size=3, stride=2)
    assert np.array_equal(pool.forward(x), largest.forward(x))
    dy = np.ones((2, 3, 3, 3), np.float32)
    assert np.array_equal(pool.backward(dy), largest.backward(dy))


@pytest.mark.parametrize("memory_format", FORMATS)
@pytest.mark.parametrize("mode", ["max", "avg"])
def test_a_pyramid_lists_level_after_level_and_channel_by_channel(memory_format, mode):
    x = np.concatenate([X, X + 100], axis=1)
    pool = normcore.layer("spp", input_shape=x.shape, memory_format=memory_format, levels=(1, 2), mode=mode)
    first, second = ([8], [4, 5, 6, 8]) if mode == "max" else ([41 / 16], [2.5, 2, 2.25, 3.5])
    expected = [*first, first[0] + 100, *second, *(v + 100 for v in second)]
    np.testing.assert_allclose(pool.forward(x)[0], expected, rtol=1e-6)
    dy = np.arange(1, 11, dtype=np.float32).reshape(1, 10)
    dx = pool.backward(dy)
    assert dx[0, 0].sum() == pytest.approx(1 + 3 + 4 + 5 + 6)
    assert dx[0, 1].sum() == pytest.approx(2 + 7 + 8 + 9 + 10)
    if mode == "max":
        assert dx[0, 0, 3, 3] == 1 + 6  # the maximum of both levels


def test_maps_of_any_size_give_vectors_of_one_length():
    for shape in ((2, 3, 13, 9), (2, 3, 5, 17), (2, 3, 2, 2)):
        assert normcore.layer("spp", input_shape=shape).output_shape == (2, 3 * 21)


def test_large_bins_keep_their_accuracy():
    x = np.full((1, 17, 300, 300), 0.1, np.float32)
    for memory_format in FORMATS:
        pool = normcore.layer(
            "spp", input_shape=x.shape, memory_format=memory_format, levels=(1,), mode="avg"
        )
        np.testing.assert_allclose(pool.forward(x), np.float64(np.float32(0.1)), rtol=1e-5)
