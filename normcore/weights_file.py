"""Arrays on disk as safetensors: written as a whole or not at all, one array at a time, and read back checked.

The format is a length, a JSON header and the arrays' bytes (https://huggingface.co/docs/safetensors). The library's
writer joins everything in memory first, twice; a network with half a gigabyte of weights and velocities has better
uses for it, so files are written here and read by the library.
"""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

from normcore.errors import DataError

PIECE = 1 << 22  # bytes hashed at once
TYPES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "uint8": "U8",
    "uint16": "U16",
    "uint32": "U32",
    "int8": "I8",
    "int16": "I16",
    "int32": "I32",
    "int64": "I64",
    "uint64": "U64",
    "bool": "BOOL",
}


def write_whole(target: pathlib.Path, fill: Callable[[BinaryIO], None]) -> None:
    """Write a file under a temporary name by fill(file) and rename it: the whole of it appears, or nothing."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as out:
            fill(out)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write(target: pathlib.Path, arrays: Mapping[str, Any]) -> str:
    """Write host arrays by name; returns the file's SHA-256."""
    header, position = {}, 0
    for name, array in arrays.items():
        end = position + array.nbytes
        header[name] = {
            "dtype": TYPES[str(array.dtype)],
            "shape": list(array.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the arrays start aligned
    digest = hashlib.sha256()

    def fill(out: BinaryIO) -> None:
        parts: list[Any] = [len(text).to_bytes(8, "little"), text]
        for part in [*parts, *arrays.values()]:
            data = (
                part
                if isinstance(part, bytes)
                else np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            )
            out.write(data)
            digest.update(data)

    write_whole(target, fill)
    return digest.hexdigest()


def digest_of(path: pathlib.Path) -> str:
    """The SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file. Raises DataError when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(pathlib.Path(path))  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such weights file") from None
    except (SafetensorError, OSError, ValueError, KeyError) as fault:
        raise DataError(
            f"{path}: expected a safetensors file, this one is damaged or of another kind ({fault})"
        ) from None


def assign(
    own: Mapping[str, Any], arrays: Mapping[str, Any], device: Any, origin: str, owner: str = "network"
) -> None:
    """Copy arrays by name into a device's own ones. Raises DataError naming all that is missing, unknown or
    misshapen; nothing is changed then."""
    faults: list[str] = [f"  {k}: missing" for k in own if k not in arrays]
    faults += [f"  {k}: not in this {owner}" for k in arrays if k not in own]
    faults += [
        f"  {k}: shape {tuple(arrays[k].shape)}, this {owner} has {tuple(own[k].shape)}"
        for k in own
        if k in arrays and tuple(arrays[k].shape) != tuple(own[k].shape)
    ]
    if faults:
        raise DataError(f"{origin}: weights do not fit this {owner}:\n" + "\n".join(faults))
    for name, array in own.items():
        array[...] = device.array(arrays[name], str(array.dtype))
