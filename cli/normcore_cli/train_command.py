"""`normcore train FILE`: train a network and leave a run's folder."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from normcore_cli import options

if TYPE_CHECKING:
    from normcore.config.config import Config
    from normcore.training.run_folder import RunFolder


@click.command("train")
@click.argument("file", required=False)
@options.configuration
@options.device
@click.option("--epochs", type=click.IntRange(min=1), help="Instead of the file's train.epochs.")
@click.option("--seed", type=click.IntRange(min=0), help="Instead of the file's seed.")
@click.option("--out", metavar="DIR", help="The run's folder; by default the next free runs/NAME-N.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out from its newest good checkpoint.")
@options.as_json
def command(
    file: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    epochs: int | None,
    seed: int | None,
    out: str | None,
    resume: bool,
    as_json: bool,
) -> int:
    """Train the network in FILE.

    The run's folder holds config.yaml, metrics.jsonl (a line an epoch), checkpoints/ and
    environment.json. Ctrl-C finishes the step and saves; `--out DIR --resume` goes on, and with --epochs
    N lengthens a finished run.
    """
    if resume and out is None:
        raise click.UsageError("--resume needs --out DIR, the folder of the run to go on with")
    if file is None:
        if not (resume and out and (Path(out) / "config.yaml").is_file()):
            raise click.UsageError("expected the FILE of a network, such as examples/lenet-mnist.yaml")
        file = out
    changes = list(overrides)
    changes += [f"train.epochs={epochs}"] if epochs is not None else []
    changes += [f"seed={seed}"] if seed is not None else []
    started = time.perf_counter()
    config = options.load(file, changes, plugins, allow_plugins)
    same = [f"--device {device}"] if device != "auto" else []
    same += [f"--plugin {shlex.quote(file)}" for file in plugins] + (
        ["--allow-plugins"] if allow_plugins else []
    )
    return _train(config, device, out, resume, epochs is not None, " ".join(same), as_json, started)


def _train(
    config: "Config",
    device: str,
    out: str | None,
    resume: bool,
    longer: bool,
    same: str,
    as_json: bool,
    started: float,
) -> int:
    from normcore.network import Network
    from normcore.training.data_checks import check_mixing, check_samples
    from normcore.training.loop import Interrupted, Trainer
    from normcore_cli.progress import display

    run = _existing(config, out, longer) if resume and out else None
    _check_free(out, run)
    view = display(sys.stderr if as_json else sys.stdout)
    net = Network(config, device)
    arrays = run.read_preprocessing() if run is not None and run.preprocessing_file.exists() else None
    loader = net.loader(arrays)
    trainer = Trainer(net, loader=loader, observer=view)
    # Before the first line and folder: what is known without a look at the values.
    check_mixing(trainer.loss, check_samples(net, trainer.loss, loader), loader.transforms)
    fresh = run is None
    run = run or _new(config, out)
    trainer.run = run
    try:
        _describe(run, config, net, loader)
        view.note(f"{config.name} on {net.device.name}: {_count(net):,} parameters")
        if not fresh:
            trainer.resume()
        metrics = trainer.fit()
    except Interrupted as stop:
        view.close()
        again = f"normcore train --out {shlex.quote(str(run.path))} --resume {same}".rstrip()
        click.echo(f"interrupted; checkpoint {stop.path}\ngo on with: {again}", err=True)
        return 130
    except BaseException:
        view.close()
        if fresh and not view.began:
            run.discard()  # nothing happened yet, so nothing is left behind
        raise
    _finish(run, metrics, view, as_json, time.perf_counter() - started, same)
    return 0


def _count(net: Any) -> int:
    return sum(int(array.size) for array in net.parameters.values())


def _existing(config: "Config", out: str, longer: bool) -> "RunFolder | None":
    """The run to resume, None where there is none yet. UsageError for one that was made from something
    else."""
    from normcore.config.config import differences
    from normcore.config.yaml_file import plain, read_file
    from normcore.errors import ConfigError, UsageError
    from normcore.training.run_folder import RunFolder

    folder = Path(out)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        click.echo(f"{out}: there is no run to resume; training starts from the beginning", err=True)
        return None
    run = RunFolder.open(out)
    faults: list[Any] = []
    root = read_file(run.config_file, faults)
    if faults or root is None:
        raise ConfigError(faults)
    lines = differences(plain(root), dict(config.resolved))
    if longer:
        lines = [line for line in lines if not line.startswith("train.epochs: ")]
    if lines:
        listed = "\n".join(f"  {line}" for line in lines)
        hint = "resume with the same settings, or start a new run with another --out"
        raise UsageError(f"{out}: this run was made with other settings:\n{listed}\n{hint}")
    return run


def _check_free(out: str | None, run: "RunFolder | None") -> None:
    """Say that --out is taken before any work is done; RunFolder.create says it for good."""
    from normcore.errors import UsageError

    folder = Path(out) if out is not None and run is None else None
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"--out {out}: it exists already; name another folder, or add --resume to go on with it"
        )


def _new(config: "Config", out: str | None) -> "RunFolder":
    from normcore.errors import UsageError
    from normcore.training.run_folder import RunFolder

    try:
        return RunFolder.create(config.name, out)
    except OSError as fault:
        raise UsageError(f"the run's folder cannot be made: {fault}; choose another with --out DIR") from None


def _describe(run: "RunFolder", config: "Config", net: Any, loader: Any) -> None:
    """Everything about the run that is known before its first step."""
    from normcore.config.config import dump
    from normcore.registry import default
    from normcore_cli.run_data import write

    run.write_config(dump(dict(config.resolved)))
    plugins = [{"path": p.origin, "sha256": p.digest} for p in default().plugins if p.digest]
    run.write_environment(net.device, config.seed, plugins)
    run.write_preprocessing(loader.transforms.arrays)
    write(run, net, loader.dataset)


def _finish(run: "RunFolder", metrics: Any, view: Any, as_json: bool, seconds: float, same: str) -> None:
    from normcore_cli.table import counted, duration

    lines = run.read_metrics()
    part = "validation" if "validation_loss" in metrics else "test"
    key = f"{part}_accuracy" if metrics.get(f"{part}_accuracy") is not None else f"{part}_loss"
    # The last metrics besides: population statistics change them after the last line is written.
    scored = [m for m in (*lines, metrics) if m.get(key) is not None]
    sign = 1 if key.endswith("accuracy") else -1
    best = max(scored, key=lambda m: sign * m[key]) if scored else None
    if as_json:
        options.print_json(
            {"run": str(run.path), "seconds": round(seconds, 3), "metrics": dict(metrics), "best": best}
        )
        return
    name = key.replace("_", " ")
    view.line(f"done: {counted(metrics.get('epoch', 0), 'epoch')} in {duration(seconds)}, run {run.path}")
    if best is not None:
        last = f"{metrics[key]:.4f}" if metrics.get(key) is not None else "unknown"
        view.line(f"{name} {last}, best {best[key]:.4f} (epoch {best['epoch']})")
    view.line(f"next: normcore eval {shlex.quote(str(run.path))} {same}".rstrip())
