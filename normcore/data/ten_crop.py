"""Ten views of each image for evaluation: its four corners and its middle, and their mirror images.

The net's outputs on them are averaged by whoever runs it. Source: Krizhevsky, Sutskever and Hinton 2012, section 4.1.
"""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normcore.data.augmentation import Augmentation, images_only
from normcore.data.dataset import Part
from normcore.data.geometry import CenterCrop, RandomCrop
from normcore.data.preparation import Preparation
from normcore.data.samples import ArraySamples
from normcore.data.transforms import Transforms
from normcore.errors import UsageError

CORNERS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
VIEWS = 2 * len(CORNERS)


class View(Augmentation, name="view"):
    """One fixed part of the image, mirrored or not. place: where it lies from the top left (0, 0) to the bottom
    right (1, 1) of the image with `padding` black pixels around it."""

    size: tuple[int, int]
    place: tuple[float, float]
    mirrored: bool = False
    padding: int = 0
    stage: ClassVar = "geometry"

    @property
    def draws(self) -> int:
        return 0

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        images_only(self.name, shape)
        return (shape[0], *self.size)

    def at_evaluation(self) -> "Augmentation | None":
        return self

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        spans = []
        for have, size, share in zip(source.shape[2:], self.size, self.place, strict=True):
            start = int((have + 2 * self.padding - size) * share) - self.padding
            low, high = max(start, 0), min(start + size, have)
            spans.append((slice(low, high), slice(low - start, high - start)))
        (rows, to_rows), (columns, to_columns) = spans
        if to_rows.stop - to_rows.start < self.size[0] or to_columns.stop - to_columns.start < self.size[1]:
            out.fill(0)
        out[:, :, to_rows, to_columns] = source[:, :, rows, columns]
        if self.mirrored:
            out[...] = out[..., ::-1].copy()


def views(transforms: Transforms, shape: tuple[int, ...], wanted: tuple[int, ...]) -> list[Transforms]:
    """Ten transforms, one for each view, from those of a training.

    shape: of a raw sample; wanted: what the net takes (C, H, W). The last crop of the training is what the views
    stand in for; without one, larger images are cut to the wanted size. Raises UsageError where nothing can be cut.
    """
    if len(wanted) != 3 or len(shape) != 3:
        raise UsageError(f"--ten-crop: expected images (C, H, W), the samples have shape {shape}")
    chain: list[Augmentation] = []
    at, padding = None, 0
    for augmentation in (a for a in transforms.augmentations if a.stage == "geometry"):
        standing = augmentation.at_evaluation()
        padded = isinstance(augmentation, RandomCrop) and augmentation.size is None
        if padded or isinstance(standing, CenterCrop):
            at, padding = len(chain), augmentation.padding if isinstance(augmentation, RandomCrop) else 0
        if padded or standing is not None:
            chain.append(augmentation if standing is None else standing)
    if at is None:
        at = len(chain)
        chain.append(CenterCrop(size=wanted[1:]))
    for k, augmentation in enumerate(chain):
        if k < at:
            shape = augmentation.output_shape(shape)
    room = tuple(n + 2 * padding for n in shape[1:])
    size = wanted[1:]
    if min(r - s for r, s in zip(room, size, strict=True)) < 0 or room == size:
        raise UsageError(
            f"--ten-crop: images of {shape[1]} x {shape[2]} have no corners to cut {size[0]} x {size[1]} from; it needs "
            "a training with random_crop or center_crop, or larger images"
        )
    # What a pad-only crop leaves alone in evaluation stays out, but for the one that the views stand in for.
    kept = [a for k, a in enumerate(chain) if k != at and not isinstance(a, RandomCrop)]
    position = sum(k < at and not isinstance(a, RandomCrop) for k, a in enumerate(chain))
    made = []
    for mirrored in (False, True):
        for place in CORNERS:
            view = View(size=(size[0], size[1]), place=place, mirrored=mirrored, padding=padding)
            steps = [*kept[:position], view, *kept[position:]]
            made.append(Transforms(transforms.normalizer, steps).restore(transforms.arrays))
    return made


def batches(
    part: Part, made: list[Transforms], batch_size: int, dtype: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(x, targets) over a part: x (VIEWS * n, C, H, W) holds all first views, then all second ones ...; n targets.

    n is chosen so that a batch is no larger than batch_size where that is possible. x lives until the next one.
    """
    count = min(len(part), max(1, batch_size // VIEWS))
    raw = np.empty((count, *part.x.shape), part.x.dtype)
    every = np.arange(count, dtype=np.int64)
    held = Part(ArraySamples(raw), np.zeros(count, np.int64), every)
    preparations = [Preparation(t, held, count, dtype, training=False) for t in made]
    x = np.empty((VIEWS * count, *preparations[0].shape), dtype)
    unused = np.empty(count, np.int64)
    for start in range(0, len(part), count):
        indices = part.indices[start : start + count]
        n = len(indices)
        part.x.take(indices, raw[:n])
        for number, preparation in enumerate(preparations):
            preparation.fill(every[:n], 0, x[number * n : (number + 1) * n], unused)
        yield x[: VIEWS * n], part.y[indices]
