"""`normcore predict RUN INPUT...`: what a run's best checkpoint says to images and arrays."""

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normcore_cli import options

if TYPE_CHECKING:
    import numpy as np

    from normcore_cli.run_data import RunData

BATCH = 32  # files at most that go through the net together

Sample = tuple[str, "np.ndarray", int]  # file, array, steps of a sequence


@click.command("predict")
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@options.configuration
@options.device
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes to name."
)
@options.as_json
def command(
    run: str,
    inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    top: int,
    as_json: bool,
) -> int:
    """Classify images (PNG, JPEG ...) or arrays (.npy, one sample each) by RUN's best checkpoint.

    An INPUT is a file or a folder, which is searched with all folders in it; what is no image there is named and
    skipped. An INPUT that cannot be used is named, the others are answered, and the status is 1. An image is brought
    to the size and channels that the network takes, and normalized as in training. A sequence is a .npy of (steps,
    features), with as many steps as the training's or fewer.
    """
    import numpy as np

    from normcore.training.run_folder import RunFolder
    from normcore_cli import run_data
    from normcore_cli.trained import open_run

    folder = RunFolder.open(run)
    data = run_data.read(folder)
    unusable: list[str] = []
    # Before the net is built: an input that cannot be used is said at once.
    batches = _batches(_samples(inputs, data, unusable))
    first = next(batches, None)
    if first is None:
        return 1
    folder, net, _ = open_run(run, overrides, plugins, allow_plugins, device, data.input)
    transforms = net.config.data.transforms().restore(folder.read_preprocessing())
    found = []
    for batch in itertools.chain([first], batches):
        stacked = np.stack([array for _, array, _ in batch])
        lengths = np.array([steps for *_, steps in batch], np.int64) if data.lengths else None
        outputs = np.array(net.device.to_host(net.forward(transforms.apply(stacked, net.dtype, lengths))))
        for (file, *_), output in zip(batch, outputs, strict=True):
            row = {"file": file, **_answer(net, output, data, top)}
            found.append(row)
            if not as_json:
                click.echo(f"{file}: {_sentence(row)}")
    if as_json:
        options.print_json(found)
    return 1 if unusable else 0


def _samples(inputs: Sequence[str], data: "RunData", unusable: list[str]) -> Iterator[Sample]:
    """Every file's sample in order; folders by sorted path. An input that cannot be used is named and joins `unusable`;
    raises DataError where it is the only one."""
    from normcore.errors import DataError

    for given in inputs:
        try:
            yield from _samples_of(given, data)
        except DataError as fault:
            if len(inputs) == 1:
                raise
            unusable.append(given)
            click.echo(f"error: {fault}", err=True)


def _samples_of(given: str, data: "RunData") -> Iterator[Sample]:
    """Of one file or folder. Raises DataError for a bad file, and for a folder without any good one."""
    from normcore.data.image_file import read_image, read_sequence
    from normcore.errors import DataError

    def read(file: str) -> Sample:
        if data.lengths:
            return file, *read_sequence(file, data.sample)
        sample = read_image(file, data.sample[0], data.sample[1:])
        if tuple(sample.shape) != data.sample:
            raise DataError(
                f"{file}: has shape {tuple(sample.shape)}, the network takes {data.sample} (channels first)"
            )
        return file, sample, 0

    if not Path(given).exists():
        raise DataError(f"{given}: there is no such file or folder")
    if not Path(given).is_dir():
        yield read(given)
        return
    good = bad = 0
    for file in _files(given):
        try:
            sample = read(file)
        except DataError as fault:
            bad += 1
            click.echo(f"warning: skipped: {fault}", err=True)
            continue
        good += 1
        yield sample
    if not good:
        held = f"none of its {bad} files can be used" if bad else "it is empty"
        raise DataError(f"{given}: expected a folder with images (PNG, JPEG) or arrays (.npy); {held}")


def _files(folder: str) -> Iterator[str]:
    """All files below a folder, sorted, without hidden ones."""
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (os.path.join(root, name) for name in sorted(files) if not name.startswith("."))


def _batches(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    """Up to BATCH samples of one dtype at a time."""
    for _, alike in itertools.groupby(samples, key=lambda sample: sample[1].dtype):
        while batch := list(itertools.islice(alike, BATCH)):
            yield batch


def _answer(net: Any, output: "np.ndarray", data: "RunData", top: int) -> dict[str, Any]:
    """Class and probabilities of a classifier, plain outputs of anything else."""
    import numpy as np

    from normcore.op import Tensor
    from normcore.training.scores import probabilities

    values = np.asarray(output, np.float64)
    if net.config.loss.classes(Tensor((1, *values.shape), net.dtype)) is None or values.ndim != 1:
        return {"output": values.tolist()}
    shares = probabilities(values)
    names = data.class_names

    def described(k: int) -> dict[str, Any]:
        name = names[k] if names is not None and k < len(names) else None
        return {"class": k, "name": name, "probability": float(shares[k])}

    order = np.argsort(-shares, kind="stable")[:top].tolist()
    return {
        **described(order[0]),
        "top": [described(k) for k in order],
        "probabilities": shares.tolist(),
    }


def _sentence(row: dict[str, Any]) -> str:
    if "output" in row:
        return str(row["output"])
    return ", ".join(f"{_title(answer)} {answer['probability']:.1%}" for answer in row["top"])


def _title(answer: dict[str, Any]) -> str:
    """`cat (class 3)`, or `class 3` where classes have no names."""
    number = f"class {answer['class']}"
    return number if answer["name"] is None else f"{answer['name']} ({number})"
