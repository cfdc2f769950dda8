"""IDX files, the format of the original MNIST: a small big-endian header, then the numbers; plain or gzipped.

Header: two zero bytes, one byte for the type, one for the number of dimensions, then each size as 4 bytes.
Source: http://yann.lecun.com/exdb/mnist/ ("the IDX file format").
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from normcore.data.dataset import Dataset, dataset
from normcore.data.source import DataSource, located
from normcore.data.sources.arrays import check_classes
from normcore.errors import DataError

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class Idx(DataSource, name="idx"):
    """A folder of IDX files as MNIST and its kin have them: train-images..., train-labels..., t10k-images...,
    ...

    Names may carry a prefix and .gz ("emnist-letters-train-images-idx3-ubyte.gz"); "test" stands for "t10k"
    too. Plain files stay on disk and are read as memory maps. classes: as in `npz`.
    """

    path: str
    classes: int | None = None

    def check(self) -> None:
        check_classes(self.classes)

    def load(self, base: Path) -> Dataset:
        folder = located(self.path, base, "folder")
        x_train, y_train = (read_idx(_find(folder, ("train",), kind)) for kind in ("images", "labels"))
        found = [_find(folder, ("t10k", "test"), kind, required=False) for kind in ("images", "labels")]
        if found[0] is None and found[1] is None:
            return dataset(str(folder), x_train, np.asarray(y_train), classes=self.classes)
        x_test, y_test = (read_idx(_find(folder, ("t10k", "test"), kind)) for kind in ("images", "labels"))
        return dataset(
            str(folder), x_train, np.asarray(y_train), x_test, np.asarray(y_test), classes=self.classes
        )


def _find(folder: Path, parts: tuple[str, ...], kind: str, required: bool = True) -> Path | None:
    names = sorted(p.name for p in folder.iterdir() if p.is_file())
    fitting = [
        n for n in names if any(part in n for part in parts) and kind in n and ("idx" in n or "ubyte" in n)
    ]
    if len(fitting) == 2 and fitting[1] == fitting[0] + ".gz":
        fitting = fitting[:1]  # the same file, plain and packed
    if len(fitting) == 1:
        return folder / fitting[0]
    pattern = f"*{'|'.join(parts)}*{kind}*idx*"
    if fitting:
        raise DataError(
            f"{folder}: {len(fitting)} files fit {pattern}: {', '.join(fitting)}; keep one set to a folder"
        )
    if not required:
        return None
    raise DataError(
        f"{folder}: no file fits {pattern} (such as "
        f"{parts[0]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte.gz); "
        f"found {', '.join(names[:8]) or 'nothing'}"
    )


def read_idx(file: Path | None) -> np.ndarray:
    """One IDX file, gzipped or a read-only memory map. Raises DataError for a wrong header or a wrong
    length."""
    assert file is not None
    packed = file.suffix == ".gz"
    try:
        if packed:
            with gzip.open(file) as opened:
                content = opened.read()
            head, length = content[:1028], len(content)
        else:
            with file.open("rb") as opened:
                head, length = opened.read(1028), file.stat().st_size
    except (OSError, EOFError, zlib.error) as fault:
        raise DataError(
            f"{file} cannot be read ({fault}); it may be truncated: copy or download it again"
        ) from fault
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _TYPES or len(head) < 4 + 4 * head[3]:
        raise DataError(
            f"{file} is no IDX file: it begins with {head[:4].hex(' ') or 'nothing'}, expected 00 00 TYPE "
            f"DIMENSIONS"
        )
    dtype = np.dtype(_TYPES[head[2]])
    shape = struct.unpack(f">{head[3]}I", head[4 : 4 + 4 * head[3]])
    start = 4 + 4 * head[3]
    expected = start + math.prod(shape) * dtype.itemsize
    if length != expected:
        raise DataError(
            f"{file} has {length} bytes, its header {shape} of {dtype.name} asks for {expected}; "
            f"it is {'truncated' if length < expected else 'too long'}: copy or download it again"
        )
    if packed:
        return np.frombuffer(content, dtype, offset=start).reshape(shape)
    if math.prod(shape) == 0:
        return np.empty(shape, dtype)
    return np.memmap(file, dtype, "r", start, shape)
