"""Each augmentation does what its sentence says, to every dtype, and its draws cover what they may."""

import math
import time

import numpy as np
import pytest

from normcore.data.augment import AUGMENTATIONS
from normcore.data.colour import Cutout, Mixup, PcaColour, _beta
from normcore.data.geometry import CenterCrop, HorizontalFlip, RandomCrop, RandomResizedCrop, Rotation
from normcore.data.samples import ArraySamples
from normcore.errors import DataError, ParameterError

RNG = np.random.default_rng(4)
IMAGES = RNG.integers(1, 256, (40, 3, 9, 11), dtype=np.uint8)  # no black pixel


def moved(op, x: np.ndarray, draws: np.ndarray) -> np.ndarray:
    out = np.full((len(x), *op.output_shape(x.shape[1:])), 99, x.dtype)
    before = x.copy()
    op.move(x, out, draws)
    np.testing.assert_array_equal(x, before)
    return out


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize(("padding", "size"), [(2, None), (0, 6), (3, (4, 13)), (9, None)])
def test_random_crop(dtype, padding, size):
    """Each result is a window of the padded image, at the place that the draws say."""
    x = IMAGES.astype(dtype)
    draws = RNG.random((40, 2))
    op = RandomCrop(padding=padding, size=size)
    out = moved(op, x, draws)
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    h, w = out.shape[2:]
    for i in range(40):
        top, left = (int(u * (s - n + 1)) for u, s, n in zip(draws[i], padded.shape[2:], (h, w), strict=True))
        np.testing.assert_array_equal(out[i], padded[i, :, top : top + h, left : left + w])


def test_random_crop_reaches_every_place():
    """All offsets from none to twice the padding, the ends included, equally often."""
    x = np.zeros((4000, 1, 3, 3), np.uint8)
    x[:, 0, 1, 1] = 1
    out = moved(RandomCrop(padding=1), x, RNG.random((4000, 2)))
    places = out.sum(0)[0]
    assert (np.abs(places - 4000 / 9) < 5 * math.sqrt(4000 / 9)).all()
    moved(RandomCrop(padding=1), x[:1], np.array([[1 - 2.0**-32] * 2]))  # the largest draw stays inside


def test_random_crop_is_fast():
    """A batch of 64 digits in less than 0.3 ms (the best of many: other processes share the machine)."""
    x = np.zeros((64, 1, 28, 28), np.uint8)
    op, out, draws = RandomCrop(padding=2), np.empty_like(x), RNG.random((64, 2))
    best = math.inf
    for _ in range(200):
        start = time.perf_counter()
        op.move(x, out, draws)
        best = min(best, time.perf_counter() - start)
    assert best < 0.3e-3


def test_center_crop():
    """The middle; a border where the crop is larger."""
    out = moved(CenterCrop(size=(5, 7)), IMAGES, np.empty((40, 0)))
    np.testing.assert_array_equal(out, IMAGES[:, :, 2:7, 2:9])
    out = moved(CenterCrop(size=(11, 5)), IMAGES, np.empty((40, 0)))
    np.testing.assert_array_equal(out[:, :, 1:10], IMAGES[:, :, :, 3:8])
    assert (out[:, :, [0, 10]] == 0).all()


def test_horizontal_flip():
    """Exactly the samples whose draw is below p."""
    draws = RNG.random((40, 1))
    out = moved(HorizontalFlip(p=0.3), IMAGES, draws)
    for image, given, flip in zip(out, IMAGES, draws[:, 0] < 0.3, strict=True):
        np.testing.assert_array_equal(image, given[:, :, ::-1] if flip else given)
    assert (draws < 0.3).any()
    assert (moved(HorizontalFlip(p=0), IMAGES, draws) == IMAGES).all()


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_rotation(dtype):
    """No turn changes nothing; a quarter turn is numpy's; the middle stays; corners become black."""
    square = IMAGES[:, :, :9, :9].astype(dtype)
    op = Rotation(degrees=90)
    np.testing.assert_allclose(moved(op, square, np.full((40, 1), 0.5)), square, atol=1e-3)
    quarter = moved(op, square, np.full((40, 1), 1 - 2.0**-32))
    np.testing.assert_allclose(quarter, np.rot90(square, -1, axes=(2, 3)), atol=1)
    half = moved(Rotation(degrees=45), square, np.full((40, 1), 1 - 2.0**-32))
    assert (half[:, :, 0, 0] == 0).all()
    np.testing.assert_allclose(half[:, :, 4, 4], square[:, :, 4, 4], atol=1)


@pytest.mark.parametrize("channels", [1, 3])
def test_rotation_of_bytes_and_floats_agree(channels):
    """Colour images go through Pillow as RGB, others channel by channel: the same picture."""
    x, draws = IMAGES[:, :channels], RNG.random((40, 1))
    floats = moved(Rotation(degrees=30), x.astype(np.float32), draws)
    assert np.abs(moved(Rotation(degrees=30), x, draws) - floats).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_random_resized_crop(dtype):
    """The whole image at scale 1; a constant stays constant; a ramp stays a ramp inside the image's range."""
    x = IMAGES.astype(dtype)
    whole = RandomResizedCrop(scale=(1, 1), ratio=(11 / 9, 11 / 9))
    np.testing.assert_allclose(moved(whole, x, RNG.random((40, 4))), x, atol=1)
    ramp = np.broadcast_to(np.arange(0, 220, 20, dtype=dtype), (40, 3, 9, 11)).copy()
    out = moved(RandomResizedCrop(size=(6, 8)), ramp, RNG.random((40, 4))).astype(float)
    assert out.shape == (40, 3, 6, 8)
    assert (np.diff(out, axis=3) >= -1).all()
    assert out.min() >= 0
    assert out.max() <= 200
    assert len(np.unique(out[:, 0, 0, 0])) > 10  # different places


