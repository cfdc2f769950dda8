"""`normcore check NAME | FILE | PACKAGE`: run the conformance suite on ops."""

import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
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

    TARGET is an op's name, a plugin file (my_norm.py), or the name of an installed plugin, distribution or import
    package, whose ops are all checked. Prints what ran, what was skipped and why, and what failed with the smallest failing
    input. Ends with status 0 only if nothing failed and nothing mandatory was skipped.
    """
    from normcore.devices import device as devices
    from normcore.testing.suite import as_dict, check_names, check_op, find_check

    registry = options.load_plugins(plugins)
    names = ops_of(registry, target)
    for check in only:
        find_check(check)
    where = devices.get(device).name if device == "auto" else device
    shown = sys.stderr if as_json else sys.stdout
    wide = max(len(name) for name in check_names())

    first: dict[str, str] = {}  # where a failure was seen first: one fault in a declaration fails many checks

    def show(outcome: Any) -> None:
        failed = outcome.status == "failed"
        seen = failed and first.setdefault(f"{outcome.op} {outcome.detail}", outcome.check) != outcome.check
        said = f"as {first[f'{outcome.op} {outcome.detail}']}" if seen else outcome.detail
        click.echo(
            f"  {outcome.check:{wide}}  {outcome.status:7}{f'  {said}' if said else ''}".rstrip(), file=shown
        )
        if failed and outcome.shapes and not seen:
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
        return _names([registry.load_file(target)], target)
    if target in registry.names("op"):
        return [registry.get("op", target).name]
    found = [plugin for plugin in registry.plugins if _plain(target) in _called(plugin)]
    broken = next((plugin for plugin in found if plugin.error), None)
    if broken is not None:
        frames = "".join(broken.trace).rstrip()
        raise PluginError(f"plugin {broken.name!r} was set aside: {broken.error}\n{frames}".rstrip())
    if found:
        return _names(found, target)
    try:
        registry.get("op", target)
    except PluginError as fault:
        message = (
            f"{fault}; {_not_registered(target)}expected an op's name, a plugin, a package or a Python file"
        )
        raise PluginError(message) from None
    return []


def _called(plugin: Any) -> set[str]:
    """What a plugin goes by: its entry point, distribution, module, and the package that the module is in."""
    module = plugin.origin.split(":")[0]
    return {_plain(name) for name in (plugin.name, plugin.distribution, module, module.split(".")[0]) if name}


def _plain(name: str) -> str:
    """My-Norm and my_norm are one distribution."""
    return re.sub(r"[-_]+", "_", name).lower()


def _not_registered(target: str) -> str:
    """A hint for a folder or package that is there but not found as a plugin."""
    if (Path(target) / "pyproject.toml").is_file():
        return f"the package in the folder {target} is not installed (pip install -e {target}); "
    try:
        there = target.isidentifier() and importlib.util.find_spec(target) is not None
    except (ImportError, ValueError):
        there = False
    if there:
        return f"the package {target} has no entry point of the group normcore (see plugins/README.md); "
    return ""


def _names(plugins: Sequence[Any], target: str) -> list[str]:
    from normcore.errors import PluginError

    names = sorted(name for plugin in plugins for kind, name in plugin.components if kind == "op")
    if not names:
        remarks = "".join(f"; {remark}" for plugin in plugins for remark in plugin.remarks)
        raise PluginError(
            f"{target} brings no ops; implement the hook normcore_ops (see plugins/README.md){remarks}"
        )
    return names


def summary(reports: Sequence[Any]) -> str:
    """The last line: counts over all ops, and what keeps the status from being 0."""
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    counts = {s: sum(o.status == s for o in outcomes) for s in ("passed", "skipped", "failed")}
    line = f"{counts['passed']} passed, {counts['skipped']} skipped, {counts['failed']} failed"
    gaps = [f"{o.op} {o.check}" for o in outcomes if o.status == "skipped" and o.mandatory]
    return line + (f"; skipped though mandatory: {', '.join(gaps)}" if gaps else "")
