"""The bench's result as people read it: a table a shape, 100 columns wide at most."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from normcore_cli.table import size

WIDTH = 100
COLORS = {"FASTER": "green", "SLOWER": "red", "SAME": "", "UNSURE": "yellow"}
SHORT = {"channels_first": "first", "channels_last": "last"}


def seconds(value: float | None) -> str:
    """12.3 us, 4.56 ms, 7.89 s; a dash for what was not measured."""
    if value is None:
        return "-"
    for unit, one in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= one:
            return f"{value / one:.3g} {unit}" if value < 1000 * one else f"{value / one:.0f} {unit}"
    return f"{value * 1e9:.0f} ns"


def show(document: Mapping[str, Any], console: Any) -> None:
    """Machine, a table for each op and shape, the devices side by side, what was left out."""
    console.print(machine_text(document["machine"]), style="dim")
    rows = document["rows"]
    has_torch = any(row.get("torch_ratio") for row in rows)
    has_compiled = any(row.get("torch_compile_ratio") for row in rows)
    for (op, shape, parameters), group in groupby(
        rows, key=lambda r: (r["op"], r["shape_text"], _parameters(r["parameters"]))
    ):
        console.print()
        console.print(f"[bold]{op}[/bold] {shape}" + (f"  ({parameters})" if parameters else ""))
        console.print(_table(list(group), has_torch, has_compiled))
    for line in notes(rows):
        console.print(line, markup=False)
    if document["devices"]:
        console.print()
        console.print(_devices(document["devices"]))
        for line in crossings(document["devices"]):
            console.print(line, markup=False)
    for line in document["left_out"]:
        console.print(f"left out: {line}", style="dim", markup=False)


def machine_text(about: Mapping[str, Any]) -> str:
    """Two or three lines: what the numbers were measured on, and its limits."""
    caches = ", ".join(f"{level} {size(n)}" for level, n in about["caches"].items())
    lines = [
        f"{about['processor']}, {about['cores']} cores ({about['vectors']}), {about['threads']} threads "
        f"({about['threading_layer']})" + (f", {caches}" if caches else "")
    ]
    if about.get("gpu"):
        clock = f" at {about['gpu_clock']}" if about.get("gpu_clock") else ""
        lines.append(f"{about['gpu']}{clock}, driver {about.get('driver', about.get('driver_cuda', '-'))}")
    lines.append(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    for device, of in about.get("limits", {}).items():
        peaks = [f"{v:,.0f} GFLOP/s {k[12:]}" for k, v in of.items() if k.startswith("peak_gflops_")]
        alone = f" (reading alone {of['read_gb_per_s']:.1f})" if "read_gb_per_s" in of else ""
        lines.append(f"{device}: copy {of['copy_gb_per_s']:.1f} GB/s{alone}, peak {', '.join(peaks)}")
    return "\n".join(lines)


def _parameters(parameters: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in parameters.items())


def _table(rows: Sequence[Mapping[str, Any]], has_torch: bool, has_compiled: bool) -> Any:
    from rich.table import Table

    widths = {
        "direction": 9, "dtype": 7, "format": 6, "device": 6, "median": 8, "±": 4, "GB/s": 6, "limit": 5,
        "extra": 8, "first": 7, "load": 7, "call": 7,
    }  # fmt: skip
    if has_torch:
        widths.pop("extra")
        widths["x torch"] = 16
    if has_compiled:
        widths.pop("load")
        widths["x comp."] = 7
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", width=WIDTH)
    for name, width in widths.items():
        left = name in ("direction", "dtype", "format", "device")
        table.add_column(name, width=width, no_wrap=True, justify="left" if left else "right")
    for row in rows:
        cells = _cells(row)
        table.add_row(*(cells[name] for name in widths))
    return table


def _cells(row: Mapping[str, Any]) -> dict[str, str]:
    cells = {
        "direction": row["direction"],
        "dtype": row["dtype"],
        "format": SHORT[row["memory_format"]],
        "device": row["device"],
    }
    names = ("median", "±", "GB/s", "limit", "extra", "first", "load", "call", "x torch", "x comp.")
    if row["correct"] is not True:
        word = "[bold red]WRONG[/]" if row["correct"] is False else "[yellow]NOT SURE[/]"
        return {**cells, **dict.fromkeys(names, ""), "median": word}
    ratio = row.get("torch_ratio")
    torch = "-"
    if ratio:
        low, high = row["torch_interval"]
        color = "green" if low > 1 else "red" if high < 1 else "yellow"
        torch = f"[{color}]{ratio:.2f}[/] {low:.2f}-{high:.2f}"
    compiled = row.get("torch_compile_ratio")
    values = (
        seconds(row["median_s"]),
        f"{row['spread']:.0%}",
        f"{row['gb_per_s']:.1f}",
        f"{row['share_of_limit']:.0%}" + ("f" if row["bound_by"] == "flops" else ""),
        size(row["extra_bytes"]),
        seconds(row["first_call_s"]),
        seconds(row["cached_load_s"]),
        seconds(row["dispatch_s"]),
        torch,
        f"{compiled:.2f}" if compiled else "-",
    )
    return {**cells, **dict(zip(names, values, strict=True))}


def notes(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong, what could not be checked, and remarks, each once."""
    found: dict[str, None] = {}
    for row in rows:
        name = f"{row['op']} {row['direction']}"
        if row["correct"] is False:
            found[f"WRONG: {name} {row['shape_text']} {row['dtype']} {row['device']}: {row['detail']}"] = None
        elif row["correct"] is None:
            found[f"not timed, because it could not be checked: {name}: {row['detail']}"] = None
        for note in row.get("notes", ()):
            found[f"{row['op']}: {note}"] = None
        if row.get("rounds") and row["spread"] > 0.25 and row["correct"]:
            found[f"{name} {row['shape_text']}: unsteady, other processes were at work"] = None
        if row.get("to_device_s"):
            copies = f"to the GPU {seconds(row['to_device_s'])}, back {seconds(row['to_host_s'])}"
            found[f"{row['op']} {row['shape_text']}: copies apart from the kernel: {copies}"] = None
    return list(found)


