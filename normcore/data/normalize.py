"""Normalizations of the input, as components that YAML names under `data.normalize`.

Each measures a few arrays on the training part (`measure`) and makes a function that applies them
(`applier`). Values count in [0, 1] for uint8 (value / 255) and as they are for other numbers. Statistics are
float64, joined chunk by chunk by the parallel form of the variance (Chan, Golub and LeVeque 1983), which
never subtracts large sums.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from normcore.component import Component
from normcore.data.samples import Samples, chunks, taken
from normcore.errors import DataError, ParameterError

Arrays = Mapping[str, np.ndarray]
Apply = Callable[[np.ndarray, np.ndarray], None]  # (raw, out), both (n, *shape)

_WHITEN_LIMIT = 4096  # values a sample for zca: its matrix has the square of this many numbers


def _unit(dtype: np.dtype) -> float:
    return 255.0 if dtype == np.uint8 else 1.0


class Normalizer(Component):
    """Base of the normalizations: (value - shift) / scale with arrays of shape (C, 1, 1) or (C, H, W)."""

    kind: ClassVar[str] = "normalization"
    per_pixel: ClassVar[bool] = False  # one number a pixel: applied before the geometric augmentations

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The arrays, float64, from the samples at `indices`. Raises DataError."""
        return {}

    def applier(
        self, arrays: Arrays, shape: tuple[int, ...], raw: np.dtype, batch: int, dtype: np.dtype
    ) -> Apply:
        """A function that writes normalized samples (dtype) from raw ones; it works in memory it took
        before."""
        unit = _unit(raw)
        if "shift" not in arrays:
            divisor = dtype.type(unit)
            if unit == 1.0:
                return lambda source, out: np.copyto(out, source, casting="same_kind")
            return lambda source, out: _divide(source, divisor, out)
        # float64 constants where samples are floats: float32 could not tell 1e6 + 0.01 from 1e6
        precise = dtype if raw == np.uint8 else np.dtype(np.float64)
        shift = _fitting("shift", arrays, shape) * unit
        scale = _fitting("scale", arrays, shape) * unit
        if (scale == 1.0).all():
            return _subtraction(shift.astype(precise))
        return _affine(shift.astype(precise), scale.astype(dtype))


def _divide(source: np.ndarray, divisor: np.ndarray, out: np.ndarray) -> None:
    np.divide(source, divisor, out=out, casting="same_kind")


def _subtraction(shift: np.ndarray) -> Apply:
    return lambda source, out: np.subtract(source, shift, out=out, casting="same_kind")


def _affine(shift: np.ndarray, scale: np.ndarray) -> Apply:
    def apply(source: np.ndarray, out: np.ndarray) -> None:
        np.subtract(source, shift, out=out, casting="same_kind")
        np.divide(out, scale, out=out)

    return apply


