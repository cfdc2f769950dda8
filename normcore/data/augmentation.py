"""What an augmentation declares: random changes to training images, as components that YAML names under
`data.augment`.

Three stages, in this order whatever the order in the list, which counts within a stage:
    geometry   moves pixels, before they become [0, 1] and normalized values (new area is black, or, after a
               per-pixel normalization, its 0)
    colour     changes normalized values
    mix        combines samples and their labels

Every sample has `draws` random numbers in [0, 1) of its own, keyed by (seed, epoch, sample index), so neither
the batch it is in nor the number of workers changes them. Arrays are (n, C, H, W); nothing large is
allocated.
"""

from typing import ClassVar, Literal

import numpy as np

from normcore.component import Component
from normcore.data.samples import Samples
from normcore.errors import DataError


class Augmentation(Component):
    """Base of the augmentations. Override the method of your stage; `draws` says how many numbers a sample
    needs."""

    kind: ClassVar[str] = "augmentation"
    stage: ClassVar[Literal["geometry", "colour", "mix"]] = "geometry"

    @property
    def draws(self) -> int:
        return 1

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The sample's shape afterwards (geometry only). Raises DataError for what cannot be augmented so."""
        images_only(self.name, shape)
        return shape

    def at_evaluation(self) -> "Augmentation | None":
        """What stands in its place when nothing is random: needed where the shape changes."""
        return None

    def measure(self, samples: Samples, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Small arrays from the training part that it needs; stored with the run."""
        return {}

    def move(self, source: np.ndarray, out: np.ndarray, draws: np.ndarray) -> None:
        """geometry: write every element of out (n, *output_shape) from source; draws is (n, self.draws)."""
        raise NotImplementedError

    def colour(
        self, x: np.ndarray, draws: np.ndarray, arrays: dict[str, np.ndarray], scale: np.ndarray
    ) -> None:
        """colour: change x in place. scale is what values were divided by when normalized: (1, 1, 1) or (C,
        1, 1)."""
        raise NotImplementedError

    def mix(
        self, x: np.ndarray, targets: np.ndarray, draws: np.ndarray, scratch: tuple[np.ndarray, np.ndarray]
    ) -> None:
        """mix: change x and float targets (n, K) in place; scratch: memory like x and like targets."""
        raise NotImplementedError


def images_only(name: str, shape: tuple[int, ...]) -> None:
    """DataError unless `shape` is (C, H, W)."""
    if len(shape) != 3:
        raise DataError(
            f"data.augment: {name} works on images (C, H, W); the samples have shape {shape}: remove it"
        )
