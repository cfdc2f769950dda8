"""`normcore bench`: how fast ops are, beside this machine's limits, on CPU and GPU, against PyTorch."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from normcore_cli import options

DTYPES = ("float32", "float64")
FORMATS = ("channels_first", "channels_last")
FEW = 12  # cases of which first calls are measured unasked: each compiles its kernels anew
VERY_FEW = 4  # the same for torch.compile, which takes seconds a case


@click.command("bench")
@click.argument("ops", nargs=-1, metavar="[OP]...")
@options.plugin
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="32x96x55x55",
    help="Time at this shape (repeatable, or commas).",
)
@click.option("--sweep", metavar="1k..1g", help="Time at sizes from so many to so many elements.")
@click.option(
    "--device",
    "device_names",
    type=options.Listed(("auto", "cpu", "cuda")),
    default="auto",
    help="cpu, cuda or both with a comma; auto is every device found.",
)
@click.option("--dtype", "dtypes", type=options.Listed(DTYPES), default="float32", show_default=True)
@click.option(
    "--format",
    "formats",
    type=options.Listed(FORMATS),
    default="",
    help="Memory formats; all that a kernel takes.",
)
@click.option(
    "--direction", "directions", type=options.Listed(("forward", "backward")), default="forward,backward",
    help="forward, backward; both when left out.",
)  # fmt: skip
@click.option(
    "--against", type=click.Choice(["torch"]), help="Time PyTorch beside it, in both memory formats."
)
@click.option(
    "--torch-compile/--no-torch-compile", default=None, help="torch.compile too; when left out, if few cases."
)
@click.option(
    "--first-call/--no-first-call",
    default=None,
    help="Time compiling and loading in fresh processes; when left out, if few cases.",
)
@click.option("--seconds", type=click.FloatRange(0.01), default=1.0, show_default=True, help="For each row.")
@click.option("--save", metavar="FILE", help="Write the result as JSON.")
@click.option("--compare", "before", metavar="FILE", help="Compare with a saved result.")
@click.option(
    "--fail-on", type=click.Choice(["slower"]), help="With --compare: end with status 1 when a row is SLOWER."
)
@click.option("--plot", metavar="FILE", help="Draw the roofline, with --sweep the sizes too (PNG, SVG).")
@options.as_json
@options.debug
@click.pass_context
def command(
    ctx: click.Context,
    ops: tuple[str, ...],
    plugins: tuple[str, ...],
    shapes: tuple[str, ...],
    sweep: str | None,
    device_names: tuple[str, ...],
    dtypes: tuple[str, ...],
    formats: tuple[str, ...],
    directions: tuple[str, ...],
    against: str | None,
    torch_compile: bool | None,
    first_call: bool | None,
    seconds: float,
    save: str | None,
    before: str | None,
    fail_on: str | None,
    plot: str | None,
    as_json: bool,
) -> int:
    """Time ops, forward and backward; every op of the registry when none is named.

    Shapes are the op's own unless --shape or --sweep says otherwise. Each kernel's output and gradients are checked
    against its float64 reference first: a wrong one shows WRONG instead of a time, and the status is 1, as where nothing
    could be timed.

    limit: the share of what this machine can do, a copy of the bytes that must move, or (marked f) its peak
    arithmetic. extra: memory beyond inputs and outputs. first, load: the first call in a fresh process, compiled or
    from the cache. call: the cost of a call that has nothing to compute. x torch: PyTorch's time in its better memory
    format over ours, with the 95 % interval; above 1 we are faster.
    """
    from normcore.errors import UsageError
    from normcore.measuring import cases as parsing
    from normcore.measuring import compare as comparing
    from normcore.measuring import peer, plots
    from normcore.measuring.bench import Settings, failed
    from normcore.measuring.run import plan, run

    if shapes and sweep:
        raise UsageError("--shape and --sweep: expected one of them, got both")
    if fail_on and before is None:
        raise UsageError("--fail-on: needs --compare FILE, a result to compare with")
    given = [parsing.parse_shape(part) for text in shapes for part in text.split(",")]
    sizes = parsing.parse_sweep(sweep) if sweep else ()
    if plot:
        plots.check(plot)
    if save and not Path(save).resolve().parent.is_dir():
        raise UsageError(f"--save {save}: expected a file in a folder that exists")
    earlier = comparing.read(before) if before else None
    registry = options.load_plugins(plugins)
    found = [registry.get("op", name).component for name in ops]
    where = options.devices(device_names)
    torch = None
    if against:
        torch = peer.load()
        _restart_tuned(ctx)
    chosen = found or [r.component for r in registry.all("op")]
    cases, left_out = plan(chosen, given, sizes, dtypes, formats, where, plugins, strict=bool(ops))
    first = first_call if first_call is not None else len(cases) <= FEW
    compiles = torch_compile if torch_compile is not None else len(cases) <= VERY_FEW
    settings = Settings(seconds, torch=torch, compile=bool(against and compiles), directions=directions)
    with Progress(sys.stderr) as progress:
        document = run(cases, settings, first, progress, left_out, strict=bool(ops))
    if torch is not None and not peer.tuned():
        document["left_out"].append("a tuned allocator: PyTorch page-faults large outputs, which flatters us")
    if save:
        Path(save).write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    if plot:
        plots.draw(plot, document["machine"], document["rows"], bool(sweep))
    compared = comparing.compare(earlier["rows"], document["rows"]) if earlier else []
    changed = comparing.differences(earlier["machine"], document["machine"]) if earlier else []
    if as_json:
        extra = {"comparison": [c.as_dict() for c in compared], "differs": changed} if earlier else {}
        options.print_json({**document, **extra})
    else:
        _print(document, compared, changed, earlier is not None)
    slower = fail_on and any(c.verdict == comparing.SLOWER for c in compared)
    return 1 if failed(document["rows"]) or slower or not document["rows"] else 0


def _restart_tuned(ctx: click.Context) -> None:
    """Start this command anew with an allocator that keeps its memory, as our own planned buffers are kept."""
    from normcore.measuring import peer

    own = ctx.find_root().obj or {}
    if peer.tuned() or not own.get("own_process"):
        return
    sys.stdout.flush()
    os.execve(
        sys.executable,
        [sys.executable, "-m", "normcore_cli.main", *sys.argv[1:]],
        {**os.environ, **peer.TUNED},
    )


def _print(document: dict[str, Any], compared: list[Any], changed: list[str], has_earlier: bool) -> None:
    from rich.console import Console

    from normcore_cli import bench_table

    console = Console(file=sys.stdout, width=bench_table.WIDTH, highlight=False)
    bench_table.show(document, console)
    if has_earlier:
        if compared:
            bench_table.comparison(compared, changed, console)
        else:
            console.print("nothing to compare: the saved result has none of these rows")


class Progress:
    """What is being timed: one line that is redrawn in a terminal, a line now and then elsewhere."""

    def __init__(self, stream: Any):
        self.stream, self.bar, self.task = stream, None, None
        self._said = 0.0

    def __enter__(self) -> "Progress":
        if self.stream.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
            from rich.progress import Progress as Bar

            # Not refreshed by a thread of its own: that would compete with the kernels.
            columns = (BarColumn(16), MofNCompleteColumn(), TextColumn("{task.description}"))
            self.bar = Bar(*columns, console=Console(file=self.stream), auto_refresh=False, transient=True)
            self.bar.start()
            self.task = self.bar.add_task("")
        return self

    def __call__(self, done: int, total: int, label: str) -> None:
        import time

        if self.bar is not None:
            self.bar.update(self.task, completed=done, total=total, description=label)
            self.bar.refresh()
        elif label and time.monotonic() - self._said > 5.0:
            self._said = time.monotonic()
            print(f"timing {done + 1} of {total}: {label}", file=self.stream, flush=True)

    def __exit__(self, *exception: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
