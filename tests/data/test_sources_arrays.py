"""mnist_sample, npz and npy: what they read, and one clear error for each bad file."""

import math
import os
import tracemalloc

import numpy as np
import pytest

from normcore import random
from normcore.data.dataset import Dataset, dataset
from normcore.data.loader import Loader
from normcore.data.samples import taken
from normcore.data.sources import SOURCES
from normcore.data.sources.arrays import Npy, Npz
from normcore.errors import DataError, ParameterError


def arrays(
    n: int = 6, test: int = 3, shape: tuple[int, ...] = (4, 5), classes: int = 3
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (n, *shape), dtype=np.uint8),
        "y_train": (np.arange(n) % classes).astype(np.uint8),
        "x_test": rng.integers(0, 256, (test, *shape), dtype=np.uint8),
        "y_test": (np.arange(test) % classes).astype(np.uint8),
    }


def everything(data: Dataset) -> np.ndarray:
    return taken(data.x_train, np.arange(len(data.x_train)))


def test_mnist_sample_comes_with_the_package(tmp_path):
    """All 7,000 digits, balanced, one channel, black background."""
    data = SOURCES["mnist_sample"]().load(tmp_path)
    assert data.shape == (1, 28, 28)
    assert (len(data.x_train), len(data.x_test), data.classes) == (6000, 1000, 10)
    assert np.bincount(data.y_train).tolist() == [600] * 10
    assert everything(data)[:, :, 0, 0].max() == 0


def test_npz_layouts(tmp_path):
    """(N, H, W), (N, H, W, C) and (N, C, H, W) hold the same image at the same place of a sample."""
    grey = arrays()
    np.savez(tmp_path / "grey.npz", **grey)
    data = Npz("grey.npz").load(tmp_path)
    assert data.shape == (1, 4, 5)
    np.testing.assert_array_equal(everything(data)[:, 0], grey["x_train"])
    assert data.y_train.dtype == np.int64

    colour = arrays(shape=(4, 5, 3))
    np.savez_compressed(tmp_path / "colour.npz", **colour)
    last = Npz("colour.npz").load(tmp_path)
    assert last.shape == (3, 4, 5)
    np.testing.assert_array_equal(everything(last)[2, 1], colour["x_train"][2, :, :, 1])
    first = {k: np.moveaxis(v, -1, 1) if k.startswith("x") else v for k, v in colour.items()}
    np.savez(tmp_path / "first.npz", **first)
    again = Npz(str(tmp_path / "first.npz"), layout="channels_first").load(tmp_path / "elsewhere")
    np.testing.assert_array_equal(everything(again), everything(last))


def test_npz_of_sequences_and_features(tmp_path):
    """as_is keeps (N, T, C) and never divides; (N, F) is features in any layout; floats stay floats."""
    given = arrays(shape=(7, 2))
    np.savez(tmp_path / "a.npz", **given)
    data = Npz("a.npz", layout="as_is").load(tmp_path)
    assert data.shape == (7, 2)
    assert data.x_train.dtype == np.float32
    np.testing.assert_array_equal(everything(data), given["x_train"])
    given["x_train"], given["x_test"] = given["x_train"][:, :, 0] / 7.0, given["x_test"][:, :, 0] / 7.0
    np.savez(tmp_path / "b.npz", **given)
    data = Npz("b.npz").load(tmp_path)
    assert data.shape == (7,)
    assert data.x_train.dtype == np.float64


def test_npz_names_and_regression(tmp_path):
    """An array `names` names the classes; float labels are values, not classes."""
    given = arrays()
    np.savez(tmp_path / "a.npz", **given, names=np.array(["cat", "dog", "eel", "fox"]))
    data = Npz("a.npz").load(tmp_path)
    assert (data.classes, data.class_names) == (4, ("cat", "dog", "eel", "fox"))
    given["y_train"], given["y_test"] = given["y_train"] / 2, given["y_test"] / 2
    np.savez(tmp_path / "b.npz", **given)
    data = Npz("b.npz").load(tmp_path)
    assert data.classes is None
    assert data.y_train.dtype == np.float64


def test_npy_folder_is_mapped_not_read(tmp_path):
    """The samples stay on disk; the same numbers arrive, with channels last too."""
    given = arrays(shape=(4, 5, 3))
    for key, array in given.items():
        np.save(tmp_path / f"{key}.npy", array)
    data = Npy(str(tmp_path)).load(tmp_path)
    assert isinstance(data.x_train._array, np.memmap)
    np.testing.assert_array_equal(everything(data), np.moveaxis(given["x_train"], -1, 1))


def test_odd_dtypes_become_usable():
    """bool, int32, float16 and foreign byte order are converted; values are kept."""
    for dtype, expected in (
        ("?", "f4"),
        ("i4", "f4"),
        ("f2", "f4"),
        (">f4", "f4"),
        (">f8", "f8"),
        ("u2", "f4"),
    ):
        x = np.array([[[0, 1]], [[1, 0]]]).astype(dtype)
        data = dataset("x", x, np.array([0, 1]))
        assert data.x_train.dtype == np.dtype(expected), dtype
        np.testing.assert_array_equal(everything(data), x[:, None])


