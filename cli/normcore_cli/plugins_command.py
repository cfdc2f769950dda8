"""`normcore plugins`: list what was found; `new` (plugins_new.py) and `doctor` (plugins_doctor.py)."""

import click

from normcore_cli import options, plugins_doctor, plugins_new
from normcore_cli.plugins_doctor import brings, described


@click.group("plugins", invoke_without_command=True)
@options.plugin
@options.as_json
@options.debug
@click.pass_context
def command(ctx: click.Context, plugins: tuple[str, ...], as_json: bool) -> None:
    """List the plugins; `doctor` says what is wrong with them, `new` starts one."""
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


command.add_command(plugins_new.command)
command.add_command(plugins_doctor.command)


def _list(plugins: tuple[str, ...], as_json: bool) -> None:
    from normcore_cli.table import table

    found = options.load_plugins(plugins).plugins
    if as_json:
        options.print_json([described(plugin) for plugin in found])
        return
    rows = []
    for plugin in found:
        origin = f"{plugin.distribution} {plugin.version}".strip() or plugin.origin
        rows.append((plugin.name, origin, "set aside" if plugin.error else brings(plugin)))
    click.echo(table(("plugin", "from", "brings"), rows))
    for plugin in found:
        if plugin.error:
            click.echo(f"\n{plugin.name} ({plugin.origin}) was set aside: {plugin.error}")
            for frame in plugin.trace:
                click.echo(frame.rstrip())
