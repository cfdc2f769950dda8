"""`normcore plugins doctor`: what is wrong, or not what its author may think, with the plugins found."""

import importlib.metadata
from collections import Counter
from typing import Any

import click

from normcore_cli import options


@click.command("doctor")
@options.plugin
@options.as_json
@options.debug
def command(plugins: tuple[str, ...], as_json: bool) -> int:
    """Examine every plugin: where it comes from, its hooks, how long its import takes, and what is wrong with it.

    An error is a plugin or command that cannot be used; the status is 1 then. A remark is what works otherwise than
    may be meant: a function that looks like a hook and is not marked, two plugins of one name, an op without CUDA
    kernels. `normcore check` examines what the ops compute.
    """
    registry, failures = _load(plugins)
    findings = [_examined(registry, plugin) for plugin in registry.plugins]
    shared = _collisions(registry.plugins)
    ok = not any(f["error"] for f in findings) and not failures and not shared["errors"]
    errors = [*failures, *shared["errors"]]
    if as_json:
        options.print_json({"ok": ok, "plugins": findings, "errors": errors, "remarks": shared["remarks"]})
        return 0 if ok else 1
    for plugin, found in zip(registry.plugins, findings, strict=True):
        _show(plugin, found)
    for line in errors:
        click.echo(f"error: {line}")
    for line in shared["remarks"]:
        click.echo(f"remark: {line}")
    broken = sum(bool(f["error"]) for f in findings) + len(errors)
    remarks = sum(len(f["remarks"]) for f in findings) + len(shared["remarks"])
    click.echo(f"{_count(len(findings), 'plugin')}, {_count(broken, 'error')}, {_count(remarks, 'remark')}")
    return 0 if ok else 1


def _load(plugins: tuple[str, ...]) -> tuple[Any, list[str]]:
    """The registry, and why plugin files could not be loaded into it."""
    from normcore.errors import PluginError

    registry = options.load_plugins(())
    failures = []
    for file in plugins:
        try:
            registry.load_file(file)
        except PluginError as fault:
            failures.append("\n  ".join(line.rstrip() for line in str(fault).splitlines()))
    return registry, failures


def _examined(registry: Any, plugin: Any) -> dict[str, Any]:
    ops = [registry.get("op", name).component for kind, name in plugin.components if kind == "op"]
    without = sorted(op.name for op in ops if not op.has_cuda() and not op.is_view)
    remarks = list(plugin.remarks)
    if not plugin.error and not plugin.hooks:
        remarks.append("implements no hook and brings nothing; see plugins/README.md")
    if without:
        remarks.append(
            f"no CUDA kernels: {', '.join(without)}; on a GPU runs on the CPU, by copying (write forward_cuda and backward_cuda)"
        )
    return {**described(plugin), "ops_without_cuda": without, "remarks": remarks}


def _collisions(plugins: list[Any]) -> dict[str, list[str]]:
    """Names that several installed things claim; those of components are errors of their plugins."""
    from normcore_cli.main import COMMANDS, GROUP

    remarks = []
    for name, count in sorted(Counter(p.name for p in plugins).items()):
        if count > 1:
            owners = ", ".join(p.distribution or p.origin for p in plugins if p.name == name)
            remarks.append(
                f"{count} plugins are called {name!r} ({owners}); --without {name} leaves all of them out"
            )
    errors = []
    points = sorted(importlib.metadata.entry_points(group=GROUP), key=lambda p: (p.name, p.value))
    seen: dict[str, str] = {name: "normcore" for name in COMMANDS}
    for point in points:
        owner = point.dist.name if point.dist else point.value
        if point.name in seen:
            errors.append(
                f"command {point.name!r} of {owner} is already brought by {seen[point.name]}; rename one of them"
            )
            continue
        seen[point.name] = owner
        try:
            point.load()
        except Exception as fault:
            errors.append(
                f"command {point.name!r} of {owner} cannot be loaded: {type(fault).__name__}: {fault}"
            )
    return {"errors": errors, "remarks": remarks}


def _show(plugin: Any, found: dict[str, Any]) -> None:
    origin = f"{plugin.distribution} {plugin.version}".strip() or plugin.origin
    click.echo(f"{plugin.name}: {origin}, imported in {1000 * plugin.seconds:.0f} ms")
    if plugin.error:
        click.echo(f"  error: {plugin.error}")
        for frame in plugin.trace:
            click.echo("\n".join(f"  {line}" for line in frame.rstrip().splitlines()))
    else:
        click.echo(f"  hooks: {', '.join(plugin.hooks) or 'none'}; brings {brings(plugin)}")
    for remark in found["remarks"]:
        click.echo(f"  remark: {remark}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def brings(plugin: Any) -> str:
    """ "12 ops, 1 loss"."""
    kinds: dict[str, int] = {}
    for kind, _ in plugin.components:
        kinds[kind] = kinds.get(kind, 0) + 1
    parts = [
        f"{n} {kind}" if n == 1 else f"{n} {kind}{'es' if kind.endswith('s') else 's'}"
        for kind, n in kinds.items()
    ]
    return ", ".join(parts) or ", ".join(plugin.hooks) or "nothing"


def described(plugin: Any) -> dict[str, Any]:
    brings: dict[str, list[str]] = {}
    for kind, name in plugin.components:
        brings.setdefault(kind, []).append(name)
    return {
        "name": plugin.name,
        "origin": plugin.origin,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "sha256": plugin.digest,
        "file": plugin.file,
        "import_s": round(plugin.seconds, 4),
        "hooks": list(plugin.hooks),
        "brings": {kind: sorted(names) for kind, names in sorted(brings.items())},
        "remarks": list(plugin.remarks),
        "error": plugin.error or None,
        "trace": [frame.rstrip() for frame in plugin.trace],
    }
