"""What the user sees while a network trains: a live display in a terminal, plain lines elsewhere."""

import os
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from normcore.training.observer import Observer, Progress
from normcore_cli.table import counted, duration

LINES = 2.0  # seconds between lines about compiling, where no terminal redraws them
STEPS = 15.0  # the same between lines about steps
REDRAW = 0.1


def display(stream: TextIO | None = None) -> "PlainDisplay":
    """The display that suits the stream (standard output)."""
    stream = stream or sys.stdout
    if stream.isatty() and os.environ.get("TERM") != "dumb":
        return LiveDisplay(stream)
    return PlainDisplay(stream)


class PlainDisplay(Observer):
    """Lines: kernels compiling, now and then a step, every epoch, notes. began: whether a first step was
    near."""

    def __init__(self, stream: TextIO | None = None):
        self.stream = stream or sys.stdout
        self.began = False
        self.compiled = 0
        self.compile_seconds = 0.0
        self._last = time.perf_counter()
        self._compiling = -LINES  # the first kernel is announced at once: it may take long
        self._epochs = 0

    def line(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def preparing(self, number: int, total: int, label: str) -> None:
        now = time.perf_counter()
        if now - self._compiling >= LINES:
            self._compiling = now
            self.line(f"compiling kernel {number} of {total} ({label})")

    def prepared(self, compiled: int, seconds: float) -> None:
        self.compiled, self.compile_seconds = compiled, seconds
        if compiled:
            from normcore.kernels import store

            kept = "; the next run finds them in the cache" if store.folder() is not None else ""
            self.line(f"compiled {counted(compiled, 'kernel')} in {seconds:.1f} s{kept}")

    def begin(self, trainer: Any) -> None:
        self.began = True
        if trainer.run is not None:  # not earlier: where data or memory do not fit, the folder goes again
            self.line(f"run {trainer.run.path}")
        self._last = time.perf_counter()

    def step(self, progress: Progress) -> None:
        now = time.perf_counter()
        if now - self._last >= STEPS:
            self._last = now
            self.line(f"epoch {progress.epoch}/{progress.epochs}  {step_text(progress)}")
        self._epochs = progress.epochs

    def epoch(self, metrics: Mapping[str, Any], best: bool) -> None:
        self._last = time.perf_counter()
        self.line(epoch_text(metrics, self._epochs, best))

    def note(self, message: str) -> None:
        self.line(message)

    def end(self, metrics: Mapping[str, Any]) -> None:
        self.close()

    def close(self) -> None:
        """Nothing more is coming."""


class LiveDisplay(PlainDisplay):
    """One bar that is redrawn, with finished epochs above it."""

    def __init__(self, stream: TextIO):
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        super().__init__(stream)
        self.console = Console(file=stream, highlight=False, soft_wrap=True)
        # Not refreshed by a thread of its own: that would compete with the kernels.
        columns = (TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[text]}"))
        self.bar = Bar(*columns, console=self.console, auto_refresh=False, transient=True)
        self.task: Any = None
        self._drawn = 0.0

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)

    def draw(self, description: str, done: int, total: int, text: str) -> None:
        now = time.perf_counter()
        if now - self._drawn < REDRAW and done < total:
            return
        self._drawn = now
        if self.task is None:
            self.bar.start()
            self.task = self.bar.add_task(description, total=total, text=text)
        self.bar.update(self.task, description=description, completed=done, total=total, text=text)
        self.bar.refresh()

    def preparing(self, number: int, total: int, label: str) -> None:
        self.draw(f"compiling kernel {number} of {total}", number, total, label)

    def step(self, progress: Progress) -> None:
        self._epochs = progress.epochs
        self.draw(
            f"epoch {progress.epoch}/{progress.epochs}", progress.step, progress.steps, step_text(progress)
        )

    def close(self) -> None:
        self.bar.stop()


def step_text(progress: Progress) -> str:
    parts = [f"step {progress.step}/{progress.steps}", f"{progress.images_per_second:,.0f} images/s"]
    parts.append(f"loss {progress.loss:.4f}")
    if progress.accuracy is not None:
        parts.append(f"accuracy {progress.accuracy:.4f}")
    parts.append(f"{duration(progress.seconds_left)} left")
    return "  ".join(parts)


def epoch_text(metrics: Mapping[str, Any], epochs: int, best: bool) -> str:
    """One line of metrics.jsonl for people."""
    parts = [f"epoch {metrics['epoch']}/{max(epochs, metrics['epoch'])}"]
    for key, name in (("train_loss", "loss"), ("train_accuracy", "accuracy")):
        if metrics.get(key) is not None:
            parts.append(f"{name} {metrics[key]:.4f}")
    for part in ("validation", "test"):
        for what in ("loss", "accuracy"):
            value = metrics.get(f"{part}_{what}")
            if value is not None:
                parts.append(f"{part} {what} {value:.4f}")
    parts += [f"{metrics['images_per_second']:,.0f} images/s", f"{metrics['seconds']:.1f} s"]
    return "  ".join(parts) + ("  best" if best else "")
