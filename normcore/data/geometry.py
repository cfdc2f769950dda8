"""Augmentations that move pixels: crops, flips, rotation. See augmentation.py for when they run and on what.

Pillow does the resampling (bilinear; floats in single precision).
"""

import math
from collections.abc import Callable

import numpy as np
from PIL import Image

from normcore.data.augmentation import Augmentation, images_only
from normcore.errors import DataError, ParameterError

Size = int | tuple[int, int]
_BILINEAR = Image.Resampling.BILINEAR


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def _check_size(size: Size | None) -> None:
    if size is not None and min(_pair(size)) < 1:
        raise ParameterError("size", "a positive number of pixels, or [height, width]", size)


def _check_probability(p: float) -> None:
    if not 0 <= p <= 1:
        raise ParameterError("p", "a probability from 0 to 1", p)


class RandomCrop(Augmentation, name="random_crop"):
    """A random part of the image, after `padding` black pixels were put around it.

    size: height and width of the part (one number for both); by default the image's own. With a size,
    evaluation takes the middle.
    """

    padding: int = 0
    size: Size | None = None

    def check(self) -> None:
        _check_size(self.size)
        if self.padding < 0:
            raise ParameterError("padding", "a number of pixels, 0 or more", self.padding)
        if self.padding == 0 and self.size is None:
            raise ParameterError(
                "padding", "more than 0 where no size is given: the crop would change nothing", 0
            )

    @property
    def draws(self) -> int:
        return 2

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        images_only(self.name, shape)
        if self.size is None:
            return shape
        height, width = _pair(self.size)
        room = (shape[1] + 2 * self.padding, shape[2] + 2 * self.padding)
        if height > room[0] or width > room[1]:
            raise DataError(
                f"data.augment: random_crop of {height} x {width} from images of {shape[1]} x {shape[2]} "
                f"with padding "
                f"{self.padding} ({room[0]} x {room[1]}); choose a smaller size or more padding"
            )
        return (shape[0], height, width)

    def at_evaluation(self) -> "Augmentation | None":
        return None if self.size is None else CenterCrop(size=self.size)

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        height, width = source.shape[2:]
        new_height, new_width = out.shape[2:]
        pad = self.padding
        free = np.array([height + 2 * pad - new_height + 1, width + 2 * pad - new_width + 1])
        starts = (draws * free).astype(np.int64) - pad  # from -pad to the last place that fits
        if pad:
            out.fill(0)
        for i, (top, left) in enumerate(starts.tolist()):
            y0, y1 = max(top, 0), min(top + new_height, height)
            x0, x1 = max(left, 0), min(left + new_width, width)
            out[i, :, y0 - top : y1 - top, x0 - left : x1 - left] = source[i, :, y0:y1, x0:x1]


class CenterCrop(Augmentation, name="center_crop"):
    """The middle part of the image, in training and evaluation alike."""

    size: Size

    def check(self) -> None:
        _check_size(self.size)

    @property
    def draws(self) -> int:
        return 0

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        images_only(self.name, shape)
        return (shape[0], *_pair(self.size))

    def at_evaluation(self) -> "Augmentation | None":
        return self

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        y = (source.shape[2] - out.shape[2]) // 2  # negative where the crop is larger: a black border
        x = (source.shape[3] - out.shape[3]) // 2
        if y < 0 or x < 0:
            out.fill(0)
        inner = out[
            :, :, max(-y, 0) : max(-y, 0) + source.shape[2], max(-x, 0) : max(-x, 0) + source.shape[3]
        ]
        y, x = max(y, 0), max(x, 0)
        inner[...] = source[:, :, y : y + inner.shape[2], x : x + inner.shape[3]]


class HorizontalFlip(Augmentation, name="horizontal_flip"):
    """Left and right exchanged with probability p."""

    p: float = 0.5

    def check(self) -> None:
        _check_probability(self.p)

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        for i, flip in enumerate((draws[:, 0] < self.p).tolist()):
            out[i] = source[i, :, :, ::-1] if flip else source[i]


class RandomResizedCrop(Augmentation, name="random_resized_crop"):
    """A part of random area and aspect ratio, resized to `size` (Szegedy et al. 2015, arXiv:1409.4842).

    The area is uniform in `scale` (shares of the image), the logarithm of the aspect ratio uniform in
    `ratio`; a part that does not fit is shrunk to fit. Evaluation takes the middle `size`.
    """

    size: Size | None = None
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def check(self) -> None:
        _check_size(self.size)
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ParameterError("scale", "two shares of the area, 0 < smallest <= largest <= 1", self.scale)
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ParameterError(
                "ratio", "two positive ratios, width / height, the smaller first", self.ratio
            )

    @property
    def draws(self) -> int:
        return 4

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        images_only(self.name, shape)
        return shape if self.size is None else (shape[0], *_pair(self.size))

    def at_evaluation(self) -> "Augmentation | None":
        return None if self.size is None else CenterCrop(size=self.size)

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        height, width = source.shape[2:]
        size = (out.shape[3], out.shape[2])
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for i, (u_area, u_ratio, u_y, u_x) in enumerate(draws.tolist()):
            area = height * width * (self.scale[0] + u_area * (self.scale[1] - self.scale[0]))
            ratio = math.exp(low + u_ratio * (high - low))
            w, h = min(math.sqrt(area * ratio), width), min(math.sqrt(area / ratio), height)
            left, top = u_x * (width - w), u_y * (height - h)
            box = (left, top, min(left + w, width), min(top + h, height))
            _redraw(source[i], out[i], lambda picture, box=box: picture.resize(size, _BILINEAR, box))  # type: ignore[misc]


class Rotation(Augmentation, name="rotation"):
    """A turn by an angle uniform in [-degrees, degrees] about the middle; corners that come in are black."""

    degrees: float = 10.0

    def check(self) -> None:
        if not 0 < self.degrees <= 180:
            raise ParameterError("degrees", "the largest angle, above 0 and up to 180", self.degrees)

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        height, width = source.shape[2:]
        angles = np.radians((2 * draws[:, 0] - 1) * self.degrees)
        for i, (cos, sin) in enumerate(zip(np.cos(angles).tolist(), np.sin(angles).tolist(), strict=True)):
            # a new pixel (x, y) comes from (cos x + sin y + cx, -sin x + cos y + cy); the middle stays
            cx = (width - cos * width - sin * height) / 2
            cy = (height + sin * width - cos * height) / 2
            matrix = (cos, sin, cx, -sin, cos, cy)
            _redraw(
                source[i],
                out[i],
                lambda picture, matrix=matrix: picture.transform(  # type: ignore[misc]
                    (width, height), Image.Transform.AFFINE, matrix, _BILINEAR
                ),
            )


def _redraw(source: np.ndarray, out: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> None:
    """Apply a Pillow operation to an image (C, H, W): RGB bytes at once, anything else a channel at a
    time."""
    if source.dtype == np.uint8 and len(source) == 3:
        picture = Image.fromarray(np.ascontiguousarray(source.transpose(1, 2, 0)))
        out[...] = np.asarray(change(picture)).transpose(2, 0, 1)
        return
    for plane, target in zip(source, out, strict=True):
        picture = Image.fromarray(plane if plane.dtype == np.uint8 else plane.astype(np.float32, copy=False))
        target[...] = change(picture)
