"""CIFAR-10 and CIFAR-100 in the binary version: records of one (two) label bytes and 3 x 32 x 32 pixel bytes.

Source: Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/cifar.html ("binary version"; the Python version is
pickle, which is never loaded here).
"""

from pathlib import Path
from typing import Literal

import numpy as np

from normcore.data.dataset import Dataset, dataset
from normcore.data.source import DataSource, located
from normcore.errors import DataError

_PIXELS = 3 * 32 * 32


class Cifar10(DataSource, name="cifar10"):
    """CIFAR-10, binary version: a folder with data_batch_1.bin .. data_batch_5.bin and test_batch.bin.

    Fewer than five training files are taken as they are; batches.meta.txt gives the class names if it is
    there.
    """

    path: str

    def load(self, base: Path) -> Dataset:
        folder = _folder(located(self.path, base, "folder"), "test_batch.bin")
        files = sorted(folder.glob("data_batch_*.bin"))
        if not files:
            raise DataError(
                f"{folder} lacks data_batch_1.bin .. data_batch_5.bin; expected CIFAR-10's binary version"
            )
        parts = [read_cifar(file, 1) for file in files]
        x_train, y_train = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        x_test, y_test = read_cifar(folder / "test_batch.bin", 1)
        names = _names(folder / "batches.meta.txt", 10)
        return _dataset(folder, x_train, y_train[:, 0], x_test, y_test[:, 0], 10, names)


class Cifar100(DataSource, name="cifar100"):
    """CIFAR-100, binary version: a folder with train.bin and test.bin.

    labels: fine (100 classes) or coarse (20). fine_label_names.txt and coarse_label_names.txt give names if
    there.
    """

    path: str
    labels: Literal["fine", "coarse"] = "fine"

    def load(self, base: Path) -> Dataset:
        folder = _folder(located(self.path, base, "folder"), "test.bin")
        column, classes = (0, 20) if self.labels == "coarse" else (1, 100)
        x_train, y_train = read_cifar(folder / "train.bin", 2)
        x_test, y_test = read_cifar(folder / "test.bin", 2)
        names = _names(folder / f"{self.labels}_label_names.txt", classes)
        return _dataset(folder, x_train, y_train[:, column], x_test, y_test[:, column], classes, names)


def read_cifar(file: Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and label bytes (N, label_bytes), both uint8. Raises DataError."""
    if not file.is_file():
        raise DataError(f"{file}: there is no such file; expected CIFAR's binary version, unpacked")
    content = np.fromfile(file, np.uint8)
    record = label_bytes + _PIXELS
    if len(content) == 0 or len(content) % record:
        raise DataError(
            f"{file} has {len(content)} bytes, which is no whole number of records of {record}; it is "
            f"truncated or of "
            "another format: unpack or download it again"
        )
    records = content.reshape(-1, record)
    return np.ascontiguousarray(records[:, label_bytes:]).reshape(-1, 3, 32, 32), records[:, :label_bytes]


def _folder(folder: Path, file: str) -> Path:
    """The folder that holds `file`: this one, or the one that the archive unpacks to."""
    if (folder / file).is_file():
        return folder
    inside = sorted(p.parent for p in folder.glob(f"*/{file}"))
    return inside[0] if len(inside) == 1 else folder


def _names(file: Path, classes: int) -> tuple[str, ...] | None:
    if not file.is_file():
        return None
    names = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    if len(names) != classes:
        raise DataError(
            f"{file} holds {len(names)} names; expected {classes}, one to a line (or remove the file)"
        )
    return names


def _dataset(folder, x_train, y_train, x_test, y_test, classes, names) -> Dataset:  # type: ignore[no-untyped-def]
    return dataset(
        str(folder), x_train, y_train, x_test, y_test,
        layout="channels_first", classes=classes, class_names=names,
    )  # fmt: skip
