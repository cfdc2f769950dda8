"""From raw samples to a net's input: [0, 1], augmentation, normalization, for training and evaluation alike.

uint8 counts as value / 255, any other number as itself. A normalization is measured on the training part by
`fit` and lives in a few arrays that are stored with the run, so that eval and predict apply the same one.
Those that have one number per channel are applied after the geometric augmentations (so new area is black, as
in the images), those with one number per pixel before them (so new area is the mean).

    raw -> [per-pixel normalization] -> geometry -> [per-channel normalization] -> colour -> mix
"""

from collections.abc import Mapping, Sequence

import numpy as np

from normcore.data.augmentation import Augmentation
from normcore.data.dataset import Part
from normcore.data.normalize import NoNormalization, Normalizer
from normcore.data.samples import ArraySamples, Samples, Steps
from normcore.sequences import Sequences


class Transforms:
    """A normalization and a list of augmentations, with the arrays they were fitted to.

    arrays: "normalize.shift", "normalize.scale", ..., "<augmentation>.<array>": float64, to be stored with
    the run.
    """

    def __init__(
        self, normalizer: Normalizer | None = None, augmentations: Sequence[Augmentation] = ()
    ) -> None:
        self.normalizer = normalizer or NoNormalization()
        self.augmentations = tuple(augmentations)
        self.arrays: dict[str, np.ndarray] = {}
        self.fitted = False

    def fit(
        self, samples: Samples, indices: np.ndarray | None = None, lengths: np.ndarray | None = None
    ) -> "Transforms":
        """Measure everything on these samples (the training part). Raises DataError.

        lengths: of samples that are sequences (T, C), whose features then are what counts as channels.
        """
        every = np.arange(len(samples), dtype=np.int64) if indices is None else indices
        self.output_shape(samples.shape)
        if lengths is None or self.normalizer.per_pixel:
            measured = self.normalizer.measure(samples, every)
        else:
            steps = Steps(samples, every, lengths)
            found = self.normalizer.measure(steps, np.arange(len(steps), dtype=np.int64))
            measured = {key: a[None] for key, a in found.items()}
        arrays = {f"normalize.{key}": a for key, a in measured.items()}
        for augmentation in self.augmentations:
            arrays |= {
                f"{augmentation.name}.{key}": a for key, a in augmentation.measure(samples, every).items()
            }
        self.arrays, self.fitted = arrays, True
        return self

    def restore(self, arrays: Mapping[str, np.ndarray]) -> "Transforms":
        """Take the arrays that an earlier `fit` gave instead of measuring."""
        self.arrays, self.fitted = {key: np.asarray(a) for key, a in arrays.items()}, True
        return self

    def output_shape(self, shape: tuple[int, ...], training: bool = True) -> tuple[int, ...]:
        """A sample's shape after the augmentations, or after what stands for them in evaluation. Raises
        DataError."""
        for augmentation in self.chain(training):
            shape = augmentation.output_shape(shape)
        return shape

    def chain(self, training: bool) -> tuple[Augmentation, ...]:
        """The augmentations in the order they run."""
        order = ("geometry", "colour", "mix")
        chosen = self.augmentations
        if not training:
            chosen = tuple(e for a in self.augmentations if (e := a.at_evaluation()) is not None)
        return tuple(sorted(chosen, key=lambda a: order.index(a.stage)))

    def of(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays of "normalize" or of one augmentation."""
        return {key.split(".", 1)[1]: a for key, a in self.arrays.items() if key.startswith(prefix + ".")}

    @property
    def mixes(self) -> bool:
        """True when training targets become rows of class shares."""
        return any(a.stage == "mix" for a in self.augmentations)

    def apply(
        self, raw: np.ndarray, dtype: str = "float32", lengths: np.ndarray | None = None
    ) -> np.ndarray | Sequences:
        """Raw samples (N, C, H, W) as the net sees them in evaluation, in a new array; for `predict`."""
        samples = ArraySamples(raw)
        part = Part(samples, np.zeros(len(raw), np.int64), np.arange(len(raw), dtype=np.int64), lengths)
        from normcore.data.preparation import Preparation  # which knows Transforms

        ready = Preparation(self, part, len(raw), dtype, training=False)
        x, targets = ready.new_output()
        ready.fill(part.indices, 0, x, targets)
        return x
