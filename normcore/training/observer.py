"""What the training loop tells whoever watches it: the progress display, tests, notebooks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step. loss and accuracy are running means of this epoch."""

    epoch: int  # from 1
    epochs: int
    step: int  # of this epoch, from 1
    steps: int
    images_per_second: float
    loss: float
    accuracy: float | None
    seconds_left: float


class Observer:
    """Called by the trainer; every method may be overridden. None may change the trainer."""

    def preparing(self, number: int, total: int, label: str) -> None:
        """Kernel `number` of `total` begins to compile; label names its layer and direction. Kernels that come
        from the cache are not announced; on a GPU, which does not say where they come from, all are."""

    def prepared(self, compiled: int, seconds: float) -> None:
        """All kernels are there; `compiled` of them had to be compiled, in so many seconds."""

    def begin(self, trainer: Any) -> None:
        """Before the first step of a fit."""

    def step(self, progress: Progress) -> None:
        """After each training step."""

    def epoch(self, metrics: Mapping[str, Any], best: bool) -> None:
        """After each epoch's evaluation; the line of metrics.jsonl, and whether it is the best so far."""

    def note(self, message: str) -> None:
        """Something the user should know."""

    def end(self, metrics: Mapping[str, Any]) -> None:
        """After the last epoch."""
