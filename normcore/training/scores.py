"""What a classifier got right: top-1, top-5, the confusion matrix, and the classes one by one."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FEW = 5  # the k of top-k


class Scores:
    """Counts over batches. confusion: samples by (true class, answer), int64 (classes, classes).

    Of equal outputs the first class counts as the larger one, as in the losses; a sample with a NaN among its
    outputs is wrong. ignored: targets of this value do not count.
    """

    def __init__(self, classes: int, ignored: int | None = None):
        self.classes, self.ignored = classes, ignored
        self.confusion = np.zeros((classes, classes), np.int64)
        self.among_few = 0

    def add(self, outputs: np.ndarray, targets: np.ndarray) -> None:
        """outputs: scores or probabilities (n, classes); targets: class numbers (n,)."""
        targets = np.asarray(targets)
        if self.ignored is not None:
            kept = targets != self.ignored
            outputs, targets = outputs[kept], targets[kept]
        if not len(targets):
            return
        broken = np.isnan(outputs).any(1)
        # An answer that cannot be right: the class after the true one.
        answers = np.where(broken, (targets + 1) % self.classes, np.argmax(outputs, axis=1))
        pairs = np.bincount(targets * self.classes + answers, minlength=self.classes**2)
        self.confusion += pairs.reshape(self.confusion.shape)
        own = outputs[np.arange(len(targets)), targets][:, None]
        before = np.arange(self.classes) < targets[:, None]
        rank = ((outputs > own) | ((outputs == own) & before)).sum(1)
        self.among_few += int(((rank < FEW) & ~broken).sum())

    @property
    def samples(self) -> int:
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float | None:
        """The share of samples whose largest output is the true class's; None without samples."""
        return int(np.trace(self.confusion)) / self.samples if self.samples else None

    @property
    def top5(self) -> float | None:
        """The share whose true class is among the five largest outputs; None up to five classes: always right."""
        return self.among_few / self.samples if self.samples and self.classes > FEW else None

    def per_class(self, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """A row for each class: samples, correct, accuracy (None without samples), and what it is mostly taken for."""
        rows = []
        for k, counts in enumerate(self.confusion):
            samples, correct = int(counts.sum()), int(counts[k])
            wrong = counts.copy()
            wrong[k] = 0
            rows.append(
                {
                    "class": k,
                    "name": names[k] if names is not None and k < len(names) else None,
                    "samples": samples,
                    "correct": correct,
                    "accuracy": correct / samples if samples else None,
                    "mostly_taken_for": int(wrong.argmax()) if wrong.any() else None,
                }
            )
        return rows


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """The softmax of each row, in float64."""
    shifted = np.asarray(outputs, np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(-1, keepdims=True))
