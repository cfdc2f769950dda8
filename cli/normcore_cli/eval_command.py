"""`normcore eval RUN`: what a run's best checkpoint gets right, in all and class by class."""

from typing import TYPE_CHECKING, Any

import click

from normcore_cli import options

if TYPE_CHECKING:
    from normcore.training.scores import Scores

MOST = 20  # classes whose confusion matrix is printed whole
WORST = 10  # classes that are listed of more than that


@click.command("eval")
@click.argument("run")
@options.configuration
@options.device
@click.option(
    "--ten-crop",
    is_flag=True,
    help="Average over ten views of each image: four corners and the middle, and their mirror images.",
)
@options.as_json
def command(
    run: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    ten_crop: bool,
    as_json: bool,
) -> None:
    """Measure the best checkpoint of RUN on the test data, normalized as in training.

    For classifiers: top-1 and top-5 accuracy, the confusion matrix, each class by itself (--json always has all of
    it). With --set data.path=FILE on other data. --ten-crop is for runs whose training cropped, or for larger images.
    """
    from normcore.data import ten_crop as ten_crops
    from normcore.errors import UsageError
    from normcore.training import evaluation
    from normcore.training.data_checks import check_samples
    from normcore.training.run_folder import RunFolder
    from normcore.training.scores import Scores
    from normcore_cli import run_data
    from normcore_cli.trained import open_run

    opened = RunFolder.open(run)
    # Runs of a Python program have none; then the data say what the network takes.
    data = run_data.read(opened) if (opened.path / run_data.FILE).exists() else None
    shape = data.input if data is not None else None
    folder, net, checkpoint = open_run(run, overrides, plugins, allow_plugins, device, shape)
    loader = net.loader(folder.read_preprocessing())
    loss = net.config.loss
    classes = check_samples(net, loss, loader, cut=ten_crop)
    made: list[Any] = []
    if ten_crop:
        if classes is None:
            raise UsageError(f"--ten-crop averages class probabilities; the loss {loss.name} has no classes")
        made = ten_crops.views(loader.transforms, loader.dataset.shape, net.sample_shape)
    found: dict[str, Any] = {
        "run": str(folder.path),
        "checkpoint": str(checkpoint.path),
        "epoch": checkpoint.numbers.get("epoch"),
        "views": len(made) or 1,
        "samples": loader.size("test"),
    }
    names = loader.dataset.class_names or (data.class_names if data is not None else None)
    lines = []
    scores = None
    for part in ("validation", "test"):
        if not loader.size(part):
            continue
        scores = Scores(classes, getattr(loss, "ignore_index", None)) if classes is not None else None
        totals = None
        if made and scores is not None:
            evaluation.evaluate_views(net, loader, part, made, scores)
        else:
            totals = evaluation.evaluate(net, loss, loader, part, scores)
        accuracy = scores.accuracy if scores else totals.accuracy if totals and loss.counts_correct else None
        found[f"{part}_loss"] = totals.loss if totals is not None else None
        found[f"{part}_accuracy"] = accuracy
        if scores is not None:
            found[f"{part}_top5_accuracy"] = scores.top5
            found[f"{part}_confusion"] = scores.confusion.tolist()
            found[f"{part}_classes"] = scores.per_class(names)
        said = [f"accuracy {accuracy:.4f}"] if accuracy is not None else []
        said += [f"top-5 {scores.top5:.4f}"] if scores is not None and scores.top5 is not None else []
        said += [f"loss {totals.loss:.4f}"] if totals is not None else [f"{len(made)} views of each image"]
        lines.append(f"{part}: {', '.join(said)} ({loader.size(part):,} samples)")
    if as_json:
        options.print_json(found)
        return
    click.echo(f"{checkpoint.path} (epoch {found['epoch']})")
    click.echo("\n".join(lines))
    if scores is not None and scores.samples:
        click.echo()
        click.echo(_matrix(scores, names) if scores.classes <= MOST else _worst(scores, names))


def _title(row: dict[str, Any]) -> str:
    """`3` or `3 cat`."""
    return f"{row['class']}" if row["name"] is None else f"{row['class']} {row['name']}"


def _matrix(scores: "Scores", names: Any) -> str:
    """A row for each true class: its accuracy, and how often it was taken for which class (`.` for never)."""
    from normcore_cli.table import table

    rows = []
    for row in scores.per_class(names):
        answers = [str(n) if n else "." for n in scores.confusion[row["class"]].tolist()]
        rows.append((_title(row), row["samples"], _share(row["accuracy"]), *answers))
    headers = ("class", "samples", "accuracy", *map(str, range(scores.classes)))
    return "rows: true classes, columns: answers\n" + table(headers, rows, right=range(1, len(headers)))


def _worst(scores: "Scores", names: Any) -> str:
    """The classes that are recognized worst."""
    from normcore_cli.table import table

    rows = scores.per_class(names)
    seen = sorted((r for r in rows if r["samples"]), key=lambda r: (r["accuracy"], -r["samples"], r["class"]))
    cells = []
    for row in seen[:WORST]:
        other = row["mostly_taken_for"]
        taken = (
            "" if other is None else f"{_title(rows[other])} ({scores.confusion[row['class'], other]} times)"
        )
        cells.append((_title(row), row["samples"], _share(row["accuracy"]), taken))
    rest = f"; --json has all {scores.classes} and the confusion matrix"
    return f"the {len(cells)} worst classes{rest}\n" + table(
        ("class", "samples", "accuracy", "mostly taken for"), cells, right=(1, 2)
    )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
