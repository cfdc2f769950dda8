"""Two results of the bench side by side: FASTER, SLOWER, SAME or UNSURE for each row, by their intervals.

The speed-up of a row lies between its lower bound (the earlier time's lower end over the later one's upper end) and
its upper bound. What the whole interval says decides: FASTER above 1, SLOWER below, SAME when the two differ by less
than a tenth whatever the truth, else UNSURE. What two runs differ by anyway is part of the intervals (timer.py).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from normcore.errors import DataError

FASTER, SLOWER, SAME, UNSURE = "FASTER", "SLOWER", "SAME", "UNSURE"
ALIKE = 1.10
KEY = ("op", "parameters", "direction", "dtype", "memory_format", "device", "shape")


@dataclass(frozen=True)
class Comparison:
    """speedup: earlier over later time, above 1 is faster now; low, high: its interval."""

    row: Mapping[str, Any]
    verdict: str
    speedup: float
    low: float
    high: float

    def as_dict(self) -> dict[str, Any]:
        names = ("verdict", "speedup", "low", "high")
        return {**{k: self.row[k] for k in KEY}, **{n: getattr(self, n) for n in names}}


def verdict(low: float, high: float) -> str:
    """The verdict on a speed-up between low and high."""
    if low > 1.0:
        return FASTER
    if high < 1.0:
        return SLOWER
    if low >= 1 / ALIKE and high <= ALIKE:
        return SAME
    return UNSURE


def compare(before: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> list[Comparison]:
    """The rows that both results have and that carry a time in both, in the order of `now`."""
    known = {_key(row): row for row in before if row.get("median_s")}
    found = []
    for row in now:
        old = known.get(_key(row))
        if old is None or not row.get("median_s"):
            continue
        (old_low, old_high), (new_low, new_high) = old["interval_s"], row["interval_s"]
        low, high = old_low / new_high, old_high / new_low
        found.append(Comparison(row, verdict(low, high), old["median_s"] / row["median_s"], low, high))
    return found


def agreeing(compared: Iterable[Comparison]) -> int:
    """How many rows took the same time in both results, as far as their intervals tell."""
    return sum(found.verdict in (SAME, UNSURE) for found in compared)


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the machines differs, so that the comparison is not one of kernels alone."""
    names = ("processor", "cores", "threads", "threading_layer", "gpu", "python", "versions")
    return [
        f"{name}: {before.get(name)} before, {now.get(name)} now"
        for name in names
        if before.get(name) != now.get(name)
    ]


def read(path: str | Path) -> dict[str, Any]:
    """A saved result. Raises DataError when it is none."""
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise DataError(
            f"--compare {path}: expected a file that `normcore bench --save` wrote ({fault})"
        ) from None
    rows = document.get("rows") if isinstance(document, dict) else None
    complete = isinstance(rows, list) and all(
        isinstance(row, dict) and all(k in row for k in KEY) for row in rows
    )
    if not complete or not isinstance(document.get("machine"), dict):
        raise DataError(
            f"--compare {path}: expected a file that `normcore bench --save` wrote, with a machine and rows"
        )
    return document  # type: ignore[no-any-return]


def _key(row: Mapping[str, Any]) -> str:
    return json.dumps([row[k] for k in KEY], sort_keys=True)
