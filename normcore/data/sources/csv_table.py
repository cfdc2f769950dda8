"""A table in CSV: one sample a row, one column for its label, the others numbers."""

import csv
import math
from pathlib import Path
from typing import Literal

import numpy as np

from normcore.data.dataset import Dataset, dataset
from normcore.data.source import DataSource, located
from normcore.errors import DataError, ParameterError


class Csv(DataSource, name="csv"):
    """A CSV file (or one for training, one for testing), a sample a row.

    target: the label's column, by header name or number (-1 is the last). task: classification, where labels
    may be words (sorted, they become 0, 1, ...) or whole numbers, or regression. header: auto takes the first
    row as one if any of its features is no number. shape: what a sample is, such as [1, 28, 28] for rows of
    pixels; by default the row of features. scale divides the features (255 for pixels).
    """

    path: str
    test_path: str | None = None
    target: str | int = -1
    task: Literal["classification", "regression"] = "classification"
    header: Literal["auto", "yes", "no"] = "auto"
    delimiter: str = ","
    shape: tuple[int, ...] | None = None
    scale: float = 1.0

    def check(self) -> None:
        if len(self.delimiter) != 1:
            raise ParameterError("delimiter", "one character", self.delimiter)
        if self.shape is not None and (not self.shape or min(self.shape) < 1):
            raise ParameterError("shape", "positive sizes, such as [1, 28, 28]", self.shape)
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ParameterError("scale", "a positive number", self.scale)
        if isinstance(self.target, str) and self.header == "no":
            raise ParameterError("target", "a column number where there is no header", self.target)

    def load(self, base: Path) -> Dataset:
        file = located(self.path, base, "file")
        x_train, words = self._read(file)
        x_test, test_words = (
            self._read(located(self.test_path, base, "file")) if self.test_path else (None, None)
        )
        if self.task == "regression":
            y_train = _numbers(file, words)
            y_test = None if test_words is None else _numbers(Path(str(self.test_path)), test_words)
            return dataset(str(file), x_train, y_train, x_test, y_test, layout="as_is")
        whole = all(_is_whole(w) for w in words)
        names = None if whole else tuple(sorted(set(words)))
        table = {} if names is None else {word: i for i, word in enumerate(names)}
        y_train = _classes(file, words, table)
        y_test = None if test_words is None else _classes(Path(str(self.test_path)), test_words, table)
        return dataset(str(file), x_train, y_train, x_test, y_test, layout="as_is", class_names=names)

    def _read(self, file: Path) -> tuple[np.ndarray, list[str]]:
        try:
            with file.open(newline="", encoding="utf-8-sig") as opened:
                rows = [
                    (n, row) for n, row in enumerate(csv.reader(opened, delimiter=self.delimiter), 1) if row
                ]
        except (UnicodeDecodeError, csv.Error) as fault:
            raise DataError(f"{file} is no CSV text in UTF-8 ({fault})") from fault
        if not rows:
            raise DataError(f"{file} is empty; expected one sample a row")
        width = len(rows[0][1])
        header = self._header(rows[0][1])
        column = self._column(file, rows[0][1] if header else None, width)
        rows = rows[1:] if header else rows
        if not rows:
            raise DataError(f"{file} has a header and nothing else; expected one sample a row")
        x = np.empty((len(rows), width - 1), np.float64)
        labels = []
        for at, (line, row) in enumerate(rows):
            if len(row) != width:
                raise DataError(
                    f"{file}:{line}: the row has {len(row)} fields, the first {width}; every row must have "
                    f"as many"
                )
            labels.append(row[column].strip())
            try:
                x[at] = row[:column] + row[column + 1 :]
            except ValueError:
                wrong = next(w for i, w in enumerate(row) if i != column and not _is_number(w))
                raise DataError(f"{file}:{line}: {wrong!r} is no number; features must be numbers") from None
        x /= self.scale
        if self.shape is None:
            return x, labels
        if math.prod(self.shape) != x.shape[1]:
            raise DataError(
                f"{file} has {x.shape[1]} features a row, data.shape {list(self.shape)} needs "
                f"{math.prod(self.shape)}"
            )
        return x.reshape(-1, *self.shape), labels

    def _header(self, first: list[str]) -> bool:
        if self.header != "auto":
            return self.header == "yes"
        if isinstance(self.target, str):
            return True
        target = self.target % len(first) if -len(first) <= self.target < len(first) else -1
        return not all(_is_number(word) for i, word in enumerate(first) if i != target)

    def _column(self, file: Path, header: list[str] | None, width: int) -> int:
        if width < 2:
            raise DataError(
                f"{file} has {width} column; expected features and a label (is the delimiter "
                f"{self.delimiter!r}?)"
            )
        if isinstance(self.target, str):
            names = [name.strip() for name in header or []]
            if self.target not in names:
                raise DataError(
                    f"{file} has no column {self.target!r}; its header says {', '.join(names)}; set "
                    f"data.target"
                )
            return names.index(self.target)
        if not -width <= self.target < width:
            raise DataError(f"{file} has {width} columns, there is no column {self.target}; set data.target")
        return self.target % width


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _is_whole(word: str) -> bool:
    return word.lstrip("+-").isdecimal()


def _numbers(file: Path, words: list[str]) -> np.ndarray:
    try:
        return np.array([float(word) for word in words])
    except ValueError as fault:
        raise DataError(f"{file}: a regression target is no number ({fault})") from None


def _classes(file: Path, words: list[str], table: dict[str, int]) -> np.ndarray:
    """Class numbers: by the table of the training part's words, or the numbers themselves where it is
    empty."""
    unknown = [w for w in words if (w not in table if table else not _is_whole(w))]
    if unknown:
        known = ", ".join(sorted(table)) if table else "whole numbers"
        raise DataError(f"{file}: label {unknown[0]!r} does not occur in the training part ({known})")
    return np.array([table[w] if table else int(w) for w in words], np.int64)
