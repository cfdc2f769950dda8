"""A whole run of the bench: cases in, one document out, which the command line, the benches and JSON share.

    {"machine": {...}, "rows": [...], "devices": [...], "left_out": [...]}

devices: the CPU beside the GPU, for cases that ran on both. left_out: what was not timed, and why.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from normcore.devices import device as devices
from normcore.errors import DeviceError, MemoryBudgetError, NormcoreError, UsageError
from normcore.measuring import devices_compared, first_call, machine
from normcore.measuring.bench import Bench, Settings
from normcore.measuring.cases import BenchCase, cases_of, samples_for
from normcore.op import Op, Shape

Document = dict[str, Any]
Progress = Callable[[int, int, str], None]  # done, of how many, what comes now


def silent(done: int, total: int, label: str) -> None:
    """No progress."""


def plan(
    ops: Iterable[type[Op]],
    shapes: Sequence[Shape] = (),
    sizes: Sequence[int] = (),
    dtypes: Sequence[str] = ("float32",),
    formats: Sequence[str] = (),
    wanted_devices: Sequence[str] = ("cpu",),
    plugins: Sequence[str] = (),
    strict: bool = True,
) -> tuple[list[BenchCase], list[str]]:
    """The cases, and what is left out with the reason. strict: an op that cannot be timed as asked is an error."""
    cases: list[BenchCase] = []
    left_out: list[str] = []
    for cls in ops:
        if cls.is_view:
            left_out.append(f"{cls.name}: a view, which moves nothing and runs no kernel")
            continue
        if "cpu" not in wanted_devices and not cls.has_cuda():
            if strict:
                raise DeviceError(f"op {cls.name!r} has no CUDA kernels; use --device cpu")
            left_out.append(f"{cls.name}: no CUDA kernels")
            continue
        try:
            samples = list(samples_for(cls, shapes, sizes))
        except NormcoreError as fault:
            if strict:
                raise
            left_out.append(f"{cls.name}: {fault}")
            continue
        if not samples:
            left_out.append(f"{cls.name}: takes none of the sizes")
        cases += cases_of(cls, samples, dtypes, formats, wanted_devices, plugins)
    return cases, left_out


def run(
    cases: Sequence[BenchCase],
    settings: Settings,
    first_calls: bool = False,
    progress: Progress = silent,
    left_out: Sequence[str] = (),
    strict: bool = True,
) -> Document:
    """Time every case. An op that fails while it runs becomes a row that says so; the others go on.

    strict: a shape that an op refuses only when it runs is an error, not left out.
    """
    bench, missed = Bench(settings), list(left_out)
    rows: list[dict[str, Any]] = []
    timed: list[BenchCase] = []
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    total = len(cases) + first_calls
    for number, case in enumerate(cases):
        progress(
            number, total, f"{case.op.name} {case.shape_text} {case.dtype} {case.memory_format} {case.device}"
        )
        try:
            rows += [_labelled(row, case) for row in bench.rows(case)]
            timed.append(case)
        except MemoryBudgetError as fault:
            missed.append(str(fault))
        except UsageError as fault:
            if strict:
                raise
            missed.append(f"{case.op.name}: {fault}")
        except (
            Exception
        ) as fault:  # an author's op may fail in any way; the other rows are still worth having
            rows += [_labelled(row, case) for row in bench.broken(case, f"{type(fault).__name__}: {fault}")]
    if first_calls and timed:
        progress(len(cases), total, "first calls, in processes of their own")
        _add_first_calls(timed, rows)  # not of what does not fit into memory, or failed
    progress(total, total, "")
    used = [devices.get(name) for name in dict.fromkeys(case.device for case in cases)]
    about = machine.describe(used)
    about["limits"] = bench.limits()
    about["measured"] = started
    return {
        "machine": about,
        "rows": rows,
        "devices": devices_compared.compare(rows),
        "left_out": missed,
    }


def _labelled(row: dict[str, Any], case: BenchCase) -> dict[str, Any]:
    row["shape_text"], row["reason"] = case.shape_text, case.sample.reason
    return row


def _add_first_calls(cases: Sequence[BenchCase], rows: list[dict[str, Any]]) -> None:
    """Fill in first_call_s and cached_load_s."""

    def key(op: str, dtype: str, format: str, device: str, shapes: Any) -> tuple[Any, ...]:
        return op, dtype, format, device, str(shapes)

    found = {}
    for case, seconds in zip(cases, first_call.measure(cases), strict=True):
        shapes = [list(s) for s in case.shapes]
        shape = shapes[0] if len(shapes) == 1 else shapes
        found[key(case.op.name, case.dtype, case.memory_format, case.device, shape)] = seconds
    for row in rows:
        of = found.get(key(row["op"], row["dtype"], row["memory_format"], row["device"], row["shape"]))
        if of is not None and row["correct"] is True:
            row["first_call_s"] = of[0].get(row["direction"])
            row["cached_load_s"] = of[1].get(row["direction"])
