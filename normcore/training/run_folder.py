"""A run's folder: config.yaml, environment.json, preprocessing.safetensors, metrics.jsonl and checkpoints/."""

import contextlib
import json
import pathlib
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from normcore import weights_file
from normcore.errors import UsageError
from normcore.training.checkpoint import write_bytes


class RunFolder:
    """Paths and files of one run. Make new ones with `create`, open finished ones with `open`."""

    def __init__(self, path: pathlib.Path, made: Sequence[pathlib.Path] = ()):
        """made: the folders around it that were made for it, the nearest first."""
        self.path, self._made = path, made
        self.checkpoints = path / "checkpoints"
        self.config_file = path / "config.yaml"
        self.metrics_file = path / "metrics.jsonl"
        self.environment_file = path / "environment.json"
        self.preprocessing_file = path / "preprocessing.safetensors"

    @classmethod
    def create(cls, name: str, out: str | None = None, base: str = "runs") -> "RunFolder":
        """A new folder: `out`, or the next free runs/NAME-N. Raises UsageError when `out` exists and is not empty."""
        if out is not None:
            path = pathlib.Path(out)
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(
                    f"--out {out}: it exists already; name another folder, or add --resume to go on with it"
                )
            made = _missing(path)
            path.mkdir(parents=True, exist_ok=True)
            return cls(path, made)
        root = pathlib.Path(base)
        made = _missing(root / name)
        root.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            path = root / f"{name}-{number}"
            try:
                path.mkdir()
                return cls(path, made)
            except FileExistsError:
                number += 1

    def discard(self) -> None:
        """Take the folder away, and what was made around it for it and is empty."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):  # another run has come to live there
            for folder in self._made:
                folder.rmdir()

    @classmethod
    def open(cls, path: str | pathlib.Path) -> "RunFolder":
        """An existing run. Raises UsageError when the folder is none."""
        run = cls(pathlib.Path(path))
        if not run.config_file.is_file():
            raise UsageError(
                f"{path}: expected a run's folder (with config.yaml), as `normcore train` leaves it"
            )
        return run

    def write_config(self, text: str) -> None:
        write_bytes(self.config_file, text.encode())

    def write_environment(self, device: Any, seed: int, plugins: list[Mapping[str, str]]) -> None:
        import numba

        import normcore

        described = {
            "normcore": normcore.__version__,
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "numba": numba.__version__,
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "threads": numba.get_num_threads(),
            "device": device.name,
            "seed": seed,
            "plugins": plugins,
        }
        write_bytes(self.environment_file, json.dumps(described, indent=1).encode())

    def write_preprocessing(self, arrays: Mapping[str, np.ndarray]) -> None:
        weights_file.write(self.preprocessing_file, arrays)

    def read_preprocessing(self) -> dict[str, np.ndarray]:
        """The arrays that the data were normalized with in training. Raises DataError."""
        return weights_file.read(self.preprocessing_file)

    def append_metrics(self, metrics: Mapping[str, Any]) -> None:
        with open(self.metrics_file, "a", encoding="utf-8", newline="\n") as out:
            out.write(json.dumps(metrics) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a line that was cut off is left out."""
        found = []
        if self.metrics_file.exists():
            for line in self.metrics_file.read_text(encoding="utf-8").splitlines():
                try:
                    found.append(json.loads(line))
                except ValueError:
                    break  # written when the process was killed; the epoch runs again
        return found

    def cut_metrics(self, epochs: int) -> None:
        """Drop lines of epochs after `epochs`: a resumed run writes them again."""
        kept = [m for m in self.read_metrics() if m.get("epoch", 0) <= epochs]
        write_bytes(self.metrics_file, "".join(json.dumps(m) + "\n" for m in kept).encode())


def _missing(path: pathlib.Path) -> list[pathlib.Path]:
    """The folders above a path that are not there, the nearest first."""
    return [folder for folder in path.parents if not folder.exists()]
