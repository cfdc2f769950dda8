"""What the bench suites share: rows measured once a case, gathered, and written to benches/results/."""

import json
import os
import pathlib
import time

from normcore.devices import device as devices
from normcore.errors import NormcoreError
from normcore.measuring import machine, peer
from normcore.measuring.bench import Bench, Settings

RESULTS = pathlib.Path(__file__).parent / "results"


SETTINGS = {"seconds": 1.0}  # for a row's rounds; --bench-seconds


def torch_or_none():
    try:
        return peer.load()
    except NormcoreError:
        return None


class Recorder:
    """Rows of the op benches by case, and whatever other suites add; written when the session ends."""

    def __init__(self):
        self.bench = None
        self.rows = []
        self.other = {}
        self._known = {}

    def row(self, case, direction):
        """The row of a case and direction, or None; both directions are measured at the first asking."""
        if self.bench is None:
            self.bench = Bench(Settings(seconds=SETTINGS["seconds"], torch=torch_or_none()))
        key = id(case)
        if key not in self._known:
            found = self.bench.rows(case)
            for row in found:
                row["shape_text"], row["reason"] = case.shape_text, case.sample.reason
            self.rows += found
            self._known = {key: found}  # the arrays of one case are enough
        return next((row for row in self._known[key] if row["direction"] == direction), None)

    def add(self, name, **values):
        """A result of another suite, under its name."""
        self.other[name] = values

    def write(self, path):
        """Into the file: new rows replace those of the same case, the rest of the file stays."""
        path = pathlib.Path(path)
        before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        about = machine.describe([devices.get("cpu")])
        if self.bench is not None:
            about["limits"] = self.bench.limits()
        elif "machine" in before:
            about["limits"] = before["machine"].get("limits", {})
        about["measured"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        new = {identity(row) for row in self.rows}
        kept = [row for row in before.get("rows", []) if identity(row) not in new]
        document = {
            "machine": about,
            "rows": sorted(kept + self.rows, key=identity),
            "other": {**before.get("other", {}), **self.other},
        }
        temporary = path.with_suffix(".partial")
        temporary.write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
        os.replace(temporary, path)


def identity(row):
    names = ("op", "shape", "parameters", "memory_format", "dtype", "device", "direction")
    return json.dumps([row[n] for n in names], sort_keys=True)
