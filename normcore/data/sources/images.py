"""A folder of image files, a folder for each class; decoded when used, kept in memory while they fit
there."""

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from normcore.data.dataset import Dataset, dataset
from normcore.data.png import filtered_lines, write_planes
from normcore.data.source import DataSource, located
from normcore.devices.cpu import cores
from normcore.errors import DataError, ParameterError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_THREADS = min(cores(), 8)
_LARGE = (
    1 << 14
)  # values an image: the decoding of a smaller one is over before another thread gets hold of Python
_TEST_NAMES = ("test", "val", "validation")


class Images(DataSource, name="images"):
    """Image files (PNG, JPEG, ...) in one folder for each class: PATH/train/CLASS/*, PATH/test/CLASS/*.

    "val" stands for "test" too; with neither, the classes lie in PATH itself and data.test gives the test
    share. Classes are numbered by sorted name. size: height and width (or one number for both) that images
    are brought to, by cutting out the middle part with that aspect ratio; without it all must have one size.
    channels: 3 (RGB) or 1 (grey). bad_images: what to do about a file that cannot be read: fatal names it and
    stops, skip warns and takes the next good image of its class in its place. memory_mb: decoded images are
    kept up to this much.
    """

    path: str
    size: int | tuple[int, int] | None = None
    channels: Literal[1, 3] = 3
    bad_images: Literal["fatal", "skip"] = "fatal"
    memory_mb: int = 1024

    def check(self) -> None:
        sizes = (self.size,) if isinstance(self.size, int) else self.size or (1,)
        if min(sizes) < 1:
            raise ParameterError("size", "a positive number of pixels, or [height, width]", self.size)
        if self.memory_mb < 0:
            raise ParameterError("memory_mb", "a number of megabytes, 0 or more", self.memory_mb)

    def load(self, base: Path) -> Dataset:
        folder = located(self.path, base, "folder")
        train = folder / "train" if (folder / "train").is_dir() else folder
        test = (
            next((folder / n for n in _TEST_NAMES if (folder / n).is_dir()), None)
            if train != folder
            else None
        )
        names = class_folders(train)
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        x_train, y_train = self._part(train, names, size)
        x_test, y_test = (None, None) if test is None else self._part(test, names, x_train.shape[1:])
        return dataset(str(folder), x_train, y_train, x_test, y_test, class_names=names)

    def _sized(
        self, files: list[Path], labels: list[int]
    ) -> tuple[list[Path], list[int], list[tuple[int, int]]]:
        """Files, labels and sizes, without the files that have none where those may be skipped."""
        from normcore.data.image_file import size_of  # with Pillow, which most runs do without

        good, kept, sizes = [], [], []
        for file, label in zip(files, labels, strict=True):
            try:
                sizes.append(size_of(file))
            except DataError as fault:
                if self.bad_images == "fatal":
                    raise _with_hint(fault) from fault
                _say_skipped(fault)
                continue
            good.append(file)
            kept.append(label)
        for label in sorted(set(labels) - set(kept)):
            folder = files[labels.index(label)].parent
            raise DataError(f"{folder}: no image of this class can be read; replace or remove its files")
        return good, kept, sizes

    def _part(
        self, folder: Path, names: Sequence[str], size: tuple[int, ...] | None
    ) -> tuple["ImageFiles", np.ndarray]:
        unknown = sorted(set(class_folders(folder)) - set(names))
        if unknown:
            raise DataError(
                f"{folder}: class folder {unknown[0]!r} does not occur in the training part "
                f"({', '.join(names)})"
            )
        files: list[Path] = []
        labels: list[int] = []
        for label, name in enumerate(names):
            found = image_files(folder / name) if (folder / name).is_dir() else []
            files += found
            labels += [label] * len(found)
        if self.size is None:
            files, labels, sizes = self._sized(files, labels)
            size = size or sizes[0]
            wrong = next((i for i, s in enumerate(sizes) if s != tuple(size)), None)
            if wrong is not None:
                raise DataError(
                    f"{files[wrong]} has {sizes[wrong][0]} x {sizes[wrong][1]} pixels (height x width), "
                    f"expected "
                    f"{size[0]} x {size[1]} as {files[0].name}; set data.size to bring all images to one size"
                )
        assert size is not None
        y = np.array(labels, np.int64)
        return ImageFiles(files, y, self.channels, size, self.bad_images == "skip", self.memory_mb << 20), y


def _with_hint(fault: DataError) -> DataError:
    return DataError(f"{fault}, or set data.bad_images: skip")


