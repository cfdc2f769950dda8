"""Dataset: what a source returns, checked once, and its division into training, validation and test part.

Labels are int64 class numbers (N,), or floats (N,) or (N, K) for regression. Faults are DataErrors that say
which part is wrong, what was expected and what to do.
"""

from dataclasses import dataclass

import numpy as np

from normcore import random
from normcore.data.samples import ArraySamples, Samples
from normcore.errors import DataError

PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class Dataset:
    """Two sets of samples with their labels; the test part may be absent (None, None).

    classes: the number of classes, None for regression; class_names: one a class, or None.
    sequences: samples are sequences (T, C); lengths_train, lengths_test: where each of them ends (int64), or None
    where all have T steps.
    name: what the data is called in messages, a path or a source's name.
    """

    x_train: Samples
    y_train: np.ndarray
    x_test: Samples | None = None
    y_test: np.ndarray | None = None
    classes: int | None = None
    class_names: tuple[str, ...] | None = None
    name: str = "data"
    sequences: bool = False
    lengths_train: np.ndarray | None = None
    lengths_test: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample: (C, H, W) for images."""
        return self.x_train.shape


@dataclass(frozen=True)
class Part:
    """The samples at `indices` of one array; random numbers are keyed by these indices.

    lengths: of all sequences of the array, or None.
    """

    x: Samples
    y: np.ndarray
    indices: np.ndarray  # int64
    lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.indices)


def dataset(
    name: str,
    x_train: np.ndarray | Samples,
    y_train: np.ndarray,
    x_test: np.ndarray | Samples | None = None,
    y_test: np.ndarray | None = None,
    *,
    layout: str = "channels_last",
    classes: int | None = None,
    class_names: tuple[str, ...] | None = None,
    lengths_train: np.ndarray | None = None,
    lengths_test: np.ndarray | None = None,
) -> Dataset:
    """Check arrays and make a Dataset of them.

    layout says how arrays lie: "channels_last" (N, H, W), (N, H, W, C) or (N, D, H, W, C), "channels_first"
    (N, C, H, W), "sequences" (N, T, C), "as_is" for anything else. Two-dimensional arrays are features in every
    layout. classes: how many there are; by default the largest training label + 1. lengths_train, lengths_test:
    where sequences end, 1 to T; what has lengths is sequences whatever layout says. Raises DataError.
    """
    if lengths_train is not None or lengths_test is not None:
        layout = "sequences"
    train = samples_of(f"{name}: x_train", x_train, layout)
    if len(train) == 0:
        raise DataError(f"{name}: x_train holds no samples; expected at least one")
    labels = _labels(f"{name}: y_train", y_train, len(train), "x_train")
    if class_names is not None:
        classes = len(class_names)
    if labels.dtype.kind == "f":
        classes = None
    elif classes is None:
        classes = int(labels.max()) + 1
    _check_range(f"{name}: y_train", labels, classes)
    sequences = layout == "sequences"
    ends = _lengths(f"{name}: lengths_train", lengths_train, train)
    if x_test is None and y_test is None:
        return Dataset(train, labels, None, None, classes, class_names, name, sequences, ends)
    if x_test is None or y_test is None:
        missing = "x_test" if x_test is None else "y_test"
        raise DataError(f"{name}: the test part lacks {missing}; give both x_test and y_test, or neither")
    test = samples_of(f"{name}: x_test", x_test, layout)
    if test.shape != train.shape:
        raise DataError(
            f"{name}: a test sample has shape {test.shape}, a training sample {train.shape} (channels "
            f"first); "
            "both parts must have one shape"
        )
    test_labels = _labels(f"{name}: y_test", y_test, len(test), "x_test")
    if test_labels.dtype != labels.dtype or test_labels.shape[1:] != labels.shape[1:]:
        raise DataError(
            f"{name}: y_test is {test_labels.dtype} of shape {test_labels.shape}, y_train {labels.dtype} of "
            f"shape "
            f"{labels.shape}; both must be class numbers, or both the same kind of values"
        )
    _check_range(f"{name}: y_test", test_labels, classes)
    if (lengths_train is None) != (lengths_test is None):
        missing = "lengths_train" if lengths_train is None else "lengths_test"
        raise DataError(f"{name}: there is no {missing}; give lengths for both parts, or for neither")
    test_ends = _lengths(f"{name}: lengths_test", lengths_test, test)
    return Dataset(train, labels, test, test_labels, classes, class_names, name, sequences, ends, test_ends)


def _lengths(name: str, lengths: np.ndarray | None, sequences: Samples) -> np.ndarray | None:
    """Lengths as int64, one from 1 to T for each sequence."""
    if lengths is None:
        return None
    steps, count = sequences.shape[0], len(sequences)
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise DataError(
            f"{name} is {lengths.dtype} of shape {lengths.shape}; expected a whole number for each sequence, ({count},)"
        )
    wrong = (lengths < 1) | (lengths > steps)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{name}: sequence {at} (counted from 0) has length {lengths[at]}; expected 1 to {steps} "
            f"({int(wrong.sum())} are outside); leave empty sequences out"
        )
    return lengths.astype(np.int64)


def samples_of(name: str, x: np.ndarray | Samples, layout: str) -> Samples:
    """An array as Samples with channels first, or Samples as they are. Raises DataError."""
    if not isinstance(x, np.ndarray):
        return x
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {x.dtype}; expected uint8 pixels, or other real numbers")
    if x.dtype == np.bool_:
        x = x.astype(np.float32)
    elif x.dtype.kind in "iu" and layout in ("as_is", "sequences"):
        x = x.astype(np.float64 if x.dtype.itemsize > 2 else np.float32)  # numbers as they are, never x / 255
    elif x.dtype != np.uint8 and x.dtype.kind in "iu":
        x = x.astype(np.float32)
    elif x.dtype.itemsize not in (1, 4, 8) or not x.dtype.isnative:
        x = x.astype(np.float32 if x.dtype.itemsize < 8 else np.float64)
    if x.ndim < 2:
        raise DataError(f"{name} has shape {x.shape}; expected (N, H, W), (N, H, W, C) or (N, features)")
    if 0 in x.shape[1:]:
        raise DataError(f"{name} has shape {x.shape}: its samples are empty")
    if layout == "sequences" and x.ndim != 3:
        raise DataError(f"{name} has shape {x.shape}; expected sequences (N, steps, features)")
    if x.ndim == 2 or layout in ("as_is", "channels_first", "sequences"):
        return ArraySamples(x)
    if x.ndim == 3:
        return ArraySamples(x[:, None])
    if x.ndim > 5:
        raise DataError(f"{name} has shape {x.shape}; expected at most (N, D, H, W, C)")
    if isinstance(x, np.memmap):
        return ArraySamples(x, channels_last=True)
    return ArraySamples(np.ascontiguousarray(np.moveaxis(x, -1, 1)))  # once, not for every batch


def _labels(name: str, y: np.ndarray, count: int, of: str) -> np.ndarray:
    """Labels as int64 (N,) or float64; (N, 1) class numbers lose their last axis."""
    y = np.asarray(y)
    if y.dtype.kind not in "biuf":
        raise DataError(f"{name} has dtype {y.dtype}; expected class numbers (integers) or values (floats)")
    if y.ndim == 0:
        raise DataError(f"{name} is a single number; expected one label a sample, {count}")
    if len(y) != count:
        raise DataError(
            f"{name} holds {len(y)} labels, {of} {count} samples; there must be one label for each sample"
        )
    if y.dtype.kind == "f":
        if not np.isfinite(y).all():
            raise DataError(
                f"{name}: the value of sample {int(np.argmin(np.isfinite(y.reshape(count, -1)).all(1)))} is "
                f"not finite"
            )
        return y.astype(np.float64)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}; class numbers have shape (N,), values must be floats")
    return y.astype(np.int64)


def _check_range(name: str, labels: np.ndarray, classes: int | None) -> None:
    if classes is None:
        return
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{name}: label {labels[at]} of sample {at} is outside the {classes} classes 0 .. {classes - 1} "
            f"({int(wrong.sum())} labels are); correct it, or set data.classes"
        )


def divide(data: Dataset, validation: float = 0.0, test: float = 0.0, seed: int = 0) -> dict[str, Part]:
    """The parts of a dataset by name, empty ones left out: "train", "validation", "test".

    validation: the share of the training part that is set aside, of each class the same (stratified), chosen
    by the seed. test: the same for a source that brings no test part, ignored by one that does. Raises
    DataError.
    """
    rest = np.arange(len(data.x_train), dtype=np.int64)
    parts: dict[str, Part] = {}
    if data.x_test is not None and data.y_test is not None:
        every = np.arange(len(data.x_test), dtype=np.int64)
        parts["test"] = Part(data.x_test, data.y_test, every, data.lengths_test)
    elif test > 0:
        rest, chosen = _split(data, rest, test, random.key_of(seed, "data.test"))
        parts["test"] = Part(data.x_train, data.y_train, chosen, data.lengths_train)
    if validation > 0:
        share = validation * len(data.x_train) / len(rest)  # of the whole training part, test share or not
        rest, chosen = _split(data, rest, share, random.key_of(seed, "data.validation"))
        parts["validation"] = Part(data.x_train, data.y_train, chosen, data.lengths_train)
    parts["train"] = Part(data.x_train, data.y_train, rest, data.lengths_train)
    for name, part in parts.items():
        if len(part) == 0:
            raise DataError(
                f"{data.name}: the {name} part is empty ({len(data.x_train)} samples, validation "
                f"{validation}, "
                f"test {test}); choose other shares"
            )
    return {name: parts[name] for name in PARTS if name in parts}


def _split(data: Dataset, indices: np.ndarray, share: float, key: int) -> tuple[np.ndarray, np.ndarray]:
    """`indices` in two, the second with `share` of each class; both ascending."""
    order = indices[random.permutation(key, len(indices))]
    if data.classes is None:
        count = round(share * len(order))
        return np.sort(order[count:]), np.sort(order[:count])
    labels = data.y_train[order]
    grouped = order[np.argsort(labels, kind="stable")]  # class after class, random within each
    sizes = np.bincount(labels, minlength=data.classes)
    ends = np.cumsum(sizes)
    # Rounding the running total, not each class, keeps the whole share right when classes are small.
    totals = np.round(share * ends).astype(np.int64)
    counts = np.minimum(np.diff(totals, prepend=0), sizes)
    chosen = np.zeros(len(grouped), bool)
    for end, size, count in zip(ends, sizes, counts, strict=True):
        chosen[end - size : end - size + count] = True
    return np.sort(grouped[~chosen]), np.sort(grouped[chosen])