CHANGES = {
    "missing key": (
        lambda a: a.pop("y_train"),
        "lacks y_train; expected x_train, y_train, x_test, y_test, found x_",
    ),
    "half a test part": (lambda a: a.pop("y_test"), "lacks y_test"),
    "fewer labels": (
        lambda a: a.update(y_train=a["y_train"][:-1]),
        "y_train holds 5 labels, x_train 6 samples",
    ),
    "test label too large": (
        lambda a: a["y_test"].fill(3),
        r"label 3 of sample 0 is outside the 3 classes 0 .. 2",
    ),
    "negative": (
        lambda a: a.update(y_train=np.array([0, 1, 2, -1, 0, 1])),
        "label -1 of sample 3 is outside",
    ),
    "no samples": (
        lambda a: a.update(x_train=a["x_train"][:0], y_train=a["y_train"][:0]),
        "holds no samples",
    ),
    "text": (lambda a: a.update(x_train=a["x_train"].astype(str)), "dtype <U3; expected uint8 pixels"),
    "one-hot integers": (lambda a: a.update(y_train=np.eye(6, 3, dtype=int)), r"shape \(6, 3\)"),
    "other test shape": (
        lambda a: a.update(x_test=a["x_test"][:, :3]),
        r"a test sample has shape \(1, 3, 5\)",
    ),
    "other test labels": (lambda a: a.update(y_test=a["y_test"] / 2), "y_test is float64"),
    "not finite": (
        lambda a: a.update(y_train=np.array([0, 1, np.nan, 0, 0, 0])),
        "the value of sample 2 is not",
    ),
    "flat": (lambda a: a.update(x_train=a["x_train"][:, 0, 0]), r"shape \(6,\); expected \(N, H, W\)"),
    "empty images": (lambda a: a.update(x_train=a["x_train"][:, :0]), "its samples are empty"),
    "objects": (lambda a: a.update(names=np.array([{}, 1], object)), "Python objects"),
    "wrong names": (lambda a: a.update(names=np.array(["a", "b"])), "outside the 2 classes"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_bad_npz_contents(tmp_path, case):
    """One DataError that names the file and the fault."""
    change, message = CHANGES[case]
    given = arrays()
    change(given)
    np.savez(tmp_path / "bad.npz", **given)
    with pytest.raises(DataError, match=message) as caught:
        Npz("bad.npz").load(tmp_path)
    assert "bad.npz" in str(caught.value)


@pytest.mark.parametrize("cut", [0, 1, 10, 400, -1, -40])
def test_truncated_npz(tmp_path, cut):
    """A file cut anywhere is a DataError, never another exception."""
    np.savez_compressed(tmp_path / "a.npz", **arrays())
    content = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(content[:cut])
    with pytest.raises(DataError, match=r"a\.npz"):
        Npz("a.npz").load(tmp_path)


def test_damaged_npz(tmp_path):
    """Bytes changed inside are noticed by the archive's checksum."""
    np.savez(tmp_path / "a.npz", **arrays(n=200))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[600] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        Npz("a.npz").load(tmp_path)


def test_wrong_kind_of_file(tmp_path):
    """A .npy where an .npz is asked for and the other way round, a folder, and nothing at all."""
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        Npz("a.npy").load(tmp_path)
    np.savez(tmp_path / "x.npz", np.zeros(3))
    (tmp_path / "x.npz").rename(tmp_path / "x_train.npy")
    with pytest.raises(DataError, match=r"is an .npz file"):
        Npy(".").load(tmp_path)
    with pytest.raises(DataError, match=r"is a folder; data.path must name a file"):
        Npz(".").load(tmp_path)
    with pytest.raises(DataError, match=r"there is no such file .the path exists up to"):
        Npz("no/such/file.npz").load(tmp_path)
    with pytest.raises(DataError, match=r"lacks x_train, y_train, x_test, y_test; .* found nothing"):
        (tmp_path / "empty").mkdir()
        Npy("empty").load(tmp_path)


def test_truncated_npy(tmp_path):
    """A memory map shorter than its header says."""
    for key, array in arrays(n=2000).items():
        np.save(tmp_path / f"{key}.npy", array)
    content = (tmp_path / "x_train.npy").read_bytes()
    (tmp_path / "x_train.npy").write_bytes(content[:-100])
    with pytest.raises(DataError, match=r"x_train\.npy cannot be read"):
        Npy(".").load(tmp_path)


def test_declared_classes(tmp_path):
    """`classes` admits labels that the training part does not show, and must be positive."""
    given = arrays()
    given["y_test"][0] = 7
    np.savez(tmp_path / "a.npz", **given)
    assert Npz("a.npz", classes=8).load(tmp_path).classes == 8
    with pytest.raises(ParameterError, match="classes: expected"):
        Npz("a.npz", classes=0)


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="needs files with holes, and the size of the memory")
@pytest.mark.parametrize("layout", ["channels_first", "channels_last"])
def test_a_dataset_larger_than_memory_streams(tmp_path, layout):
    """A file of twice the machine's memory, holes but for its marked samples: batches come, memory stays flat."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    shape = (1, 1024, 1024) if layout == "channels_first" else (1024, 1024, 1)
    count = 2 * memory // math.prod(shape) + 1
    try:
        x = np.lib.format.open_memmap(tmp_path / "x_train.npy", "w+", np.uint8, (count, *shape))
    except OSError:
        pytest.skip("this file system has no files of that size")
    first = random.permutation(random.key_of(0, "data.order"), count, call=1)[:40]
    for number, sample in enumerate(first):
        x[sample, 0, 0, 0] = number + 1
    del x
    np.save(tmp_path / "y_train.npy", np.zeros(count, np.int64))
    for part in ("x_test", "y_test"):
        np.save(tmp_path / f"{part}.npy", np.zeros((1, *shape) if part == "x_test" else 1, np.uint8))
    loader = Loader(Npy(".", layout=layout).load(tmp_path), 4, workers=2)
    tracemalloc.start()
    try:
        for number, (batch, _) in zip(range(10), loader.epoch(1)):
            marks = np.round(batch[:, 0, 0, 0] * 255)
            np.testing.assert_array_equal(marks, np.arange(4 * number + 1, 4 * number + 5))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6  # six batches of float32 and what prepares them
