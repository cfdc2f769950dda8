"""Checkpoints: NAME.safetensors with NAME.json beside it, written to temporary names and renamed.

The JSON is written last and holds the arrays' digest, so a checkpoint that was cut off is told from a good one.
"""

import json
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from normcore import weights_file
from normcore.errors import DataError

KEPT = 2  # newest ones; the best is kept besides


@dataclass(frozen=True)
class Checkpoint:
    """Arrays by name and the numbers that go with them."""

    path: pathlib.Path
    arrays: Mapping[str, np.ndarray]
    numbers: Mapping[str, Any]


def write_bytes(target: pathlib.Path, data: bytes) -> None:
    """Write a whole file or none of it."""

    def fill(out: BinaryIO) -> None:
        out.write(data)

    weights_file.write_whole(target, fill)


def write(
    folder: pathlib.Path,
    name: str,
    arrays: Mapping[str, np.ndarray],
    numbers: Mapping[str, Any],
    also: str | None = None,
) -> pathlib.Path:
    """Write folder/NAME.safetensors and folder/NAME.json; returns the former. also: a second name for the same."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{name}.safetensors"
    # The old description goes first: a crash in between leaves a pair that is seen to be unfinished.
    target.with_suffix(".json").unlink(missing_ok=True)
    digest = weights_file.write(target, arrays)
    described = json.dumps({**numbers, "sha256": digest}, indent=1).encode()
    write_bytes(target.with_suffix(".json"), described)
    if also is not None:
        second = folder / f"{also}.safetensors"
        second.with_suffix(".json").unlink(missing_ok=True)
        with open(target, "rb") as source:
            weights_file.write_whole(second, lambda out: shutil.copyfileobj(source, out))
        write_bytes(second.with_suffix(".json"), described)
    return target


def read(path: pathlib.Path) -> Checkpoint:
    """Read a checkpoint. Raises DataError saying it is damaged, and how."""
    try:
        numbers = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        digest = weights_file.digest_of(path)
    except (OSError, ValueError) as fault:
        raise DataError(f"checkpoint {path} is damaged: {fault}") from None
    if not isinstance(numbers, dict) or digest != numbers.get("sha256"):
        raise DataError(f"checkpoint {path} is damaged: its content does not match the digest in its .json")
    return Checkpoint(path, weights_file.read(path), numbers)


def newest_good(folder: pathlib.Path, note: Any = None) -> Checkpoint | None:
    """The newest checkpoint that reads well; damaged ones are named through note(message). None if there is none."""
    for path in sorted(folder.glob("epoch-*.safetensors"), reverse=True):
        try:
            return read(path)
        except DataError as fault:
            if note is not None:
                note(str(fault))
    return None


def best(folder: pathlib.Path) -> Checkpoint:
    """The best checkpoint of a run, else the newest good one. Raises DataError when there is none."""
    path = folder / "best.safetensors"
    if path.exists():
        return read(path)
    found = newest_good(folder)
    if found is None:
        raise DataError(f"{folder}: there is no checkpoint yet; let `normcore train` finish an epoch first")
    return found


def prune(folder: pathlib.Path) -> None:
    """Keep the newest ones and the best."""
    for path in sorted(folder.glob("epoch-*.safetensors"), reverse=True)[KEPT:]:
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
