"""The `train:` section of a configuration."""

from typing import ClassVar, Literal

from normcore.component import Component
from normcore.errors import ParameterError


class TrainSettings(Component, name="train"):
    """How long and under which limits a network trains.

    epochs: passes over the training part. clip_grad_norm: the largest global norm of all gradients together;
    clip_grad_value: the largest absolute value of each; null: no limit. population_statistics: what
    normalization uses for inference, the moving averages of training, or `exact` ones from one more pass
    after it. accumulate: batches whose gradients are averaged, sample by sample, before each update, for
    batches that memory does not hold; batch statistics still belong to one batch. patience: epochs without a
    better checkpoint before training ends; null: never.
    """

    kind: ClassVar[str] = "section"
    epochs: int = 10
    clip_grad_norm: float | None = None
    clip_grad_value: float | None = None
    population_statistics: Literal["moving", "exact"] = "moving"
    accumulate: int = 1
    patience: int | None = None

    def check(self) -> None:
        if self.epochs < 1:
            raise ParameterError("epochs", "a whole number, at least 1", self.epochs)
        if self.accumulate < 1:
            raise ParameterError("accumulate", "a number of batches, at least 1", self.accumulate)
        if self.patience is not None and self.patience < 1:
            raise ParameterError("patience", "a number of epochs, at least 1, or null", self.patience)
        for name in ("clip_grad_norm", "clip_grad_value"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ParameterError(name, "a number above 0, or null for no limit", limit)