def _say_skipped(fault: DataError) -> None:
    warnings.warn(f"{fault} (skipped, as data.bad_images says)", stacklevel=3)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, sorted; each must hold an image. Raises DataError."""
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not names:
        raise DataError(f"{folder} holds no class folders; expected {folder}/CLASS/*.png (or .jpg)")
    for name in names:
        if not image_files(folder / name):
            kinds = ", ".join(sorted(SUFFIXES))
            raise DataError(f"{folder / name} is a class folder without images ({kinds}); fill or remove it")
    return tuple(names)


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder by suffix, sorted by name."""
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, "normcore-decode")


class ImageFiles:
    """Samples that are image files, (C, H, W) uint8. A decoded image stays in memory if all of them fit."""

    def __init__(
        self,
        files: Sequence[Path],
        labels: np.ndarray,
        channels: int,
        size: tuple[int, ...],
        skip: bool,
        memory: int,
    ) -> None:
        self.files = tuple(files)
        self.shape: tuple[int, ...] = (channels, *size)
        self.dtype = np.dtype(np.uint8)
        self._png = [file.suffix.lower() == ".png" for file in self.files]
        self._labels = labels  # ascending: the files of a class are neighbours
        self._skip = skip
        self._bad: set[int] = set()
        fits = len(files) * int(np.prod(self.shape)) <= memory
        self._kept = (
            np.empty((len(files), *self.shape), np.uint8) if fits else None
        )  # untouched pages cost nothing
        self._have = np.zeros(len(files), bool)

    def __len__(self) -> int:
        return len(self.files)

    def take(self, indices: np.ndarray, out: np.ndarray) -> None:
        if self._kept is None:
            self._decode_all(indices.tolist(), out, range(len(out)))
            return
        missing = indices[~self._have[indices]].tolist()
        # Two threads may do the same file at once: every byte that either writes is the final one.
        self._decode_all(missing, self._kept, missing)
        self._have[missing] = True
        np.take(self._kept, indices, axis=0, out=out, mode="clip")

    def _decode_all(self, indices: Sequence[int], out: np.ndarray, rows: Sequence[int]) -> None:
        """Write images to rows of `out`, those of a size that is worth it by several threads. Raises DataError for
        the first that is bad."""
        count = len(indices)
        share = -(-count // _THREADS) if math.prod(self.shape) >= _LARGE else count
        if share == count:
            self._decode_some(indices, out, rows)
            return
        cuts = [slice(i, i + share) for i in range(0, count, share)]
        for part in [_pool().submit(self._decode_some, indices[cut], out, rows[cut]) for cut in cuts]:
            part.result()

    def _decode_some(self, indices: Sequence[int], out: np.ndarray, rows: Sequence[int]) -> None:
        plain: list[bytes] = []
        places: list[int] = []
        for index, row in zip(indices, rows, strict=True):
            lines = self._plain_png(index)
            if lines is None:
                out[row] = self._decoded(index)
            else:
                plain.append(lines)
                places.append(row)
        if plain:
            write_planes(plain, out, places)

    def _plain_png(self, index: int) -> bytes | None:
        """What `write_planes` takes; None for any other file. Opened by system calls: `open` takes as long as inflating."""
        if not self._png[index]:
            return None
        try:
            file = os.open(self.files[index], os.O_RDONLY | getattr(os, "O_BINARY", 0))
            try:
                data = os.read(file, os.fstat(file).st_size)
            finally:
                os.close(file)
        except OSError:
            return None  # Pillow meets it too, and names it
        return filtered_lines(data, self.shape)

    def _decoded(self, index: int) -> np.ndarray:
        """An image by Pillow, or the next good one of its class. Raises DataError."""
        from normcore.data.image_file import decode

        for at in self._or_instead(index):
            try:
                return decode(self.files[at], self.shape[0], self.shape[1:])
            except DataError as fault:
                if not self._skip:
                    raise _with_hint(fault) from fault
                if at not in self._bad:
                    self._bad.add(at)
                    _say_skipped(fault)
        folder = self.files[index].parent
        raise DataError(f"{folder}: no image of this class can be read; replace or remove its files")

    def _or_instead(self, index: int) -> Iterator[int]:
        """The image itself, then the others of its class from there on."""
        yield index
        first, end = np.searchsorted(self._labels, self._labels[index] + np.array([0, 1])).tolist()
        for step in range(1, end - first):
            yield first + (index - first + step) % (end - first)
