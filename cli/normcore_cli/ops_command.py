"""`normcore ops` and `normcore ops show NAME`: what layers there are."""

import contextlib
import inspect
import sys
from typing import Any

import click

from normcore_cli import options


@click.group("ops", invoke_without_command=True)
@options.plugin
@options.as_json
@options.debug
@click.pass_context
def command(ctx: click.Context, plugins: tuple[str, ...], as_json: bool) -> None:
    """List every op; `normcore ops show NAME` tells all about one."""
    ctx.obj = (plugins, as_json)
    if ctx.invoked_subcommand is None:
        _list(plugins, as_json)


@command.command("list")
@options.plugin
@options.as_json
@options.debug
@click.pass_obj
def list_ops(outer: tuple[tuple[str, ...], bool], plugins: tuple[str, ...], as_json: bool) -> None:
    """List every op with its plugin and first line."""
    _list((*outer[0], *plugins), outer[1] or as_json)


@command.command("show")
@click.argument("name")
@click.option(
    "--kernel",
    type=click.Choice(["cpu", "cuda"]),
    help="Print the generated source of its kernels instead, forward and backward, with the author's comments.",
)
@click.option(
    "--plot",
    metavar="FILE",
    help="Draw value and derivative of an elementwise op into FILE.png or FILE.svg (needs matplotlib).",
)
@options.plugin
@options.as_json
@options.debug
@click.pass_obj
def show(
    outer: tuple[tuple[str, ...], bool],
    name: str,
    kernel: str | None,
    plot: str | None,
    plugins: tuple[str, ...],
    as_json: bool,
) -> None:
    """Show one op: formula, parameters, arrays, devices, source."""
    registry = options.load_plugins((*outer[0], *plugins))
    found = registry.get("op", name)
    described = _described(found)
    op: Any = found.component
    if plot is not None:
        from normcore_cli.plot_op import plot as draw

        click.echo(f"{plot}: {draw(op, plot)}")
    if kernel is not None:
        _show_kernels(op, kernel, outer[1] or as_json)
    if plot is not None or kernel is not None:
        return
    if outer[1] or as_json:
        options.print_json(
            {**described, "doc": found.doc, "explanation": _explanation(op), "code": _code(op)}
        )
        return
    aliases = f" ({', '.join(found.aliases)})" if found.aliases else ""
    click.echo(f"{found.name}{aliases}\n\n{_indented(_explanation(op) or inspect.cleandoc(found.doc))}")
    code = _code(op)
    if code:
        click.echo(f"\nas code\n{_indented(code)}")
    click.echo("\nparameters" if found.parameters else "\nno parameters")
    for parameter in described["parameters"]:
        default = "required" if parameter["required"] else f"= {_plain(parameter['default'])}"
        click.echo(f"  {parameter['name']} {default}  ({parameter['type']})")
    for key in ("learnable", "inputs", "devices", "formats"):
        if described[key]:
            click.echo(f"{key}: {', '.join(described[key])}")
    click.echo(f"source: {found.source or 'none given'}")
    click.echo(f"plugin: {described['plugin']}")


def _show_kernels(op: Any, target: str, as_json: bool) -> None:
    """The generated modules of the op's entry kernels, as they are compiled for float32."""
    from normcore.testing.kernel_texts import kernel_texts

    found = kernel_texts(op, target)
    if as_json:
        options.print_json([{"direction": k.direction, "kernel": k.kernel, "text": k.text} for k in found])
        return
    if not found:
        why = "its output is its input's memory" if op.is_view else f"it has none on {target}"
        click.echo(f"{op.name} launches no kernel of its own: {why}")
    for k in found:
        click.echo(f"# -- {op.name} {k.direction}: {k.kernel} {'-' * 40}\n{k.text}")


def _list(plugins: tuple[str, ...], as_json: bool) -> None:
    from normcore_cli.table import table

    registry = options.load_plugins(plugins)
    found = registry.all("op")
    if as_json:
        options.print_json([_described(r) for r in found])
        return
    rows = [
        (r.name, ", ".join(r.aliases), r.plugin.name, (inspect.cleandoc(r.doc).splitlines() or [""])[0])
        for r in found
    ]
    click.echo(table(("op", "alias", "plugin", ""), rows))


def _described(found: Any) -> dict[str, Any]:
    from normcore.config.components import written

    op = found.component
    return {
        "name": found.name,
        "aliases": list(found.aliases),
        "summary": (inspect.cleandoc(found.doc).splitlines() or [""])[0],
        "parameters": [
            {"name": p.name, "type": p.type_name(), "required": p.required, "default": written(p.default)}
            for p in found.parameters
        ],
        "learnable": list(op.learnable),
        "inputs": list(op.inputs) if isinstance(op.inputs, tuple) else [],
        "devices": ["cpu", "cuda"] if op.has_cuda() else ["cpu"],
        "formats": list(op.formats),
        "source": found.source,
        "plugin": found.plugin.name,
        "distribution": found.plugin.distribution,
    }


def _explanation(op: type) -> str:
    """The docstring of the op's file, which has its formulas; of the op itself where a file holds several."""
    module = sys.modules.get(op.__module__)
    text = inspect.cleandoc(getattr(module, "__doc__", None) or "")
    own = inspect.cleandoc(op.__doc__ or "")
    name = getattr(op, "name", "")
    alone = op.__module__.rsplit(".", 1)[-1] == name
    return text if alone and text else own


def _code(op: Any) -> str:
    """The scalar functions of an elementwise op, as written."""
    definition = getattr(op, "definition", None)
    lines: list[str] = []
    for name, member in vars(definition).items() if definition is not None else ():
        if name.startswith(("forward", "derivative")) and inspect.isfunction(member):
            with contextlib.suppress(OSError, TypeError):
                lines.append(inspect.cleandoc("\n" + inspect.getsource(member)).rstrip())
    return "\n\n".join(lines)


def _plain(value: Any) -> str:
    from normcore.config.dump import flow

    return flow(value)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())