def _fitting(name: str, arrays: Arrays, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the run, checked against the samples it is to normalize. Raises DataError."""
    array = np.asarray(arrays[name])
    if array.ndim != len(shape) or any(a not in (1, s) for a, s in zip(array.shape, shape, strict=True)):
        raise DataError(
            f"the run's normalization ({name}) was measured on samples of shape {array.shape}, these have "
            f"{shape}; "
            "give samples like those of the training"
        )
    return array


class NoNormalization(Normalizer, name="none"):
    """uint8 becomes [0, 1], other numbers stay as they are."""


class Standardize(Normalizer, name="standardize"):
    """Mean 0 and deviation 1 for each channel (each feature of a table); a constant channel becomes 0."""

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        mean, variance = moments(samples, indices, per_pixel=self.per_pixel)
        deviation = np.sqrt(variance)
        constant = deviation <= 1e-15 * np.abs(mean)
        return {"shift": mean, "scale": np.where(constant, 1.0, deviation)}


class StandardizePixels(Standardize, name="standardize_pixels"):
    """Mean 0 and deviation 1 for each pixel of each channel; a constant pixel becomes 0."""

    per_pixel = True


class SubtractMean(Normalizer, name="subtract_mean"):
    """The training part's mean image subtracted (Krizhevsky, Sutskever and Hinton 2012)."""

    per_pixel = True

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        mean, _ = moments(samples, indices, per_pixel=True)
        return {"shift": mean, "scale": np.ones((1,) * mean.ndim)}


class Minmax(Normalizer, name="minmax"):
    """Each channel (each feature) from its smallest and largest training value to [0, 1]; a constant one
    becomes 0."""

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        axes = (0, *range(2, 1 + len(samples.shape)))
        low = high = None
        for chunk in chunks(samples, indices):
            values = taken(samples, chunk)
            least, most = values.min(axes), values.max(axes)
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
        shape = (-1, *(1,) * (len(samples.shape) - 1))
        low, high = (np.asarray(v, np.float64).reshape(shape) / _unit(samples.dtype) for v in (low, high))
        _check_finite(low + high)
        return {"shift": low, "scale": np.where(high > low, high - low, 1.0)}


class Zca(Normalizer, name="zca"):
    """ZCA whitening: uncorrelated values of variance 1 that stay as near to the image as they can.

    x becomes (x - mean) W with W = U (S + eps)^(-1/2) U^T from the covariance U S U^T of whole training
    images (Bell and Sejnowski 1997). For small images: W has (C H W)^2 numbers.
    """

    eps: float = 0.01
    per_pixel = True

    def check(self) -> None:
        if not self.eps > 0:
            raise ParameterError("eps", "a positive number", self.eps)

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        size = int(np.prod(samples.shape))
        if size > _WHITEN_LIMIT:
            raise DataError(
                f"data.normalize: zca of {samples.shape} needs a matrix of {size} x {size}; it is for "
                f"samples of up to "
                f"{_WHITEN_LIMIT} values: use standardize"
            )
        mean, _ = moments(samples, indices, per_pixel=True)
        covariance = np.zeros((size, size))
        for chunk in chunks(samples, indices):
            values = taken(samples, chunk) / _unit(samples.dtype) - mean
            values = values.reshape(len(chunk), size)
            covariance += values.T @ values
        strengths, axes = np.linalg.eigh(covariance / len(indices))
        matrix = (axes / np.sqrt(np.maximum(strengths, 0) + self.eps)) @ axes.T
        return {"shift": mean, "matrix": matrix.astype(np.float32)}

    def applier(
        self, arrays: Arrays, shape: tuple[int, ...], raw: np.dtype, batch: int, dtype: np.dtype
    ) -> Apply:
        shift = (_fitting("shift", arrays, shape) * _unit(raw)).astype(dtype)
        matrix = (np.asarray(arrays["matrix"], np.float64) / _unit(raw)).astype(dtype)
        centred = np.empty((batch, *shape), dtype)

        def apply(source: np.ndarray, out: np.ndarray) -> None:
            n = len(source)
            np.subtract(source, shift, out=centred[:n], casting="same_kind")
            np.matmul(centred[:n].reshape(n, -1), matrix, out=out.reshape(n, -1))

        return apply


def moments(samples: Samples, indices: np.ndarray, per_pixel: bool) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance in float64, each (C, 1, 1) or, per pixel, of a sample's shape. Raises
    DataError."""
    axes = (0,) if per_pixel else (0, *range(2, 1 + len(samples.shape)))
    count, mean, spread = 0, np.zeros(1), np.zeros(1)  # spread: sum of squared deviations
    for chunk in chunks(samples, indices):
        values = taken(samples, chunk).astype(np.float64)
        middle = values.mean(axes, keepdims=True)
        values -= middle
        np.square(values, out=values)
        here, middle = values.sum(axes, keepdims=True)[0], middle[0]
        size = len(chunk) if per_pixel else len(chunk) * int(np.prod(samples.shape[1:]))
        step, total = middle - mean, count + size
        mean = mean + step * (size / total)
        spread = spread + here + step**2 * (count * size / total)
        count = total
    _check_finite(mean)
    unit = _unit(samples.dtype)
    return mean / unit, spread / count / unit**2


def _check_finite(values: np.ndarray) -> None:
    if not np.isfinite(values).all():
        raise DataError(
            "the training samples hold values that are not finite, so they cannot be normalized; remove them"
        )


NORMALIZERS: dict[str, type[Normalizer]] = {
    n.name: n for n in (Minmax, NoNormalization, Standardize, StandardizePixels, SubtractMean, Zca)
}
