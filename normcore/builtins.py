"""The core's own components, registered through the same entry-point group as any plugin's."""

from collections.abc import Sequence
from typing import Any

from normcore.hookspecs import hookimpl


@hookimpl
def normcore_initializers() -> Sequence[Any]:
    from normcore.initializers import BUILT_IN

    return BUILT_IN


@hookimpl
def normcore_losses() -> Sequence[Any]:
    from normcore.training.losses import BUILT_IN

    return BUILT_IN


@hookimpl
def normcore_optimizers() -> Sequence[Any]:
    from normcore.training.optimizers import BUILT_IN

    return BUILT_IN


@hookimpl
def normcore_schedules() -> Sequence[Any]:
    from normcore.training.schedules import BUILT_IN

    return BUILT_IN


@hookimpl
def normcore_datasets() -> Sequence[Any]:
    from normcore.data.sources import SOURCES

    return list(SOURCES.values())
