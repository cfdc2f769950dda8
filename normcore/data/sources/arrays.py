"""Sources that hold NumPy arrays: the packaged digits, one .npz file, a folder of .npy files."""

import contextlib
import importlib.resources
import io
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from normcore.data.dataset import Dataset, dataset
from normcore.data.source import DataSource, located
from normcore.errors import DataError, ParameterError

Layout = Literal["channels_last", "channels_first", "sequences", "as_is"]
_TRAIN = ("x_train", "y_train")
_TEST = ("x_test", "y_test")
_LENGTHS = ("lengths_train", "lengths_test")


class MnistSample(DataSource, name="mnist_sample"):
    """6,000 + 1,000 handwritten digits, 28 x 28 grey, that come with the package (MNIST, LeCun and Cortes).

    columns: each image as the sequence of its columns from the first to the last with ink, so that a digit is
    as long as it is wide: (28, 28) from [0, 1], with lengths.
    """

    columns: bool = False

    def load(self, base: Path) -> Dataset:
        file = importlib.resources.files("normcore.data") / "files" / "mnist_sample.npz"
        arrays = read_npz(io.BytesIO(file.read_bytes()), "mnist_sample")
        if self.columns:
            for part in ("train", "test"):
                arrays[f"x_{part}"], arrays[f"lengths_{part}"] = inked_columns(arrays[f"x_{part}"])
        return _assembled("mnist_sample", arrays, "channels_last", 10)


class Npz(DataSource, name="npz"):
    """A NumPy .npz file with x_train, y_train, x_test, y_test, and names (of the classes) if it likes.

    layout: how samples lie: images channels_last (N, H, W) or (N, H, W, C) or channels_first (N, C, H, W),
    sequences (N, T, C), or as_is for anything else. lengths_train and lengths_test, if the file has them, say
    where sequences end; a layer reads them by `inputs: [input, lengths]`. classes: the number of classes where
    the training labels do not show them all. x_test and y_test may be missing together if data.test gives a
    share.
    """

    path: str
    layout: Layout = "channels_last"
    classes: int | None = None

    def check(self) -> None:
        check_classes(self.classes)

    def load(self, base: Path) -> Dataset:
        file = located(self.path, base, "file")
        return _assembled(str(file), read_npz(file, str(file)), self.layout, self.classes)


class Npy(DataSource, name="npy"):
    """A folder with x_train.npy, y_train.npy, x_test.npy, y_test.npy; samples stay on disk until they are
    used.

    For data larger than memory: the files are memory maps. layout and classes as in `npz`.
    """

    path: str
    layout: Layout = "channels_last"
    classes: int | None = None

    def check(self) -> None:
        check_classes(self.classes)

    def load(self, base: Path) -> Dataset:
        folder = located(self.path, base, "folder")
        arrays = {}
        for key in (*_TRAIN, *_TEST, *_LENGTHS):
            file = folder / f"{key}.npy"
            if file.is_file():
                arrays[key] = read_npy(file, mapped=key.startswith("x"))
        return _assembled(str(folder), arrays, self.layout, self.classes)


def inked_columns(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sequences (N, W, H) of float32 in [0, 1], lengths (N,)) of uint8 images (N, H, W), each with some ink."""
    inked = np.asarray(images.any(1))
    first = inked.argmax(1)
    lengths = images.shape[2] - inked[:, ::-1].argmax(1) - first
    steps = np.arange(images.shape[2])
    place = np.minimum(first[:, None] + steps, len(steps) - 1)
    columns = images.transpose(0, 2, 1)[np.arange(len(images))[:, None], place]
    columns[steps >= lengths[:, None]] = 0
    return columns.astype(np.float32) / np.float32(255), lengths


def check_classes(classes: int | None) -> None:
    """ParameterError unless `classes` is None or at least 1."""
    if classes is not None and classes < 1:
        raise ParameterError("classes", "a number of classes of at least 1", classes)


def read_npz(file: Path | BinaryIO, name: str) -> dict[str, np.ndarray]:
    """All arrays of an .npz file. Raises DataError for a truncated or foreign file and for pickled
    objects."""
    single = f"{name} is a single array (.npy); expected an .npz file with x_train, y_train, x_test, y_test"
    try:
        # Opened here: NumPy leaves a file that it opened itself open when it turns out to be no archive.
        with file.open("rb") if isinstance(file, Path) else contextlib.nullcontext(file) as binary:
            opened = np.load(binary, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                raise DataError(single)
            with opened:
                return {key: opened[key] for key in opened.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, OSError, KeyError) as fault:
        raise DataError(_unreadable(name, "npz", fault)) from fault


def read_npy(file: Path, mapped: bool = False) -> np.ndarray:
    """One .npy file, as a read-only memory map if wanted. Raises DataError as `read_npz` does."""
    try:
        array = np.load(file, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (EOFError, ValueError, OSError) as fault:
        raise DataError(_unreadable(str(file), "npy", fault)) from fault
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(f"{file} is an .npz file; expected a single array (.npy)")
    return array


def _unreadable(name: str, kind: str, fault: Exception) -> str:
    if "pickle" in str(fault).lower():
        return f"{name}: no whole .{kind} file, or it holds Python objects (never loaded); store numbers"
    reason = str(fault) or type(fault).__name__
    return f"{name} cannot be read as .{kind} ({reason}); it may be truncated: write or copy it again"


def _assembled(name: str, arrays: dict[str, np.ndarray], layout: str, classes: int | None) -> Dataset:
    missing = [key for key in _TRAIN if key not in arrays]
    test = [key for key in _TEST if key in arrays]
    missing += [key for key in _TEST if key not in arrays] if missing or len(test) == 1 else []
    if missing:
        found = ", ".join(sorted(arrays)) or "nothing"
        raise DataError(
            f"{name} lacks {', '.join(missing)}; expected x_train, y_train, x_test, y_test, found {found}"
        )
    names = arrays.get("names")
    class_names = None
    if names is not None and names.ndim == 1 and names.dtype.kind in "US":
        class_names = tuple(str(n.decode() if isinstance(n, bytes) else n) for n in names.tolist())
        if classes is not None and classes != len(class_names):
            raise DataError(
                f"{name} names {len(class_names)} classes, data.classes says {classes}; leave data.classes "
                f"out"
            )
    x_test, y_test = (arrays[key] for key in _TEST) if test else (None, None)
    return dataset(
        name, arrays["x_train"], arrays["y_train"], x_test, y_test,
        layout=layout, classes=classes, class_names=class_names,
        lengths_train=arrays.get("lengths_train"), lengths_test=arrays.get("lengths_test"),
    )  # fmt: skip
