"""The way of one batch from raw samples to a net's input and targets, in memory taken once."""

from collections.abc import Callable

import numpy as np

from normcore import random
from normcore.data.augmentation import Augmentation
from normcore.data.dataset import Part
from normcore.data.transforms import Transforms
from normcore.sequences import Sequences

Allocate = Callable[..., np.ndarray]  # like numpy.empty(shape, dtype)


class Preparation:
    """One worker's memory for batches of up to `batch` samples of one part; `fill` allocates nothing large.

    training False leaves the random augmentations out. classes and seed matter in training only: the number
    of classes that mixed targets have, and what the random numbers derive from.
    """

    def __init__(
        self,
        transforms: Transforms,
        part: Part,
        batch: int,
        dtype: str = "float32",
        *,
        training: bool = True,
        classes: int | None = None,
        seed: int = 0,
    ) -> None:
        raw_shape, raw_dtype = part.x.shape, np.dtype(part.x.dtype)
        self.part, self.batch, self.dtype = part, batch, np.dtype(dtype)
        self.shape = transforms.output_shape(raw_shape, training)
        chain = transforms.chain(training)
        self._raw = np.empty((batch, *raw_shape), raw_dtype)

        arrays = transforms.of("normalize")
        self._normalize = transforms.normalizer.applier(arrays, raw_shape, raw_dtype, batch, self.dtype)
        self._early = transforms.normalizer.per_pixel
        self._early_out = np.empty((batch, *raw_shape), self.dtype) if self._early else None

        self._moves: list[tuple[Augmentation, np.ndarray, slice]] = []
        self._colours: list[tuple[Augmentation, dict[str, np.ndarray], slice]] = []
        self._mixes: list[tuple[Augmentation, slice]] = []
        shape, count = raw_shape, 0
        for augmentation in chain:
            columns = slice(count, count + augmentation.draws)
            count += augmentation.draws
            if augmentation.stage == "geometry":
                shape = augmentation.output_shape(shape)
                out = np.empty((batch, *shape), self.dtype if self._early else raw_dtype)
                self._moves.append((augmentation, out, columns))
            elif augmentation.stage == "colour":
                self._colours.append((augmentation, transforms.of(augmentation.name), columns))
            else:
                self._mixes.append((augmentation, columns))
        scale = np.asarray(arrays.get("scale", np.ones(raw_shape[0])))
        self._colour_scale = scale.reshape(len(scale), -1).mean(1)  # what a shift of a channel is divided by

        self._key = random.key_of(seed, "data.augment")
        self._words = random.Words(batch) if count else None
        self._draws = np.empty((batch, 4 * -(-count // 4)))

        labels = part.y
        self._shares = bool(self._mixes) and labels.dtype.kind == "i" and classes is not None
        self.target_shape: tuple[int, ...] = (classes,) if self._shares and classes else labels.shape[1:]
        self.target_dtype = labels.dtype if labels.dtype.kind == "i" and not self._shares else self.dtype
        self._labels = np.empty((batch, *labels.shape[1:]), labels.dtype)
        self._lengths = part.lengths
        scratch = batch if self._mixes else 0
        self._scratch_x = np.empty((scratch, *self.shape), self.dtype)
        self._scratch_targets = np.empty((scratch, *self.target_shape), self.target_dtype)

    def new_output(self, allocate: Allocate = np.empty) -> tuple[np.ndarray | Sequences, np.ndarray]:
        """Arrays for `fill` to write to: x (batch, *shape), for sequences with their lengths, and targets
        (batch, *target_shape)."""
        x = allocate((self.batch, *self.shape), self.dtype)
        targets = allocate((self.batch, *self.target_shape), self.target_dtype)
        if self._lengths is None:
            return x, targets
        return Sequences(x, allocate((self.batch,), np.dtype(np.int64))), targets

    def fill(self, indices: np.ndarray, epoch: int, x: np.ndarray | Sequences, targets: np.ndarray) -> int:
        """Write the samples at `indices` (n <= batch of them) to the first n rows of x and targets; returns
        n."""
        n = len(indices)
        if isinstance(x, Sequences) and self._lengths is not None:
            self._fill_samples(indices, epoch, x.x[:n], targets[:n])
            np.take(self._lengths, indices, out=x.lengths[:n], mode="clip")
            for sequence, length in zip(x.x, x.lengths[:n].tolist(), strict=False):
                sequence[length:] = 0  # whatever the data hold there: NaN times a gradient of 0 would be NaN
        elif isinstance(x, np.ndarray):
            self._fill_samples(indices, epoch, x[:n], targets[:n])
        return n

    def _fill_samples(self, indices: np.ndarray, epoch: int, x: np.ndarray, targets: np.ndarray) -> None:
        n = len(indices)
        stage = self._raw[:n]
        self.part.x.take(indices, stage)
        draws = self._drawn(indices, epoch)
        if self._early_out is not None:
            self._normalize(stage, self._early_out[:n])
            stage = self._early_out[:n]
        for augmentation, out, columns in self._moves:
            augmentation.move(stage, out[:n], draws[:, columns])
            stage = out[:n]
        if self._early:
            np.copyto(x, stage)
        else:
            self._normalize(stage, x)
        for augmentation, arrays, columns in self._colours:
            augmentation.colour(x, draws[:, columns], arrays, self._colour_scale)
        self._take_targets(indices, targets)
        for augmentation, columns in self._mixes:
            augmentation.mix(x, targets, draws[:, columns], (self._scratch_x[:n], self._scratch_targets[:n]))

    def _drawn(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """The samples' random numbers of this epoch, (n, draws): multiples of 2^-32 in [0, 1)."""
        draws = self._draws[: len(indices)]
        if self._words is not None:
            for stream in range(draws.shape[1] // 4):
                words = self._words.draw(self._key, indices, epoch, stream)
                np.multiply(words, 2.0**-32, out=draws[:, 4 * stream : 4 * stream + 4])
        return draws

    def _take_targets(self, indices: np.ndarray, targets: np.ndarray) -> None:
        labels = self._labels[: len(indices)]
        np.take(self.part.y, indices, axis=0, out=labels, mode="clip")
        if self._shares:
            targets.fill(0)
            targets[np.arange(len(labels)), labels] = 1
        else:
            np.copyto(targets, labels, casting="same_kind")
