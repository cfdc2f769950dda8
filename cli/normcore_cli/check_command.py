"""`normcore check NAME | FILE | PACKAGE`: run the conformance suite on ops."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from normcore_cli import options


@click.command("check")
@click.argument("target")
@options.plugin
@click.option(
    "--only", multiple=True, metavar="CHECK", help="Run this check only (repeatable); all when left out."
)
@click.option("--seed", default=0, show_default=True, help="Seed of inputs and parameters.")
@options.device
@options.as_json
@options.debug
def command(
    target: str, plugins: tuple[str, ...], only: tuple[str, ...], seed: int, device: str, as_json: bool
) -> int:
    """Check an op as strictly as the built-in ones.

    TARGET is an op's name, a plugin file (my_norm.py), or the name of an installed plugin or package, whose
    ops are all checked. Prints what ran, what was skipped and why, and what failed with the smallest failing
    input. Ends with status 0 only if nothing failed and nothing mandatory was skipped.
    """
    from normcore.devices import device as devices
    from normcore.testing.suite import as_dict, check_names, check_op

    registry = options.load_plugins(plugins)
    names = ops_of(registry, target)
    where = devices.get(device).name if device == "auto" else device
    shown = sys.stderr if as_json else sys.stdout
    wide = max(len(name) for name in check_names())

    def show(outcome: Any) -> None:
        detail = f"  {outcome.detail}" if outcome.detail else ""
        click.echo(f"  {outcome.check:{wide}}  {outcome.status:7}{detail}".rstrip(), file=shown)
        if outcome.status == "failed" and outcome.shapes:
            shapes = ", ".join(map(str, outcome.shapes))
            sample = f" ({outcome.sample})" if outcome.sample else ""
            click.echo(
                f"  {'':{wide}}  smallest failing input: shape {shapes}, seed {outcome.seed}{sample}",
                file=shown,
            )

    reports = []
    for name in names:
        click.echo(name, file=shown)
        component = registry.get("op", name).component
        reports.append(check_op(component, device=where, seed=seed, only=only or None, progress=show))
    if as_json:
        options.print_json(as_dict(reports))
    else:
        click.echo(summary(reports))
    return 0 if all(report.ok for report in reports) else 1


def ops_of(registry: Any, target: str) -> list[str]:
    """The names of the ops that the command's argument means. Raises PluginError when it means none."""
    from normcore.errors import PluginError

    if target.endswith(".py"):
        plugin = registry.load_file(target)
        return _names(plugin, target)
    if target in registry.names("op"):
        return [registry.get("op", target).name]
    for plugin in registry.plugins:
        if target in (plugin.name, plugin.distribution, plugin.origin) and plugin.components:
            found = [p for p in registry.plugins if target in (p.name, p.distribution, p.origin)]
            return [name for p in found for name in _names(p, target, may_be_empty=True)]
    try:
        registry.get("op", target)
    except PluginError as fault:
        message = f"{fault}; expected an op's name, a plugin's name or a Python file"
        raise PluginError(message) from None
    return []


def _names(plugin: Any, target: str, may_be_empty: bool = False) -> list[str]:
    from normcore.errors import PluginError

    names = sorted(name for kind, name in plugin.components if kind == "op")
    if not names and not may_be_empty:
        raise PluginError(f"{target} brings no ops; implement the hook normcore_ops (see plugins/README.md)")
    return names


def summary(reports: Sequence[Any]) -> str:
    """The last line: counts over all ops, and what keeps the status from being 0."""
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    counts = {s: sum(o.status == s for o in outcomes) for s in ("passed", "skipped", "failed")}
    line = f"{counts['passed']} passed, {counts['skipped']} skipped, {counts['failed']} failed"
    gaps = [f"{o.op} {o.check}" for o in outcomes if o.status == "skipped" and o.mandatory]
    return line + (f"; skipped though mandatory: {', '.join(gaps)}" if gaps else "")
