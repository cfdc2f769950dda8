"""Checkpoints: NAME.safetensors with NAME.json beside it, written to temporary names and renamed.

The JSON is written last and holds the arrays' digest, so a checkpoint that was cut off is told from a good one.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write(
    folder: pathlib.Path, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
) -> pathlib.Path:
    """Write folder/NAME.safetensors and folder/NAME.json; returns the former."""
    from safetensors.numpy import save

    folder.mkdir(parents=True, exist_ok=True)
    data = save({key: np.ascontiguousarray(a) for key, a in arrays.items()})
    target = folder / f"{name}.safetensors"
    described = {**numbers, "sha256": hashlib.sha256(data).hexdigest()}
    # The old description goes first: a crash in between leaves a pair that is seen to be unfinished.
    target.with_suffix(".json").unlink(missing_ok=True)
    write_bytes(target, data)
    write_bytes(target.with_suffix(".json"), json.dumps(described, indent=1).encode())
    return target


def read(path: pathlib.Path) -> Checkpoint:
    """Read a checkpoint. Raises DataError saying it is damaged, and how."""
    from safetensors.numpy import load

    try:
        numbers = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        data = path.read_bytes()
    except (OSError, ValueError) as fault:
        raise DataError(f"checkpoint {path} is damaged: {fault}") from None
    if not isinstance(numbers, dict) or hashlib.sha256(data).hexdigest() != numbers.get("sha256"):
        raise DataError(f"checkpoint {path} is damaged: its content does not match the digest in its .json")
    return Checkpoint(path, load(data), numbers)


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
