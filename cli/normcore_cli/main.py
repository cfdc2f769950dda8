"""`normcore`: finds the command, runs it, and turns its outcome into an exit status.

    0    done
    1    failed while running: data, numbers gone bad, a failed check
    2    bad usage or configuration, a device or memory that is not there
    130  interrupted

A command's module is imported when it is invoked, so `normcore --help` loads nothing but click. Further
commands come by the entry-point group `normcore.commands` (name -> click command).
"""

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import click

GROUP = "normcore.commands"
# Command -> its line in `normcore --help`; the module of that name holds it as `command`.
COMMANDS = {
    "train": "Train a network from its YAML file.",
    "eval": "Measure a run's best checkpoint on the test data, class by class.",
    "predict": "Say what a run's best checkpoint sees in images.",
    "plot": "Draw the learning curves of runs.",
    "summary": "Show a network's layers: shapes, parameters, FLOPs, memory, what is fused.",
    "lint": "Check a network's file without training.",
    "ops": "List the ops, or show one with its formula and source.",
    "plugins": "List the plugins, examine them (doctor), or start one (new).",
    "check": "Run the conformance suite on an op, a plugin file or a package.",
    "time": "Time a network's training step, layer by layer.",
    "bench": "Time ops: beside this machine's limits, on CPU and GPU, against PyTorch.",
    "schema": "Print the JSON Schema of network files, for editors.",
    "warm": "Compile every kernel that training a network needs.",
}


class Commands(click.Group):
    """A group that knows its commands' names and first lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_from_plugins())]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name in COMMANDS:
            module = importlib.import_module(f"normcore_cli.{name}_command")
            return module.command  # type: ignore[no-any-return]
        point = _from_plugins().get(name)
        if point is None:
            return None
        try:
            found = point.load()
        except Exception as fault:
            owner = point.dist.name if point.dist else point.value
            reason = f"{type(fault).__name__}: {fault}"
            message = f"command {name!r} of {owner} cannot be loaded ({reason}); update or uninstall {owner}"
            raise click.UsageError(message) from fault
        if not isinstance(found, click.Command):
            raise click.UsageError(f"command {name!r}: {point.value} is no click command but {found!r}")
        return found

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0] if args else ""
        if name and not name.startswith("-") and name not in COMMANDS and name not in _from_plugins():
            from normcore.errors import nearest

            ctx.fail(f"no such command {name!r}{nearest(name, self.list_commands(ctx), 'normcore --help')}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = list(COMMANDS.items())
        rows += [
            (name, f"From {p.dist.name if p.dist else p.value}.")
            for name, p in sorted(_from_plugins().items())
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _from_plugins() -> dict[str, Any]:
    """The commands that other distributions bring; a built-in name stays the built-in's."""
    if not any(map(_brings_commands, sys.path)):
        return {}
    import importlib.metadata

    return {p.name: p for p in importlib.metadata.entry_points(group=GROUP) if p.name not in COMMANDS}


def _brings_commands(folder: str) -> bool:
    """Whether a distribution in this folder (or archive) may bring some: importlib.metadata knows for certain, but
    takes half the time of `normcore --help`."""
    try:
        names = os.listdir(folder or ".")
    except NotADirectoryError:
        return True
    except OSError:
        return False
    for name in names:
        if name.endswith((".dist-info", ".egg-info", ".egg")):
            for inner in ("entry_points.txt", "EGG-INFO/entry_points.txt"):
                with contextlib.suppress(OSError), open(os.path.join(folder, name, inner), "rb") as file:
                    if GROUP.encode() in file.read():
                        return True
    return False


def _version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        import normcore

        click.echo(f"normcore {normcore.__version__}")
        ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version."
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show Python's traceback of an error.")
def cli() -> None:
    """Networks in YAML, trained on kernels that Numba compiles for the CPU and the GPU.

    Start with: normcore train examples/lenet-mnist.yaml
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command line; messages go to standard error."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in given
    try:
        # A command that starts itself anew may only do so as a program of its own.
        own = {"own_process": arguments is None}
        status = cli.main(args=given, prog_name="normcore", standalone_mode=False, obj=own)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as fault:
        fault.show()
        return 2
    except click.ClickException as fault:
        fault.show()
        return fault.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output is gone (`normcore ops | head`): nothing to say, and nobody to say it to.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as fault:
        if debug:
            import traceback

            traceback.print_exc()
        return _explain(fault, debug)


def _explain(fault: Exception, debug: bool) -> int:
    """Print one clear message; returns the exit status."""
    from normcore.errors import ConfigError, NormcoreError

    if isinstance(fault, ConfigError):
        click.echo(str(fault), err=True)
        count = len(fault.problems)
        if count > 1:
            click.echo(f"{count} problems", err=True)
        return fault.exit_status
    if isinstance(fault, NormcoreError):
        click.echo(f"error: {fault}", err=True)
        return fault.exit_status
    if isinstance(fault, MemoryError):
        click.echo("error: out of memory; lower data.batch_size or the layers' sizes", err=True)
        return 2
    hint = "" if debug else "; --debug shows where, please report it"
    click.echo(f"error: unexpected {type(fault).__name__}: {fault}{hint}", err=True)
    return 1


def main() -> None:
    """The console script."""
    # With libgomp's default, BLAS and OpenMP in turn take 1.5 times their sum. Read when the library loads.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    # A start makes two hundred thousand objects that stay. With Python's threshold of 700 a fifth of it goes into
    # looking for garbage among them; this one is out of its reach.
    gc.set_threshold(300_000)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    sys.exit(run())


if __name__ == "__main__":
    main()
