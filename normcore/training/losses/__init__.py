"""Losses: the mean over a batch and its gradient to the network's output, in one kernel."""

from normcore.training.losses.base import Loss
from normcore.training.losses.cross_entropy import CrossEntropy
from normcore.training.losses.hinge import Hinge
from normcore.training.losses.pointwise import BinaryCrossEntropy, Huber, MeanAbsoluteError, MeanSquaredError

BUILT_IN = (BinaryCrossEntropy, CrossEntropy, Hinge, Huber, MeanAbsoluteError, MeanSquaredError)

__all__ = ["BUILT_IN", "Loss"]
