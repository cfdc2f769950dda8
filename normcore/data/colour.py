"""Augmentations of normalized values: cutout, PCA colour, and mixup, which also mixes labels. See
augmentation.py."""

import math
from functools import cache

import numpy as np

from normcore.data.augmentation import Augmentation, images_only
from normcore.data.samples import Samples, chunks, taken
from normcore.errors import DataError, ParameterError


class Cutout(Augmentation, name="cutout"):
    """A square of `size` pixels set to the normalized value 0, its middle anywhere (DeVries and Taylor 2017,
    arXiv:1708.04552); the part outside the image is lost."""

    size: int = 16
    stage = "colour"

    def check(self) -> None:
        if self.size < 1:
            raise ParameterError("size", "a positive number of pixels", self.size)

    @property
    def draws(self) -> int:
        return 2

    def colour(
        self, x: np.ndarray, draws: np.ndarray, arrays: dict[str, np.ndarray], scale: np.ndarray
    ) -> None:
        starts = (draws * x.shape[2:]).astype(np.int64) - self.size // 2
        for i, (top, left) in enumerate(starts.tolist()):
            x[i, :, max(top, 0) : max(top + self.size, 0), max(left, 0) : max(left + self.size, 0)] = 0


class PcaColour(Augmentation, name="pca_colour"):
    """A shift of each image's colour along the principal axes of all training pixels' colours.

    The shift is the sum of eigenvector * eigenvalue * a, a normal with deviation `std`, over the axes of the
    covariance of pixel values in [0, 1] (Krizhevsky, Sutskever and Hinton 2012, section 4.1).
    """

    std: float = 0.1
    stage = "colour"

    def check(self) -> None:
        if not (self.std > 0 and math.isfinite(self.std)):
            raise ParameterError("std", "a positive number", self.std)

    @property
    def draws(self) -> int:
        return 8  # two for each pair of normal numbers: enough for 8 channels

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        images_only(self.name, shape)
        if not 2 <= shape[0] <= 8:
            raise DataError(
                f"data.augment: pca_colour needs 2 to 8 channels; the images have {shape[0]}: remove it"
            )
        return shape

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        channels = samples.shape[0]
        unit = 255.0 if samples.dtype == np.uint8 else 1.0
        count, mean, moments = 0, np.zeros(channels), np.zeros((channels, channels))
        for chunk in chunks(samples, indices):
            pixels = np.moveaxis(taken(samples, chunk), 1, -1).reshape(-1, channels).astype(np.float64) / unit
            middle = pixels.mean(0)
            pixels -= middle
            step = middle - mean
            total = count + len(pixels)
            moments += pixels.T @ pixels + np.outer(step, step) * (count * len(pixels) / total)
            mean += step * (len(pixels) / total)
            count = total
        values, vectors = np.linalg.eigh(moments / count)
        signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(channels)])  # LAPACKs differ in signs
        return {"axes": vectors * signs * np.maximum(values, 0)}

    def colour(
        self, x: np.ndarray, draws: np.ndarray, arrays: dict[str, np.ndarray], scale: np.ndarray
    ) -> None:
        radius = np.sqrt(-2 * np.log1p(-draws[:, 0::2]))  # Box and Muller
        angle = 2 * math.pi * draws[:, 1::2]
        normals = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, : x.shape[1]]
        shift = (self.std * normals) @ arrays["axes"].T / scale.reshape(1, -1)  # (n, C), in normalized units
        for image, by in zip(x, shift.astype(x.dtype)[:, :, None, None], strict=True):
            image += by


class Mixup(Augmentation, name="mixup"):
    """Each sample becomes lam * itself + (1 - lam) * its partner, the labels too (Zhang et al. 2018,
    arXiv:1710.09412).

    lam is Beta(alpha, alpha), drawn for each sample; the partner is the batch's sample in the mirrored place.
    Targets become one row of class shares for each sample.
    """

    alpha: float = 0.2
    stage = "mix"

    def check(self) -> None:
        if not 0 < self.alpha <= 100:
            raise ParameterError("alpha", "a number above 0 and up to 100", self.alpha)

    @property
    def draws(self) -> int:
        return 2

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape  # anything can be mixed

    def mix(
        self, x: np.ndarray, targets: np.ndarray, draws: np.ndarray, scratch: tuple[np.ndarray, np.ndarray]
    ) -> None:
        lam = _beta(self.alpha, draws)
        own = lam.astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        share = lam.astype(targets.dtype).reshape(-1, *[1] * (targets.ndim - 1))
        for values, weight, partner in ((x, own, scratch[0]), (targets, share, scratch[1])):
            np.multiply(values[::-1], 1 - weight, out=partner)
            np.multiply(values, weight, out=values)
            np.add(values, partner, out=values)


def _beta(alpha: float, draws: np.ndarray) -> np.ndarray:
    """Beta(alpha, alpha) numbers from two uniforms each: which half, and the place in it."""
    s, shares, power = _beta_table(alpha)
    lower = 0.5 * np.interp(draws[:, 0], shares, s) ** power
    return np.asarray(np.where(draws[:, 1] < 0.5, lower, 1 - lower))


@cache
def _beta_table(alpha: float) -> tuple[np.ndarray, np.ndarray, float]:
    """The distribution function of the lower half as a table that inverts well by linear interpolation.

    Returns (s, share of the half below s, power), where x = s^power / 2. With alpha below 1 the density has a
    pole at 0; s^(1/alpha) turns x^(alpha-1) (1-x)^(alpha-1) dx into (1 - x(s))^(alpha-1) ds, which has none.
    """
    s = np.linspace(0, 1, 1025)
    power = max(1.0, 1 / alpha)
    x = 0.5 * s**power
    density = (1 - x) ** (alpha - 1) if alpha < 1 else (4 * x * (1 - x)) ** (alpha - 1)
    integral = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return s, integral / integral[-1], power
