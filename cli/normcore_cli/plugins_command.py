"""`normcore plugins list`: every plugin found, what it brings, and why one was set aside."""

from typing import Any

import click

from normcore_cli import options


@click.group("plugins", invoke_without_command=True)
@options.plugin
@options.as_json
@options.debug
@click.pass_context
def command(ctx: click.Context, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the plugins and what they bring."""
    ctx.obj = (plugins, as_json)
    if ctx.invoked_subcommand is None:
        _list(plugins, as_json)


@command.command("list")
@options.plugin
@options.as_json
@options.debug
@click.pass_obj
def list_plugins(outer: tuple[tuple[str, ...], bool], plugins: tuple[str, ...], as_json: bool) -> None:
    """List the plugins and what they bring; one that fails to import is set aside, everything else works."""
    _list((*outer[0], *plugins), outer[1] or as_json)


def _list(plugins: tuple[str, ...], as_json: bool) -> None:
    from normcore_cli.table import table

    found = options.load_plugins(plugins).plugins
    if as_json:
        options.print_json([_described(plugin) for plugin in found])
        return
    rows = []
    for plugin in found:
        origin = f"{plugin.distribution} {plugin.version}".strip() or plugin.origin
        rows.append((plugin.name, origin, "set aside" if plugin.error else _brings(plugin)))
    click.echo(table(("plugin", "from", "brings"), rows))
    for plugin in found:
        if plugin.error:
            click.echo(f"\n{plugin.name} ({plugin.origin}) was set aside: {plugin.error}")
            for frame in plugin.trace:
                click.echo(frame.rstrip())


def _brings(plugin: Any) -> str:
    """ "12 ops, 1 loss"."""
    kinds: dict[str, int] = {}
    for kind, _ in plugin.components:
        kinds[kind] = kinds.get(kind, 0) + 1
    parts = [
        f"{n} {kind}" if n == 1 else f"{n} {kind}{'es' if kind.endswith('s') else 's'}"
        for kind, n in kinds.items()
    ]
    return ", ".join(parts) or ", ".join(plugin.hooks) or "nothing"


def _described(plugin: Any) -> dict[str, Any]:
    brings: dict[str, list[str]] = {}
    for kind, name in plugin.components:
        brings.setdefault(kind, []).append(name)
    return {
        "name": plugin.name,
        "origin": plugin.origin,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "sha256": plugin.digest,
        "hooks": list(plugin.hooks),
        "brings": {kind: sorted(names) for kind, names in sorted(brings.items())},
        "error": plugin.error or None,
        "trace": [frame.rstrip() for frame in plugin.trace],
    }
