"""`normcore predict RUN INPUT...`: what a run's best checkpoint says to images and arrays."""

from typing import TYPE_CHECKING, Any

import click

from normcore_cli import options

if TYPE_CHECKING:
    import numpy as np

    from normcore_cli.run_data import RunData


@click.command("predict")
@click.argument("run")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@options.configuration
@options.device
@options.as_json
def command(
    run: str,
    inputs: tuple[str, ...],
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    as_json: bool,
) -> None:
    """Classify images (PNG, JPEG ...) or arrays (.npy, one sample each) by RUN's best checkpoint.

    An image is brought to the size and channels that the network takes, and normalized as in training.
    """
    import numpy as np

    from normcore.data.image_file import read_image
    from normcore.errors import DataError
    from normcore.training.run_folder import RunFolder
    from normcore_cli import run_data
    from normcore_cli.trained import open_run

    folder = RunFolder.open(run)
    data = run_data.read(folder)
    samples = []
    for file in inputs:
        sample = read_image(file, data.sample[0], data.sample[1:])
        if tuple(sample.shape) != data.sample:
            raise DataError(
                f"{file}: has shape {tuple(sample.shape)}, the network takes {data.sample} (channels first)"
            )
        samples.append(sample)
    folder, net, _ = open_run(run, overrides, plugins, allow_plugins, device, data.input)
    transforms = net.config.data.transforms().restore(folder.read_preprocessing())
    found = []
    for file, sample in zip(inputs, samples, strict=True):  # one by one: files may differ in dtype
        output = np.asarray(net.device.to_host(net.forward(transforms.apply(sample[None], net.dtype))))[0]
        found.append({"file": file, **_answer(net, output, data)})
    if as_json:
        options.print_json(found)
        return
    for row in found:
        click.echo(f"{row['file']}: {_sentence(row)}")


def _answer(net: Any, output: "np.ndarray", data: "RunData") -> dict[str, Any]:
    """Class and probabilities of a classifier, plain outputs of anything else."""
    import numpy as np

    from normcore.op import Tensor

    values = np.asarray(output, np.float64)
    if net.config.loss.classes(Tensor((1, *values.shape), net.dtype)) is None or values.ndim != 1:
        return {"output": values.tolist()}
    shifted = np.exp(values - values.max())
    probabilities = shifted / shifted.sum()
    chosen = int(np.argmax(probabilities))
    names = data.class_names
    return {
        "class": chosen,
        "name": names[chosen] if names is not None and chosen < len(names) else None,
        "probability": float(probabilities[chosen]),
        "probabilities": probabilities.tolist(),
    }


def _sentence(row: dict[str, Any]) -> str:
    if "output" in row:
        return str(row["output"])
    name = f"{row['name']} (class {row['class']})" if row["name"] is not None else f"class {row['class']}"
    order = sorted(range(len(row["probabilities"])), key=lambda k: -row["probabilities"][k])[1:3]
    others = ", ".join(f"class {k} {row['probabilities'][k]:.1%}" for k in order)
    return f"{name}, {row['probability']:.1%}" + (f" (then {others})" if others else "")
