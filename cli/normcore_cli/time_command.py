"""`normcore time FILE`: where the time of a training step goes, layer by layer."""

import dataclasses
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from normcore_cli import options

if TYPE_CHECKING:
    from normcore.config.config import Config


@click.command("time")
@click.argument("file")
@options.configuration
@click.option(
    "--device", "device_names", type=options.Listed(("auto", "cpu", "cuda")), default="auto", show_default=True,
    help="cpu, cuda or both with a comma; auto takes the GPU where it works.",
)  # fmt: skip
@click.option("--batch", type=click.IntRange(min=1), help="Batch size; by default data.batch_size.")
@click.option("--against", type=click.Choice(["torch"]), help="Time the same step in PyTorch beside it.")
@click.option(
    "--seconds", type=click.FloatRange(0.01), default=3.0, show_default=True, help="To measure for."
)
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    file: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device_names: tuple[str, ...],
    batch: int | None,
    against: str | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Time a training step of the network in FILE (or of a run's folder), forward and backward of each layer.

    Whole steps run, with random inputs; times are medians, each layer's as it is inside the step. A row is one layer
    with what is fused into it. moved: bytes that must move, forward and backward. Views (flatten) run nothing.
    --against torch times whole steps in PyTorch too, in both memory formats, and says how many times faster ours are
    than its better ones; on the CPU. --device cpu,cuda times one after the other and compares their steps.
    """
    from normcore.errors import UsageError

    config = options.load(file, overrides, plugins, allow_plugins)
    names = options.devices(device_names, every=False)
    if against and "cpu" not in names:
        raise UsageError("--against torch compares on the CPU: add --device cpu")
    torch = None
    if against:
        from normcore.measuring import peer

        torch = peer.load()
        _restart_tuned(ctx)
    measured = []
    for name in names:
        measured.append(_measured(config, name, batch, torch if name == "cpu" else None, seconds))
        if not as_json:
            head, found = measured[-1]
            click.echo(("\n" if len(measured) > 1 else "") + _text(head, found))
    if as_json:
        documents = [{**head, **found} for head, found in measured]
        options.print_json(documents[0] if len(documents) == 1 else {"devices": documents})
    elif len(measured) == 2:
        (head, first), (other, second) = measured
        ratio = first["step_s"] / second["step_s"]
        click.echo(f"\n{other['device']}'s step is {ratio:.2f} x as fast as {head['device']}'s")


def _measured(
    config: "Config", device: str, batch: int | None, torch: Any, seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was timed, and the times, on one device; torch: the module, to time it too."""
    from normcore.measuring import network_time
    from normcore.network import Network
    from normcore.training.warm_up import warm_up
    from normcore_cli.progress import display

    net = Network(dataclasses.replace(config, start_from=None), device)
    batch = batch or net.declared_batch or 1
    view = display(sys.stderr)
    try:
        warm_up(net, config.loss, None, ({batch}, set()), view)
    finally:
        view.close()
    step = network_time.Step(net, batch)
    others = {} if torch is None else _others(torch, step)
    head = {"name": config.name, "device": net.device.name, "dtype": net.dtype, "batch": batch}
    head["input_shape"] = net.sample_shape
    return head, network_time.document(step, 40, seconds, others)


def _others(torch: Any, step: Any) -> dict[str, Any]:
    """PyTorch's step by memory format. Raises UsageError where something is not in PyTorch."""
    from normcore.errors import UsageError
    from normcore.measuring import network_torch

    formats = network_torch.FORMATS[: 2 if len(step.net.sample_shape) == 3 else 1]
    try:
        return {f: network_torch.step(torch, step.net, step.x, step.targets, f) for f in formats}
    except (NotImplementedError, RuntimeError, TypeError) as fault:
        raise UsageError(f"--against torch: the network does not run in PyTorch: {fault}") from fault


def _restart_tuned(ctx: click.Context) -> None:
    """Start this command anew with an allocator that keeps its memory, as `bench` does: PyTorch needs it."""
    from normcore.measuring import peer

    if peer.tuned() or not (ctx.find_root().obj or {}).get("own_process"):
        return
    sys.stdout.flush()
    os.execve(
        sys.executable,
        [sys.executable, "-m", "normcore_cli.main", *sys.argv[1:]],
        {**os.environ, **peer.TUNED},
    )


def _text(head: dict[str, Any], found: dict[str, Any]) -> str:
    from normcore_cli.table import count, size, table

    rows, kernels = [], []
    for row in found["layers"]:
        # A conversion between memory formats, put in by the planner, covers no layer.
        name = " + ".join(row["covers"]) or f"{row['layer'].replace('.channels_', ' to channels ')}"
        flops = (row["forward_flops"] or 0) + (row["backward_flops"] or 0)
        moved = (row["forward_bytes"] or 0) + (row["backward_bytes"] or 0)
        spent = (row["forward_s"] or 0.0) + (row["backward_s"] or 0.0)
        if row["view"]:
            rows.append((name, "view", *["-"] * 7))
            continue
        rows.append(
            (
                name,
                _milliseconds(row["forward_s"]),
                _milliseconds(row["backward_s"]),
                f"{row['share']:.1%}",
                size(moved),
                f"{moved / spent / 1e9:.1f}" if spent else "-",
                count(flops) if flops else "-",
                f"{flops / spent / 1e9:.1f}" if flops and spent else "-",
                "last" if row["memory_format"] == "channels_last" else "first",
            )
        )
        kernels.append((name, *(", ".join(row[f"{d}_kernels"]) or "-" for d in ("forward", "backward"))))
    for name in ("loss", "optimizer"):
        spent = found[f"{name}_s"]
        rows.append((name, _milliseconds(spent), "-", f"{spent / found['step_s']:.1%}", *["-"] * 5))
        kernels.append((name, ", ".join(found[f"{name}_kernels"]), "-"))
    headers = ("layer", "forward", "backward", "share", "moved", "GB/s", "FLOPs", "GFLOP/s", "channels")
    lines = [
        f"{head['name']}: input {list(head['input_shape'])}, batch {head['batch']}, {head['dtype']} on "
        f"{head['device']}; milliseconds, medians of {found['rounds']} steps",
        "",
        table(headers, rows, right=range(1, 8)),
        "",
        table(("kernels of", "forward", "backward"), kernels),
        "",
        f"forward {_milliseconds(found['forward_s'])} ms, backward {_milliseconds(found['backward_s'])} ms, step "
        f"{_milliseconds(found['step_s'])} ms: {found['images_per_second']:,.0f} samples/s, "
        f"{found['flops'] / found['step_s'] / 1e9:.1f} GFLOP/s, {found['bytes'] / found['step_s'] / 1e9:.1f} GB/s",
    ]
    other = found.get("torch")
    if other:
        low, high = other["ratio_interval"]
        times = ", ".join(f"{_milliseconds(s)} ms {name}" for name, s in other["seconds"].items())
        lines.append(f"torch: step {times}; ours is {other['ratio']:.2f} x as fast ({low:.2f} to {high:.2f})")
    return "\n".join(lines)


def _milliseconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    value = 1000 * seconds
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value >= 0.1 else f"{value:.3f}"
