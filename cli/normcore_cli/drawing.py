"""What the commands that draw share: the file's name and matplotlib checked before any work, and saving."""

import pathlib
from typing import Any

from normcore.errors import UsageError

INSTALL = 'pip install "normcore[plot]"'
FORMATS = (".png", ".svg")


def target(option: str, path: str) -> pathlib.Path:
    """The file to draw into. Raises UsageError for a name that says no format, and a folder that is not there."""
    found = pathlib.Path(path)
    if found.suffix.lower() not in FORMATS:
        raise UsageError(f"{option}: expected a file name ending in .png or .svg, got {path!r}")
    if not found.resolve().parent.is_dir():
        raise UsageError(
            f"{option}: {path} cannot be written: there is no folder {found.parent}; make it, or name another file"
        )
    return found


def figure(option: str, width: float, height: float) -> Any:
    """An empty figure. Raises UsageError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError(f"{option} needs matplotlib, which is not installed: {INSTALL}") from None
    made = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(made)
    return made


def save(option: str, figure: Any, path: pathlib.Path) -> None:
    """Write the figure. Raises UsageError when the file cannot be written."""
    try:
        figure.savefig(path)
    except OSError as fault:
        raise UsageError(f"{option}: {path} cannot be written ({fault.strerror or fault})") from None
