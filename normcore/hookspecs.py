"""The hooks a plugin may implement. Return data; never depend on the order of calls.

An implementation is a function marked `@normcore.hookimpl` and named like the hook; it may take fewer arguments.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pluggy

PROJECT = "normcore"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def normcore_ops() -> Sequence[Any]:
    """The ops this plugin brings: classes made by `normcore.elementwise` or derived from `normcore.Op`."""


@hookspec
def normcore_datasets() -> Sequence[Any]:
    """Data sources: classes derived from `normcore.DataSource`, named by their `name`."""


@hookspec
def normcore_losses() -> Sequence[Any]:
    """Losses: classes derived from `normcore.Loss`."""


@hookspec
def normcore_optimizers() -> Sequence[Any]:
    """Optimizers: classes derived from `normcore.Optimizer`."""


@hookspec
def normcore_schedules() -> Sequence[Any]:
    """Learning-rate schedules: classes derived from `normcore.Schedule`."""


@hookspec
def normcore_initializers() -> Sequence[Any]:
    """Initializers: classes derived from `normcore.Initializer`."""


@hookspec
def normcore_train_begin(trainer: Any) -> None:
    """Called once before the first step of `Trainer.fit`."""


@hookspec
def normcore_step_end(trainer: Any, step: int, loss: float) -> None:
    """Called after each training step; step counts from 1 over the whole run, loss is the batch mean."""


@hookspec
def normcore_epoch_end(trainer: Any, epoch: int, metrics: Mapping[str, float]) -> None:
    """Called after each epoch's evaluation with the line that goes to metrics.jsonl."""


@hookspec
def normcore_train_end(trainer: Any, metrics: Mapping[str, float]) -> None:
    """Called once after the last epoch with its metrics."""
