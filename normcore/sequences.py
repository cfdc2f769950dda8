"""Sequences of different lengths as one batch: a network's input where a layer names `lengths` among its `inputs:`."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sequences:
    """x (N, T, C), sequence after sequence from step 0 on; lengths (N,) whole numbers from 1 to T.

    What x holds behind a sequence's end is ignored, as long as it is finite. Either array may be NumPy's, CuPy's or
    any other that a network takes; len, shape and slices along the batch are those of the pair.
    """

    x: Any
    lengths: Any

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    def __getitem__(self, rows: slice) -> "Sequences":
        return Sequences(self.x[rows], self.lengths[rows])
