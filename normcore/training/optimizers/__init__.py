"""Optimizers, one file each: a scalar rule and its constants (base.py says how)."""

from normcore.training.optimizers.adagrad import Adagrad
from normcore.training.optimizers.adam import Adam, AdamW
from normcore.training.optimizers.base import CHUNK, Optimizer
from normcore.training.optimizers.rmsprop import RmsProp
from normcore.training.optimizers.sgd import Sgd

BUILT_IN = (Adagrad, Adam, AdamW, RmsProp, Sgd)

__all__ = ["BUILT_IN", "CHUNK", "Adagrad", "Adam", "AdamW", "Optimizer", "RmsProp", "Sgd"]