def _devices(compared: Sequence[Mapping[str, Any]]) -> Any:
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="dim", title_justify="left")
    table.title = "CPU beside GPU"
    for name in ("op", "direction", "dtype", "elements", "CPU", "GPU", "CPU / GPU", "with copies"):
        left = name in ("op", "direction", "dtype")
        table.add_column(name, no_wrap=True, justify="left" if left else "right")
    for found in compared:
        table.add_row(
            found["op"],
            found["direction"],
            found["dtype"],
            f"{found['elements']:,}",
            seconds(found["cpu_s"]),
            seconds(found["cuda_s"]),
            f"{found['ratio']:.2f}",
            f"{found['ratio_with_copies']:.2f}",
        )
    return table


def crossings(compared: Sequence[Mapping[str, Any]]) -> list[str]:
    """From which size the GPU wins, for each op and direction that ran at several sizes."""
    from normcore.measuring.devices_compared import crossing

    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for found in compared:
        key = (found["op"], found["direction"], found["dtype"])
        groups.setdefault(key, []).append(found)
    lines = []
    for key, points in groups.items():
        if len(points) < 2:
            continue
        sizes = [p["elements"] for p in points]
        texts = []
        for field, how in (("ratio", "without copies"), ("ratio_with_copies", "with copies")):
            at = crossing(sizes, [p[field] for p in points])
            texts.append(f"{how} {'at no measured size' if at is None else f'from {at:,.0f} elements on'}")
        lines.append(f"{' '.join(key)}: the GPU wins {', '.join(texts)}")
    return lines


def comparison(compared: Sequence[Any], changed: Sequence[str], console: Any) -> None:
    """The verdict on each row, how many agree, and what else differs."""
    from rich.table import Table

    from normcore.measuring.compare import agreeing

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("", "speed-up", "interval", "op", "shape"):
        table.add_column(name, no_wrap=True, justify="right" if name == "speed-up" else "left")
    for found in compared:
        row, color = found.row, COLORS[found.verdict]
        what = f"{row['op']} {row['direction']} {row['dtype']} {SHORT[row['memory_format']]} {row['device']}"
        word = f"[{color}]{found.verdict}[/]" if color else found.verdict
        interval = f"{found.low:.2f} to {found.high:.2f}"
        table.add_row(word, f"{found.speedup:.2f}", interval, what, row.get("shape_text", str(row["shape"])))
    console.print()
    console.print(table)
    agree = agreeing(compared)
    console.print(
        f"{agree} of {len(compared)} rows ({agree / len(compared):.0%}) agree within their intervals"
    )
    for line in changed:
        console.print(f"differs: {line}", style="yellow", markup=False)
