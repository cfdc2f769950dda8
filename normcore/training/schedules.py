"""Learning-rate schedules: the factor of the base rate at any moment of the training."""

import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from normcore.component import Component
from normcore.errors import ParameterError


class Schedule(Component):
    """Base of schedules.

    factor(epoch, epochs, state): the factor at a moment; epoch counts passes with fractions, from 0 to epochs.
    observe(metrics, state): called after each epoch. state is a mapping of numbers that checkpoints keep.
    warmup_epochs: the rate climbs linearly from near 0 over this many epochs first (Goyal et al. 2017).
    """

    kind: ClassVar[str] = "schedule"
    warmup_epochs: float = field(default=0.0, kw_only=True)

    def check(self) -> None:
        if not self.warmup_epochs >= 0:
            raise ParameterError("warmup_epochs", "a number >= 0", self.warmup_epochs)

    def factor(self, epoch: float, epochs: int, state: Mapping[str, Any]) -> float:
        return 1.0

    def observe(self, metrics: Mapping[str, float], state: dict[str, Any]) -> None:
        """After an epoch; only schedules that react to the metrics need it."""

    def rate(self, epoch: float, epochs: int, state: Mapping[str, Any], step: float) -> float:
        """factor with the warm-up in front; step is the length of one training step in epochs."""
        if epoch < self.warmup_epochs:
            return min(1.0, (epoch + step) / self.warmup_epochs) * self.factor(0.0, epochs, state)
        return self.factor(epoch, epochs, state)


class ConstantRate(Schedule, name="constant"):
    """The base rate throughout."""


class Step(Schedule, name="step"):
    """gamma times lower every step_size epochs."""

    step_size: int
    gamma: float = 0.1

    def check(self) -> None:
        super().check()
        if self.step_size < 1:
            raise ParameterError("step_size", "a whole number of epochs, at least 1", self.step_size)

    def factor(self, epoch: float, epochs: int, state: Mapping[str, Any]) -> float:
        return self.gamma ** math.floor(epoch / self.step_size + 1e-9)


class Multistep(Schedule, name="multistep"):
    """gamma times lower at each of the milestones (epochs)."""

    milestones: tuple[int, ...]
    gamma: float = 0.1

    def factor(self, epoch: float, epochs: int, state: Mapping[str, Any]) -> float:
        return self.gamma ** sum(epoch + 1e-9 >= m for m in self.milestones)


class Exponential(Schedule, name="exponential"):
    """gamma times lower each epoch."""

    gamma: float

    def factor(self, epoch: float, epochs: int, state: Mapping[str, Any]) -> float:
        return self.gamma ** math.floor(epoch + 1e-9)


class Cosine(Schedule, name="cosine"):
    """Half a cosine from 1 to min_factor over what the warm-up leaves. Loshchilov and Hutter 2016."""

    min_factor: float = 0.0

    def factor(self, epoch: float, epochs: int, state: Mapping[str, Any]) -> float:
        span = max(epochs - self.warmup_epochs, 1e-9)
        progress = min(max((epoch - self.warmup_epochs) / span, 0.0), 1.0)
        return self.min_factor + (1.0 - self.min_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))


class ReduceOnPlateau(Schedule, name="reduce_on_plateau"):
    """gamma times lower when the metric has not improved for `patience` epochs: AlexNet's rule, automated.

    metric: a key of metrics.jsonl; accuracies improve upwards, everything else downwards.
    """

    gamma: float = 0.1
    patience: int = 10
    metric: str = "test_loss"
    threshold: float = 1e-4
    min_factor: float = 0.0

    def factor(self, epoch: float, epochs: int, state: Mapping[str, Any]) -> float:
        return float(max(self.min_factor, self.gamma ** state.get("reductions", 0)))

    def observe(self, metrics: Mapping[str, float], state: dict[str, Any]) -> None:
        if self.metric not in metrics:
            raise ParameterError("metric", f"one of {', '.join(sorted(metrics))}", self.metric)
        value = metrics[self.metric]
        if self.metric.endswith("accuracy"):
            value = -value
        best = state.get("best")
        if best is None or value < best - abs(best) * self.threshold:
            state["best"], state["waited"] = value, 0
            return
        state["waited"] = state.get("waited", 0) + 1
        if state["waited"] > self.patience:
            state["reductions"], state["waited"] = state.get("reductions", 0) + 1, 0


BUILT_IN = (ConstantRate, Cosine, Exponential, Multistep, ReduceOnPlateau, Step)
