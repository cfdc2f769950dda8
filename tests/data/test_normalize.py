"""Normalizations against NumPy on the whole set at once, and the hard cases of statistics."""

import numpy as np
import pytest

from normcore.data import samples as samples_module
from normcore.data.normalize import (
    NORMALIZERS,
    Minmax,
    Standardize,
    StandardizePixels,
    SubtractMean,
    Zca,
    moments,
)
from normcore.data.samples import ArraySamples
from normcore.data.transforms import Transforms
from normcore.errors import DataError, ParameterError

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(0, 200, (50, 2, 4, 5), dtype=np.uint8)
VALUES = RNG.normal(3.0, 2.0, (50, 2, 4, 5))


def normalized(normalizer, x: np.ndarray, dtype: str = "float64") -> np.ndarray:
    return Transforms(normalizer).fit(ArraySamples(x)).apply(x, dtype)


@pytest.mark.parametrize("x", [PIXELS, VALUES], ids=["uint8", "float64"])
def test_standardize(x):
    """Mean 0, deviation 1 per channel or per pixel, and the formula itself."""
    values = x / 255 if x.dtype == np.uint8 else x
    expected = (values - values.mean((0, 2, 3), keepdims=True)) / values.std((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(normalized(Standardize(), x), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(normalized(Standardize(), x, "float32"), expected, rtol=1e-5, atol=1e-6)
    expected = (values - values.mean(0)) / values.std(0)
    np.testing.assert_allclose(normalized(StandardizePixels(), x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("x", [PIXELS, VALUES], ids=["uint8", "float64"])
def test_mean_and_range(x):
    """subtract_mean leaves the spread, minmax meets 0 and 1 in each channel."""
    values = x / 255 if x.dtype == np.uint8 else x
    np.testing.assert_allclose(normalized(SubtractMean(), x), values - values.mean(0), rtol=1e-12, atol=1e-12)
    y = normalized(Minmax(), x)
    np.testing.assert_allclose(y.min((0, 2, 3)), 0, atol=1e-12)
    np.testing.assert_allclose(y.max((0, 2, 3)), 1)


def test_nothing_but_the_unit():
    """none: uint8 / 255 exactly, floats untouched."""
    np.testing.assert_array_equal(Transforms().apply(PIXELS), PIXELS.astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(Transforms().apply(VALUES, "float64"), VALUES)


def test_zca_whitens():
    """The covariance becomes S / (S + eps): the identity where the data has variance, nothing rotated."""
    x = RNG.normal(size=(400, 1, 3, 3)) @ RNG.normal(size=(3, 3)) + 5
    y = normalized(Zca(eps=1e-6), x).reshape(400, -1)
    np.testing.assert_allclose(np.cov(y.T, bias=True), np.eye(9), atol=1e-3)
    matrix = Transforms(Zca(eps=1e-6)).fit(ArraySamples(x)).arrays["normalize.matrix"]
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)
    pixels = normalized(Zca(), PIXELS, "float32")
    np.testing.assert_allclose(pixels, normalized(Zca(), PIXELS / 255, "float32"), atol=2e-5)
    with pytest.raises(DataError, match=r"zca of .* use standardize"):
        Transforms(Zca()).fit(ArraySamples(np.zeros((2, 3, 64, 64), np.uint8)))
    with pytest.raises(ParameterError):
        Zca(eps=0)


@pytest.mark.parametrize("name", sorted(NORMALIZERS))
def test_constant_channel(name):
    """A channel without spread becomes finite numbers, 0 where something is subtracted."""
    x = np.full((20, 2, 3, 3), 77, np.uint8)
    x[:, 1] = RNG.integers(0, 256, (20, 3, 3))
    y = normalized(NORMALIZERS[name](), x, "float32")
    assert np.isfinite(y).all()
    if name not in ("none", "zca"):
        np.testing.assert_allclose(y[:, 0], 0, atol=1e-6)


def test_large_mean_and_small_spread():
    """float64 data with mean 1e6 and spread 1e-3, and float32 output of it: no digits lost to the mean."""
    x = 1e6 + 1e-3 * RNG.normal(size=(3000, 1, 5, 5))
    shifted = x - 1e6  # exact
    expected = (shifted - shifted.mean()) / shifted.std()
    np.testing.assert_allclose(normalized(Standardize(), x), expected, atol=2e-6)
    np.testing.assert_allclose(normalized(Standardize(), x, "float32"), expected, atol=2e-6)


def test_moments_by_chunks(monkeypatch):
    """Chunks of any size give the statistics of the whole, in the chosen samples alone."""
    monkeypatch.setattr(samples_module.chunks, "__defaults__", (100,))  # two samples a chunk
    indices = np.arange(3, 48)
    for per_pixel, axes in ((False, (0, 2, 3)), (True, (0,))):
        mean, variance = moments(ArraySamples(VALUES), indices, per_pixel)
        np.testing.assert_allclose(mean, VALUES[indices].mean(axes, keepdims=True)[0], rtol=1e-13)
        np.testing.assert_allclose(variance, VALUES[indices].var(axes, keepdims=True)[0], rtol=1e-12)


def test_features_and_sequences():
    """Tables are standardized feature by feature, sequences along axis 1."""
    table = RNG.normal(size=(60, 4)) * [1, 10, 100, 0] + [0, 5, -5, 3]
    y = normalized(Standardize(), table)
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(y.std(0), [1, 1, 1, 0], atol=1e-12)
    sequence = RNG.normal(size=(30, 7, 3))
    np.testing.assert_allclose(normalized(Standardize(), sequence).std((0, 2)), 1)


@pytest.mark.parametrize("name", sorted(NORMALIZERS))
def test_stored_arrays_give_the_same_bits(name):
    """What a run stores is enough: restored transforms equal the fitted ones bit for bit, on new samples
    too."""
    fitted = Transforms(NORMALIZERS[name]()).fit(ArraySamples(PIXELS), np.arange(40))
    restored = Transforms(NORMALIZERS[name]()).restore({k: a.copy() for k, a in fitted.arrays.items()})
    for x in (PIXELS[40:], PIXELS / 255):
        np.testing.assert_array_equal(fitted.apply(x), restored.apply(x))


def test_samples_that_do_not_fit_the_run():
    """Another size than the statistics were measured on."""
    fitted = Transforms(SubtractMean()).fit(ArraySamples(PIXELS))
    with pytest.raises(DataError, match=r"measured on samples of shape \(2, 4, 5\), these have \(2, 5, 5\)"):
        fitted.apply(np.zeros((1, 2, 5, 5), np.uint8))


@pytest.mark.parametrize("name", sorted(set(NORMALIZERS) - {"none"}))
def test_not_finite(name):
    """A NaN in the training part is said at once."""
    x = VALUES.copy()
    x[7, 1, 2, 2] = np.nan
    with pytest.raises(DataError, match="not finite"):
        Transforms(NORMALIZERS[name]()).fit(ArraySamples(x))
