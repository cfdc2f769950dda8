"""`normcore plot RUN... --out FILE`: the learning curves of runs, loss and accuracy over the epochs."""

from collections.abc import Sequence
from typing import Any

import click

from normcore_cli import options

COLORS = ("#1f5fa8", "#d1701f", "#2e8b57", "#b03060", "#6a5acd", "#7a6a00", "#008b8b", "#555555")
MANY = 12  # runs that a legend inside the picture has room for

Metrics = list[dict[str, Any]]


@click.command("plot")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--out", required=True, metavar="FILE", help="The picture to write: .png or .svg.")
@options.debug
def command(runs: tuple[str, ...], out: str) -> None:
    """Draw loss and accuracy over the epochs of each RUN into one picture.

    Solid lines are the test data (the validation data of runs that set some aside), dashed ones the training; a dot
    marks the best epoch. Runs may still be training.
    """
    from normcore.errors import DataError
    from normcore.training.run_folder import RunFolder
    from normcore_cli import drawing

    target = drawing.target("--out", out)
    found: list[tuple[str, Metrics]] = []
    for run in runs:
        metrics = RunFolder.open(run).read_metrics()
        if not metrics:
            raise DataError(f"{run}: no epoch is finished yet, so there is nothing to draw")
        found.append((run, metrics))
    figure = drawing.figure("plot", 6.4, 4.4)
    scored = any(_values(metrics, "accuracy", _part(metrics))[1] for _, metrics in found)
    if scored:
        figure.set_size_inches(11.0, 4.4)
    panels = figure.subplots(1, 2 if scored else 1, squeeze=False)[0]
    _draw(panels[0], found, "loss")
    if scored:
        _draw(panels[1], found, "accuracy")
    several = len(found) > 1
    if several:
        panels[-1].plot([], [], color="0.4", linestyle="--", linewidth=1.2, label="training")
    figure.suptitle(f"{len(found)} runs" if several else _name(found[0][0]))
    if several and len(found) <= MANY:
        panels[-1].legend(fontsize=8, frameon=False, loc="best")
    elif several:
        figure.legend(*panels[-1].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    else:
        panels[-1].legend(frameon=False, loc="best")
    drawing.save("plot", figure, target)
    epochs = sum(len(metrics) for _, metrics in found)
    click.echo(f"{target}: {', '.join(runs)}, {epochs} epochs")


def _name(run: str) -> str:
    import pathlib

    return pathlib.Path(run).resolve().name


def _part(metrics: Metrics) -> str:
    """Which data a run is judged by."""
    return "validation" if "validation_loss" in metrics[0] else "test"


def _values(metrics: Metrics, what: str, part: str) -> tuple[Sequence[int], Sequence[float]]:
    pairs = [
        (m["epoch"], m[f"{part}_{what}"]) for m in metrics if isinstance(m.get(f"{part}_{what}"), int | float)
    ]
    return [epoch for epoch, _ in pairs], [value for _, value in pairs]


def _draw(axes: Any, found: Sequence[tuple[str, Metrics]], what: str) -> None:
    several = len(found) > 1
    for number, (run, metrics) in enumerate(found):
        color, part = COLORS[number % len(COLORS)], _part(metrics)
        lone = "o" if len(metrics) == 1 else None  # one epoch makes no line
        axes.plot(
            *_values(metrics, what, "train"),
            color=color,
            linestyle="--",
            linewidth=1.2,
            marker=lone,
            alpha=0.75,
            label=None if several else "training",
        )
        epochs, values = _values(metrics, what, part)
        axes.plot(
            epochs,
            values,
            color=color,
            linewidth=1.8,
            marker=lone,
            label=run if several else part,
        )
        if len(values) > 1:
            best = values.index((max if what == "accuracy" else min)(values))
            axes.plot([epochs[best]], [values[best]], "o", color=color, markersize=5)
    axes.set(xlabel="epoch", ylabel=what)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.grid(color="#dddddd", linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
