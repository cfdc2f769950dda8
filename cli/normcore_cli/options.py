"""Options that several commands share, and what they mean."""

import json
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from normcore.config.config import Config

# A list of nothing but numbers, as json.dumps indents it; no text can look so, for it holds no line breaks.
_NUMBERS = re.compile(r"\[\n\s*(?:[-+.\deE]+|null)(?:,\n\s*(?:[-+.\deE]+|null))*\n\s*\]")
F = TypeVar("F", bound=Callable[..., Any])


def debug(command: F) -> F:
    return click.option(
        "--debug", is_flag=True, expose_value=False, help="Show Python's traceback of an error."
    )(command)


def as_json(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


class Listed(click.ParamType):
    """Names joined by commas, each one of those allowed."""

    name = "list"

    def __init__(self, allowed: tuple[str, ...]):
        self.allowed = allowed

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[str, ...]:
        from normcore.errors import nearest

        if isinstance(value, tuple):
            return value
        found = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
        for name in found:
            if name not in self.allowed:
                hint = nearest(name, self.allowed)
                self.fail(f"{name!r} is none of {', '.join(self.allowed)}{hint}", param, ctx)
        return found


def devices(names: tuple[str, ...], every: bool = True) -> tuple[str, ...]:
    """The devices to run on; raises DeviceError for one that is not there.

    "auto" stands for every device there is; if not every, for the GPU where it works, else the CPU.
    """
    from normcore.devices import device

    if "auto" in names:
        best = device.get("auto").name
        return ("cpu", best) if every and best != "cpu" else (best,)
    for name in names:
        device.get(name)
    return names


def device(command: F) -> F:
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where kernels run; auto takes the GPU where it works.",
    )(command)


def plugin(command: F) -> F:
    """--plugin, and --without for the opposite."""
    command = click.option(
        "--without",
        multiple=True,
        metavar="NAME",
        expose_value=False,
        callback=_leave_out,
        help="Do as if this plugin were not installed (repeatable).",
    )(command)
    return click.option(
        "--plugin",
        "plugins",
        multiple=True,
        metavar="FILE",
        help="Load the ops of this Python file too (repeatable).",
    )(command)


def _leave_out(ctx: click.Context, parameter: click.Parameter, names: tuple[str, ...]) -> None:
    left_out = ctx.meta.setdefault("normcore.without", set())  # shared with the subcommands of a group
    left_out.update(names)
    if left_out or "normcore.registry" in sys.modules:  # else nothing can have been left out before
        from normcore.registry import leave_out

        leave_out(left_out)


def configuration(command: F) -> F:
    """--set, --plugin, --allow-plugins and --debug: everything that reading a network's file takes."""
    command = debug(command)
    command = click.option(
        "--allow-plugins", is_flag=True, help="Run the plugin files that the network's file names."
    )(command)
    command = plugin(command)
    return click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change a value of the file: --set train.epochs=3 (repeatable).",
    )(command)


def load(file: str, overrides: Sequence[str], plugins: Sequence[str], allow_plugins: bool) -> "Config":
    """The configuration in a file, or of a run when `file` is its folder."""
    from normcore.config.config import load as load_config

    quiet_warnings()
    path = Path(file)
    if path.is_dir() and (path / "config.yaml").is_file():
        path = path / "config.yaml"
    return load_config(path if path != Path(file) else file, overrides, None, plugins, allow_plugins)


def load_plugins(plugins: Sequence[str]) -> Any:
    """The registry with plugin files loaded."""
    from normcore.registry import default

    quiet_warnings()
    registry = default()
    for file in plugins:
        registry.load_file(file)
    return registry


def print_json(value: Any) -> None:
    """On standard output, lists of numbers on one line; NaN and infinities, which JSON lacks, as null."""
    text = json.dumps(_finite(value), indent=1, ensure_ascii=False)
    click.echo(_NUMBERS.sub(lambda found: f"[{' '.join(found[0][1:-1].split())}]", text))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def quiet_warnings() -> None:
    """A warning is one line for the user, without the source line that raised it."""

    def show(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None
    ) -> None:
        click.echo(f"warning: {message}", err=True)

    warnings.showwarning = show
