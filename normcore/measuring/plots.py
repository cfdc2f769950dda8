"""Pictures of a result: the roofline, and a sweep of sizes. PNG or SVG by the file's name; needs matplotlib."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from normcore.errors import ParameterError, UsageError

INSTALL = 'pip install "normcore[plot]"'
KINDS = (".png", ".svg", ".pdf")
LINES = ("-", "--", ":", "-.")


def check(path: str) -> None:
    """Raises UsageError before anything is measured, when the picture could not be drawn afterwards."""
    if Path(path).suffix.lower() not in KINDS:
        raise ParameterError("--plot", f"a file name that ends with {', '.join(KINDS)}", path)
    if not Path(path).resolve().parent.is_dir():
        raise ParameterError("--plot", "a file in a folder that exists", path)
    try:
        import matplotlib  # noqa: F401
    except ImportError as fault:
        raise UsageError(f"--plot needs matplotlib ({fault}): {INSTALL}") from None


def draw(path: str, machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], sweep: bool) -> None:
    """A roofline of all rows, and for a sweep beside it the rate over the size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = [row for row in rows if row.get("median_s")]
    figure = Figure(figsize=(13 if sweep else 7.5, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 2 if sweep else 1, squeeze=False)[0]
    if sweep:
        _sweep(axes[0], timed)
    _roofline(axes[-1], machine, timed)
    figure.suptitle(str(machine.get("gpu") or machine.get("processor", "")), fontsize=10)
    figure.savefig(path, dpi=140)


def _label(row: Mapping[str, Any]) -> str:
    several = f" {row['memory_format'][9:]}" if row["memory_format"] == "channels_last" else ""
    return f"{row['op']} {row['direction']} {row['dtype']} {row['device']}{several}"


def _sweep(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(_label(row), []).append(row)
    for number, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda r: r["elements"])
        x, y = [p["elements"] for p in points], [p["gb_per_s"] for p in points]
        color = f"C{number % 10}"
        axes.plot(x, y, LINES[number // 10 % len(LINES)], marker="o", markersize=3, color=color, label=label)
        low = [p["bytes"] / p["interval_s"][1] / 1e9 for p in points]
        high = [p["bytes"] / p["interval_s"][0] / 1e9 for p in points]
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
    copies = sorted({(r["elements"], r["bytes"] / r["copy_s"] / 1e9) for r in rows})
    axes.plot(*zip(*copies, strict=True), ".", color="0.6", markersize=3, label="a copy of as many bytes")
    axes.set(xscale="log", yscale="log", xlabel="elements of the input", ylabel="GB/s (bytes that must move)")
    axes.grid(True, which="major", alpha=0.3)
    axes.legend(fontsize=7)


def _roofline(axes: Any, machine: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    points = [(r["flops"] / r["bytes"], r["gflops"], r) for r in rows if r["flops"] and r["bytes"]]
    lowest = min([x for x, _, _ in points], default=0.1) / 4
    highest = max([x for x, _, _ in points], default=10.0) * 16
    for device, of in machine.get("limits", {}).items():
        rate = of["copy_gb_per_s"]
        for key, peak in of.items():
            if key.startswith("peak_gflops_"):
                right = max(highest, 4 * peak / rate)
                x = [lowest, peak / rate, right]
                axes.plot(x, [lowest * rate, peak, peak], color="0.4", linewidth=1)
                text = f"{device} {key[12:]}: {peak:,.0f} GFLOP/s, copy {rate:,.0f} GB/s"
                axes.annotate(text, (right, peak), ha="right", va="bottom", fontsize=7)
    seen: dict[str, str] = {}
    for x, y, row in points:
        label = _label(row)
        color = seen.setdefault(label, f"C{len(seen) % 10}")
        marker = "o" if row["direction"] == "forward" else "s"
        fresh = label not in axes.get_legend_handles_labels()[1]
        axes.plot([x], [y], marker, color=color, markersize=4, label=label if fresh else None)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="FLOPs for each byte that must move",
        ylabel="GFLOP/s",
        title="roofline",
    )
    axes.grid(True, which="major", alpha=0.3)
    if 0 < len(seen) <= 24:
        axes.legend(fontsize=6, loc="lower right")
