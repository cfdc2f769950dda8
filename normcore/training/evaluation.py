"""Running a network over a part of the data: evaluation, and population statistics."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.data import ten_crop
from normcore.network import Network
from normcore.training.scores import Scores, probabilities


@dataclass
class Totals:
    """Sums over samples; loss and accuracy are their means (NaN for none)."""

    loss_sum: float = 0.0
    count: float = 0.0
    correct: float = 0.0

    def add(self, loss_sum: float, count: float, correct: float) -> None:
        self.loss_sum += loss_sum
        self.count += count
        self.correct += correct

    @property
    def loss(self) -> float:
        return self.loss_sum / self.count if self.count else math.nan

    @property
    def accuracy(self) -> float:
        return self.correct / self.count if self.count else math.nan

    def numbers(self) -> list[float]:
        return [self.loss_sum, self.count, self.correct]


def evaluate(
    net: Network, loss: Any, loader: Any, part: str = "test", scores: Scores | None = None
) -> Totals:
    """Loss and correct answers over all samples of a part, in inference mode. scores: take the answers too."""
    totals = Totals()
    for x, targets in loader.evaluate(part):
        program = net.program(x.shape[0], training=False)
        bound = net.loss_of(program, loss)
        bound.set_targets(targets)
        program.forward(net.adopt_input(x), net.call_number)
        bound.run()
        total, correct, count = bound.totals()
        totals.add(total, count, correct)
        if scores is not None:
            scores.add(net.device.to_host(program.output), targets)
    return totals


def evaluate_views(net: Network, loader: Any, part: str, made: list[Any], scores: Scores) -> None:
    """Ten-crop evaluation: the answers are the softmax outputs averaged over the views of ten_crop.views."""
    for x, targets in ten_crop.batches(loader.parts[part], made, loader.batch_size, net.dtype):
        outputs = probabilities(predict(net, x))
        scores.add(outputs.reshape(len(made), len(targets), -1).mean(0), targets)


def recalibrate(net: Network, loader: Any) -> bool:
    """One more pass over the training part that gathers population statistics; False when no op gathers any.

    An op that declares `calibrates` (the names of its statistics) finds the number of the batch, from 1, in
    t.calibrating: it then averages the batches' statistics from zero instead of moving towards them. Source: Ioffe
    and Szegedy 2015, Algorithm 2.
    """
    program = net.program(loader.batch_size, training=True, keep=False)
    gathering = [node for node in program.nodes if node.op.calibrates]
    if not gathering:
        return False
    for node in gathering:
        for name in node.op.calibrates:
            if f"{node.path}.{name}" in net.state:
                net.state[f"{node.path}.{name}"][...] = 0
    for number, (x, _) in enumerate(loader.evaluate("train"), start=1):
        bound = net.program(x.shape[0], training=True, keep=False)
        try:
            for binding in bound.bindings:
                binding.t.calibrating = number
            bound.forward(net.adopt_input(x), net.call_number)
        finally:
            for binding in bound.bindings:
                binding.t.calibrating = 0
    net.forget()
    return True


def predict(net: Network, x: np.ndarray) -> np.ndarray:
    """The network's outputs (N, ...) on the host, in inference mode."""
    return np.array(net.device.to_host(net.forward(x)))
