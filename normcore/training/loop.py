"""The training loop: one step, a whole fit with evaluation and checkpoints, and going on from one."""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from normcore.errors import DataError, NumbersError
from normcore.kernels import kernel as kernel_module
from normcore.network import Network
from normcore.registry import default
from normcore.sequences import Sequences
from normcore.training.compile_ahead import Helper
from normcore.training.data_checks import batch_sizes, check
from normcore.training.evaluation import Totals, evaluate, recalibrate
from normcore.training.interruption import Interrupted, interruptible
from normcore.training.observer import Observer, Progress
from normcore.training.optimizer_binding import OptimizerBinding
from normcore.training.progress import go_on, write_checkpoint
from normcore.training.run_folder import RunFolder
from normcore.training.start import start_from
from normcore.training.warm_up import warm_up


class Trainer:
    """Trains a network.

    net: the Network. loss, optimizer, schedule: mappings as in YAML ({"sgd": {"lr": 0.1}}) or components; by
    default those of the network's configuration. run: the RunFolder that metrics and checkpoints go to, or None.
    loader: batches; by default those of the configuration's `data:` section, opened at the first fit.
    """

    def __init__(
        self,
        net: Network,
        loss: Any = None,
        optimizer: Any = None,
        schedule: Any = None,
        *,
        loader: Any = None,
        run: RunFolder | None = None,
        observer: Observer | None = None,
    ):
        config = net.config
        self.net, self.config, self.run, self.loader = net, config, run, loader
        self.observer = observer or Observer()
        self.loss = component("loss", loss) or config.loss
        self.schedule = component("schedule", schedule) or config.schedule
        multipliers = (
            start_from(net, config.start_from, self.observer) if config.start_from is not None else {}
        )
        self.optimizer = OptimizerBinding(
            component("optimizer", optimizer) or config.optimizer,
            net.store,
            net.device,
            multipliers,
            config.train.clip_grad_norm,
            config.train.clip_grad_value,
            config.train.accumulate,
        )
        self.epochs: int = config.train.epochs
        self.epoch = 0  # finished epochs
        self.batch = 0  # finished steps of the epoch under way
        self.steps_done = 0
        self.last_rate = 0.0  # of the last step
        self.schedule_state: dict[str, Any] = {}
        self.best: float | None = None
        self.best_epoch = 0
        self.metrics: dict[str, Any] = {}
        self.totals = Totals()
        self.seconds = 0.0  # of the epoch under way, before an interruption
        self._stop = False
        self._losses: dict[int, Any] = {}

    # -- one step ---------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        steps = self.loader.steps if self.loader is not None else 1
        moment = self.epoch + self.batch / steps
        factor = self.schedule.rate(moment, self.epochs, self.schedule_state, 1.0 / steps)
        return float(self.optimizer.optimizer.lr * factor)

    def step(self, x: Any, targets: Any) -> float:
        """One training step on a batch; returns the batch's mean loss, and waits for it.

        With train.accumulate above 1, the parameters change at every so many-th step.
        Raises ShapeError and DataError for a batch that does not fit, NumbersError when the loss is not finite.
        """
        total, count, _ = self._step(x, targets)
        return total / count if count else math.nan

    def _step(self, x: Any, targets: Any) -> tuple[float, float, float]:
        net = self.net
        x = net.adopt_input(x)
        program = net.program(x.shape[0], training=True, keep=False)
        loss = self._loss_of(program)
        loss.set_targets(targets)
        program.forward(x, net.call_number)
        net.call_number += 1
        net.forget()  # the arrays of an earlier net.loss are gone: they share this program's memory
        loss.run()
        total, correct, count = loss.totals()
        if not math.isfinite(total):
            self._check_input(x)
            raise NumbersError(
                f"the loss is {total / count if count else total} at step {self.steps_done + 1}; lower the learning rate "
                f"({self.learning_rate:.3g} now), add train.clip_grad_norm, or check the data"
            )
        program.backward()
        self.last_rate = self.learning_rate
        if self.optimizer.gather(count) or self._ends_epoch():
            self.optimizer.step(self.last_rate)
        self.steps_done += 1
        return total, count, correct

    def _check_input(self, x: Any) -> None:
        """Raises DataError when it is the batch that holds NaN or infinity."""
        values = x.x if isinstance(x, Sequences) else x
        finite = np.isfinite(self.net.device.to_host(values)).reshape(len(values), -1).all(1)
        if not finite.all():
            raise DataError(
                f"the samples of step {self.steps_done + 1} hold NaN or infinity ({int((~finite).sum())} of "
                f"{len(finite)} do); correct the data, or check data.normalize"
            )

    def _ends_epoch(self) -> bool:
        """Whether the step under way is an epoch's last: gathered gradients do not wait for the next one."""
        return self.loader is not None and self.batch + 1 == self.loader.steps

    def _loss_of(self, program: Any) -> Any:
        return self.net.loss_of(program, self.loss)

    # -- a whole training -------------------------------------------------------------------------------------

    def prepare(self, backwards: bool = False) -> None:
        """Open the data, check that they fit the network, and load or compile every kernel a fit needs.

        backwards: last kernel first, as the helper process does that shares the compiling (compile_ahead.py).
        Raises DataError, and ShapeError for a last batch too small for batch statistics.
        """
        if self.loader is None:
            self.loader = self.net.loader()
        mixes = check(self.net, self.loss, self.loader)
        before = kernel_module.statistics
        # Only CPU kernels are kept on disk, where the two processes meet.
        alone = backwards or self.net.device.name != "cpu"
        helper = None if alone else Helper(self.config, self.net.dtype, plugin_files())
        warm_up(
            self.net,
            self.loss,
            self.optimizer,
            batch_sizes(self.loader),
            self.observer,
            helper,
            backwards,
            mixes,
        )
        after = kernel_module.statistics
        self.observer.prepared(after.compiled - before.compiled, after.seconds - before.seconds)

    def fit(self, epochs: int | None = None) -> dict[str, Any]:
        """Train until `epochs` (by default the configuration's) are done; returns the last epoch's metrics.

        After Ctrl-C the step is finished, a checkpoint written, and Interrupted raised.
        """
        if epochs is not None:
            self.epochs = epochs
        self.prepare()
        self.observer.begin(self)
        self._hook("normcore_train_begin", trainer=self)
        self._stop = False
        with interruptible(self._ask_to_stop):
            while self.epoch < self.epochs and not self._waited_long():
                self._run_epoch()
        if self.config.train.population_statistics == "exact" and self.metrics:
            self._exact_statistics()
        self._hook("normcore_train_end", trainer=self, metrics=self.metrics)
        self.observer.end(self.metrics)
        return self.metrics

    def _waited_long(self) -> bool:
        """Whether train.patience is at its end."""
        patience = self.config.train.patience
        if patience is None or self.epoch - self.best_epoch < patience:
            return False
        self.observer.note(
            f"stopped after epoch {self.epoch}: nothing better since epoch {self.best_epoch} (train.patience {patience})"
        )
        return True

    def _run_epoch(self) -> None:
        started = time.perf_counter() - self.seconds
        steps = self.loader.steps
        begun_at = self.batch
        run_started = time.perf_counter()
        images = 0
        for x, targets in self.loader.epoch(self.epoch, start=self.batch):
            total, count, correct = self._step(x, targets)
            self.totals.add(total, count, correct)
            self.batch += 1
            images += len(x)
            rate = images / max(time.perf_counter() - run_started, 1e-9)
            self._hook(
                "normcore_step_end",
                trainer=self,
                step=self.steps_done,
                loss=total / count if count else math.nan,
            )
            self.observer.step(
                self._progress(rate, (self.batch - begun_at) / max(time.perf_counter() - run_started, 1e-9))
            )
            if self._stop and self.batch < steps and self.optimizer.gathered == 0:
                self.seconds = time.perf_counter() - started
                self._interrupt()
        self._end_epoch(time.perf_counter() - started, images / max(time.perf_counter() - run_started, 1e-9))
        if self._stop and self.epoch < self.epochs:
            self._interrupt()

    def _progress(self, rate: float, steps_per_second: float) -> Progress:
        steps = self.loader.steps
        left = (self.epochs - self.epoch) * steps - self.batch
        return Progress(
            self.epoch + 1,
            self.epochs,
            self.batch,
            steps,
            rate,
            self.totals.loss,
            self.totals.accuracy if self.loss.counts_correct else None,
            left / steps_per_second,
        )

    def _end_epoch(self, training_seconds: float, rate: float) -> None:
        evaluation_started = time.perf_counter()
        self.epoch += 1
        self.batch = 0
        metrics: dict[str, Any] = {
            "epoch": self.epoch,
            "step": self.steps_done,
            "train_loss": self.totals.loss,
        }
        metrics["train_accuracy"] = self.totals.accuracy if self.loss.counts_correct else None
        for part in ("validation", "test"):
            if self.loader.size(part):
                found = self.evaluate(part)
                metrics[f"{part}_loss"] = found.loss
                metrics[f"{part}_accuracy"] = found.accuracy if self.loss.counts_correct else None
        metrics["learning_rate"] = self.last_rate
        metrics["seconds"] = round(training_seconds + time.perf_counter() - evaluation_started, 3)
        metrics["images_per_second"] = round(rate, 1)
        self.totals, self.seconds = Totals(), 0.0
        self.metrics = metrics
        self.schedule.observe(metrics, self.schedule_state)
        best = self._is_best(metrics)
        if self.run is not None:
            # Metrics before the checkpoint: a resume cuts lines that its checkpoint does not know.
            self.run.append_metrics(metrics)
            self.save(best)
        self._hook("normcore_epoch_end", trainer=self, epoch=self.epoch, metrics=metrics)
        self.observer.epoch(metrics, best)

    def evaluate(self, part: str = "test") -> Totals:
        """Loss and accuracy over a part of the data, in inference mode."""
        return evaluate(self.net, self.loss, self.loader, part)

    def _is_best(self, metrics: Mapping[str, Any]) -> bool:
        part = "validation" if "validation_loss" in metrics else "test" if "test_loss" in metrics else "train"
        accuracy = metrics.get(f"{part}_accuracy")
        score = accuracy if accuracy is not None else -metrics[f"{part}_loss"]
        if self.best is None or score > self.best:
            self.best, self.best_epoch = score, self.epoch
            return True
        return False

    def _exact_statistics(self) -> None:
        """Replace moving averages by population statistics (Ioffe and Szegedy 2015, Algorithm 2, lines 7 to 12)."""
        if recalibrate(self.net, self.loader):
            found = self.evaluate()
            self.metrics = {**self.metrics, "test_loss": found.loss, "test_accuracy": found.accuracy}
            self.observer.note(
                f"with population statistics: test accuracy {found.accuracy:.4f}, test loss {found.loss:.4f}"
            )
            if self.run is not None:
                self.save(best=True)

    # -- checkpoints ------------------------------------------------------------------------------------------

    def save(self, best: bool = False) -> Any:
        """Write a checkpoint to the run folder (and the best one besides); returns its path."""
        return write_checkpoint(self, best)

    def resume(self) -> bool:
        """Go on from the run folder's newest good checkpoint; False (and said so) when there is none."""
        return go_on(self)

    def _interrupt(self) -> None:
        raise Interrupted(self.save() if self.run is not None else None)

    def _ask_to_stop(self) -> bool:
        """Ctrl-C: stop after the step under way; False when that was asked before."""
        before, self._stop = self._stop, True
        return not before

    def _hook(self, name: str, **arguments: Any) -> None:
        for _ in default().call(name, **arguments):
            pass


def plugin_files() -> tuple[str, ...]:
    """Plugins that were loaded from files: another process must load them as well."""
    return tuple(p.origin for p in default().plugins if p.digest and not p.error)


def component(kind: str, given: Any) -> Any:
    """A component from itself, its name, or a mapping {name: parameters} as in YAML; None stays None."""
    if given is None or not isinstance(given, str | Mapping):
        return given
    name, values = (given, {}) if isinstance(given, str) else next(iter(given.items()))
    cls = default().get(kind, name).component
    if not isinstance(values, Mapping):
        values = {cls.parameters()[0].name: values}
    return cls.make(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


__all__ = ["Interrupted", "Trainer"]