def test_cutout():
    """One square of zeros in all channels, cut at the border, anywhere."""
    x = np.ones((500, 2, 10, 12), np.float32)
    Cutout(size=4).colour(x, RNG.random((500, 2)), {}, np.ones(2))
    gone = (x == 0).sum((2, 3))
    assert (gone[:, 0] == gone[:, 1]).all()
    assert gone.max() == 16
    assert gone.min() >= 4
    assert (x == 0).any(0).all()


def test_pca_colour():
    """Shifts lie along the principal axes with the deviations that the paper gives, whatever the scale."""
    base = RNG.normal(size=(200, 1, 4, 4)) * np.array([1.0, 0.5, 0.0])[:, None, None]
    turn = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    x = np.einsum("ij,njhw->nihw", turn, base)
    op = PcaColour(std=0.1)
    arrays = op.measure(ArraySamples(x), np.arange(200))
    colours = x.transpose(0, 2, 3, 1).reshape(-1, 3)
    values = np.maximum(np.linalg.eigvalsh(np.cov(colours.T, bias=True)), 0)
    np.testing.assert_allclose(np.sort(np.linalg.norm(arrays["axes"], axis=0)), values, atol=1e-12)
    out = np.zeros((4000, 3, 2, 2))
    scale = np.array([0.5, 1.0, 2.0])
    op.colour(out, RNG.random((4000, 8)), arrays, scale)
    assert (out == out[:, :, :1, :1]).all()  # one shift an image
    shifts = out[:, :, 0, 0] * scale
    expected = 0.01 * arrays["axes"] @ arrays["axes"].T
    np.testing.assert_allclose(np.cov(shifts.T), expected, atol=0.1 * expected.max())
    with pytest.raises(DataError, match="pca_colour needs 2 to 8 channels; the images have 1"):
        op.output_shape((1, 28, 28))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mixup(dtype):
    """x and targets are mixed with the same weights, and targets stay shares."""
    x = RNG.normal(size=(7, 2, 3, 3)).astype(dtype)
    targets = np.eye(7, dtype=dtype)
    given, draws = x.copy(), RNG.random((7, 2))
    Mixup(alpha=0.4).mix(x, targets, draws, (np.empty_like(x), np.empty_like(targets)))
    lam = _beta(0.4, draws)[:, None, None, None]
    np.testing.assert_allclose(x, lam * given + (1 - lam) * given[::-1], atol=1e-6)
    lam = lam[:, 0, 0]
    np.testing.assert_allclose(targets, lam * np.eye(7) + (1 - lam) * np.eye(7)[::-1], atol=1e-6)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 3.0, 50.0])
def test_mixup_weights_are_beta(alpha):
    """The mean powers of 10,000 numbers are those of Beta(alpha, alpha), within 5 deviations."""
    lam = _beta(alpha, np.random.default_rng(5).random((10_000, 2)))
    # moments of |lam - 1/2|^2 and ^4 by the recursion E[lam^(k+1)] = E[lam^k] (alpha + k) / (2 alpha + k)
    raw = [1.0]
    for k in range(8):
        raw.append(raw[-1] * (alpha + k) / (2 * alpha + k))
    central = [sum(math.comb(n, k) * raw[k] * (-0.5) ** (n - k) for k in range(n + 1)) for n in range(9)]
    assert abs((lam - 0.5).mean()) < 5 * math.sqrt(central[2] / len(lam))
    for n in (2, 4):
        deviation = math.sqrt(max(central[2 * n] - central[n] ** 2, 0) / len(lam))
        assert abs(((lam - 0.5) ** n).mean() - central[n]) < 5 * deviation
    if alpha <= 1:  # near 0 the distribution function is close to x^alpha / (alpha B(alpha, alpha))
        x = 1e-4
        expected = x**alpha * math.exp(math.lgamma(2 * alpha) - 2 * math.lgamma(alpha)) / alpha
        assert abs((lam < x).mean() - expected) < 5 * math.sqrt(expected / len(lam))


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"mixup"}))
def test_images_only(name):
    """A table of features cannot be cropped."""
    parameters = {"random_crop": {"padding": 1}, "center_crop": {"size": 1}}.get(name, {})
    with pytest.raises(DataError, match=rf"{name} works on images .*shape \(5,\)"):
        AUGMENTATIONS[name](**parameters).output_shape((5,))


@pytest.mark.parametrize(
    ("made", "parameters"),
    [
        (RandomCrop, {}),
        (RandomCrop, {"padding": -1}),
        (RandomCrop, {"size": 0}),
        (CenterCrop, {"size": (3, 0)}),
        (HorizontalFlip, {"p": 1.5}),
        (RandomResizedCrop, {"scale": (0, 1)}),
        (RandomResizedCrop, {"scale": (0.9, 0.1)}),
        (RandomResizedCrop, {"ratio": (0, 1)}),
        (Rotation, {"degrees": 0}),
        (Rotation, {"degrees": 181}),
        (Cutout, {"size": 0}),
        (PcaColour, {"std": 0}),
        (Mixup, {"alpha": 0}),
    ],
)
def test_bad_parameters(made, parameters):
    """Refused when declared."""
    with pytest.raises(ParameterError):
        made(**parameters)


def test_crop_larger_than_the_image():
    """The message does the arithmetic."""
    message = r"random_crop of 40 x 40 from images of 28 x 28 with padding 2 \(32 x 32\)"
    with pytest.raises(DataError, match=message):
        RandomCrop(padding=2, size=40).output_shape((1, 28, 28))
