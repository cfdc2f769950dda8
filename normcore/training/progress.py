"""Where a training stands, as a checkpoint holds it: written after an epoch or an interruption, and gone on from."""

from typing import TYPE_CHECKING, Any

from normcore.errors import UsageError
from normcore.training import checkpoint as checkpoints
from normcore.training.evaluation import Totals

if TYPE_CHECKING:
    from normcore.training.loop import Trainer


def write_checkpoint(trainer: "Trainer", best: bool) -> Any:
    """Parameters, state, the optimizer's slots and all counters; the same as the best one too, if it is. Its path."""
    assert trainer.run is not None
    to_host = trainer.net.device.to_host
    arrays = {
        k: to_host(v) for k, v in {**trainer.net.store.everything(), **trainer.optimizer.arrays()}.items()
    }
    numbers = {
        "epoch": trainer.epoch,
        "batch": trainer.batch,
        "step": trainer.steps_done,
        "call_number": trainer.net.call_number,
        "optimizer_steps": trainer.optimizer.steps,
        "schedule": trainer.schedule_state,
        "best": trainer.best,
        "best_epoch": trainer.best_epoch,
        "totals": trainer.totals.numbers(),
        "seconds": trainer.seconds,
        "metrics": trainer.metrics,
    }
    folder = trainer.run.checkpoints
    name = f"epoch-{trainer.epoch:04d}-{trainer.batch:06d}"
    path = checkpoints.write(folder, name, arrays, numbers, also="best" if best else None)
    checkpoints.prune(folder)
    return path


def go_on(trainer: "Trainer") -> bool:
    """Continue bit for bit from the newest good checkpoint; False, and said so, when there is none.

    Raises UsageError for another optimizer's checkpoint, DataError for another network's.
    """
    run, net = trainer.run, trainer.net
    assert run is not None
    found = checkpoints.newest_good(run.checkpoints, trainer.observer.note)
    if found is None:
        trainer.observer.note(f"{run.path}: no usable checkpoint; training starts from the beginning")
        run.cut_metrics(0)
        return False
    slots = trainer.optimizer.arrays()
    missing = [name for name in slots if name not in found.arrays]
    if missing:
        raise UsageError(
            f"{found.path}: has no {missing[0]!r}; the optimizer was another one, start a new run"
        )
    net.assign({k: a for k, a in found.arrays.items() if k not in slots}, str(found.path))
    for name, array in slots.items():
        array[...] = net.device.array(found.arrays[name], str(array.dtype))
    numbers = found.numbers
    trainer.epoch, trainer.batch, trainer.steps_done = numbers["epoch"], numbers["batch"], numbers["step"]
    net.call_number, trainer.optimizer.steps = numbers["call_number"], numbers["optimizer_steps"]
    trainer.schedule_state, trainer.best = dict(numbers["schedule"]), numbers["best"]
    trainer.best_epoch = numbers["best_epoch"]
    trainer.totals, trainer.seconds = Totals(*numbers["totals"]), numbers["seconds"]
    trainer.metrics = numbers["metrics"]
    run.cut_metrics(trainer.epoch)
    return True
