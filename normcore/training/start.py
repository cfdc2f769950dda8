"""Starting from another run's weights: what fits is taken, the rest keeps its own start; freezing and rates."""

import pathlib
from collections.abc import Mapping
from typing import Any

from normcore.errors import DataError
from normcore.network import Network
from normcore.training import checkpoint as checkpoints
from normcore.training.observer import Observer
from normcore.training.run_folder import RunFolder


def start_from(net: Network, settings: Any, observer: Observer) -> dict[str, float]:
    """Load the best checkpoint of settings.run into the network; returns pattern -> learning-rate factor.

    Arrays that this network lacks, or has in another shape (a new head), are left out and noted with their shapes.
    Raises DataError when nothing fits.
    """
    run = RunFolder.open(pathlib.Path(settings.run))
    found = checkpoints.best(run.checkpoints)
    theirs = {k: a for k, a in found.arrays.items() if "/" not in k}  # without the optimizer's slots
    own = net.store.everything()
    fitting = {k: a for k, a in theirs.items() if k in own and tuple(own[k].shape) == tuple(a.shape)}
    unfit = "".join(f"\n  {line}" for line in mismatches(theirs, own))
    if not fitting:
        raise DataError(f"start_from: no array of {found.path} has a name and shape of this network:{unfit}")
    for name, array in fitting.items():
        own[name][...] = net.device.array(array, str(own[name].dtype))
    if unfit:
        observer.note(
            f"start_from: {len(fitting)} of this network's {len(own)} arrays are from {found.path}; what does not fit "
            f"(arrays that are here start anew):{unfit}"
        )
    return {**{pattern: 0.0 for pattern in settings.freeze}, **settings.lr_multipliers}


def mismatches(theirs: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """One line for each array that only one side has or that differs in shape: the network's own in order, then what
    the file has besides."""
    lines = []
    for name, array in own.items():
        shape = tuple(array.shape)
        if name not in theirs:
            lines.append(f"{name}: {shape} here, not in the file")
        elif tuple(theirs[name].shape) != shape:
            lines.append(f"{name}: {shape} here, {tuple(theirs[name].shape)} in the file")
    return lines + [f"{k}: {tuple(a.shape)} in the file, not here" for k, a in theirs.items() if k not in own]
