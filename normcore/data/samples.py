"""Where a loader takes its samples from: arrays in memory or on disk, and image files decoded when asked for.

Everything behind this interface has channels first: a sample is (C, H, W), or whatever a source says that is
no image: (F,) features, (T, C) a sequence. A reader in another thread may call `take` at any time, so it
keeps no state.
"""

from typing import Protocol

import numpy as np


class Samples(Protocol):
    """What loaders and fits need of a set of samples."""

    shape: tuple[int, ...]  # of one sample
    dtype: np.dtype

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray, out: np.ndarray) -> None:
        """Copy the samples at `indices` (int64, (n,)) to `out`: (n, *shape), C-contiguous, of `dtype`."""
        ...


class ArraySamples:
    """Samples in one array: (N, *shape) or, with `channels_last`, (N, *spatial, C). A memory map stays on
    disk."""

    def __init__(self, array: np.ndarray, channels_last: bool = False) -> None:
        self._array = array
        self._channels_last = channels_last
        shape = array.shape[1:]
        self.shape = (shape[-1], *shape[:-1]) if channels_last else shape
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._array)

    def take(self, indices: np.ndarray, out: np.ndarray) -> None:
        if not self._channels_last:
            # clip: the checking mode takes into a temporary array first; indices come from the loader
            np.take(self._array, indices, axis=0, out=out, mode="clip")
            return
        array = self._array
        for row, index in enumerate(indices.tolist()):
            out[row] = np.moveaxis(array[index], -1, 0)


class Steps:
    """The steps of sequences (T, C) up to their ends as samples (C,) of their own: what a normalization measures."""

    def __init__(self, sequences: Samples, indices: np.ndarray, lengths: np.ndarray) -> None:
        self._sequences, self._indices = sequences, indices
        self._ends = np.cumsum(lengths[indices])
        self.shape, self.dtype = sequences.shape[1:], sequences.dtype

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, indices: np.ndarray, out: np.ndarray) -> None:
        which = np.searchsorted(self._ends, indices, side="right")
        at = indices - np.where(which > 0, self._ends[which - 1], 0)
        needed, row = np.unique(which, return_inverse=True)
        out[...] = taken(self._sequences, self._indices[needed])[row, at]


def chunks(samples: Samples, indices: np.ndarray, size: int = 1 << 22) -> "list[np.ndarray]":
    """`indices` cut into runs whose samples hold about `size` values together, for a pass that measures."""
    step = max(1, size // max(1, int(np.prod(samples.shape))))
    return [indices[start : start + step] for start in range(0, len(indices), step)]


def taken(samples: Samples, indices: np.ndarray) -> np.ndarray:
    """A new array of the samples at `indices`."""
    out = np.empty((len(indices), *samples.shape), samples.dtype)
    samples.take(indices, out)
    return out
