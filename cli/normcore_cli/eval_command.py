"""`normcore eval RUN`: loss and accuracy of a run's best checkpoint."""

from typing import Any

import click

from normcore_cli import options


@click.command("eval")
@click.argument("run")
@options.configuration
@options.device
@options.as_json
def command(
    run: str,
    overrides: tuple[str, ...],
    plugins: tuple[str, ...],
    allow_plugins: bool,
    device: str,
    as_json: bool,
) -> None:
    """Measure the best checkpoint of RUN on the test data, normalized as in training.

    With --set data.path=FILE on other data.
    """
    from normcore.training.evaluation import evaluate
    from normcore_cli.trained import open_run

    folder, net, checkpoint = open_run(run, overrides, plugins, allow_plugins, device)
    loader = net.loader(folder.read_preprocessing())
    loss = net.config.loss
    found: dict[str, Any] = {
        "run": str(folder.path),
        "checkpoint": str(checkpoint.path),
        "epoch": checkpoint.numbers.get("epoch"),
        "samples": loader.size("test"),
    }
    lines = []
    for part in ("validation", "test"):
        if not loader.size(part):
            continue
        totals = evaluate(net, loss, loader, part)
        found[f"{part}_loss"] = totals.loss
        found[f"{part}_accuracy"] = totals.accuracy if loss.counts_correct else None
        accuracy = f"accuracy {totals.accuracy:.4f}, " if loss.counts_correct else ""
        lines.append(f"{part}: {accuracy}loss {totals.loss:.4f} ({loader.size(part):,} samples)")
    if as_json:
        options.print_json(found)
        return
    click.echo(f"{checkpoint.path} (epoch {found['epoch']})")
    click.echo("\n".join(lines))
