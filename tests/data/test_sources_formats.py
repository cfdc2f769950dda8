"""The original formats, idx and cifar, and csv, on small files written here."""

import gzip
import struct

import numpy as np
import pytest

from normcore.data.samples import taken
from normcore.data.sources.cifar import Cifar10, Cifar100
from normcore.data.sources.csv_table import Csv
from normcore.data.sources.idx import Idx, read_idx
from normcore.errors import DataError, ParameterError

RNG = np.random.default_rng(1)


def idx_bytes(array: np.ndarray, code: int = 0x08) -> bytes:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder, packed: bool, prefix: str = "", test: str = "t10k") -> tuple[np.ndarray, np.ndarray]:
    x = RNG.integers(0, 256, (9, 4, 3), dtype=np.uint8)
    y = (np.arange(9) % 3).astype(np.uint8)
    for part, rows in (("train", slice(0, 6)), (test, slice(6, 9))):
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            content = idx_bytes(array[rows])
            name = f"{prefix}{part}-{kind}-ubyte" + (".gz" if packed else "")
            (folder / name).write_bytes(gzip.compress(content) if packed else content)
    return x, y


@pytest.mark.parametrize(
    ("packed", "prefix", "test"), [(False, "", "t10k"), (True, "emnist-letters-", "test")]
)
def test_idx(tmp_path, packed, prefix, test):
    """Plain and packed, MNIST's names and EMNIST's."""
    x, y = write_mnist(tmp_path, packed, prefix, test)
    data = Idx(str(tmp_path)).load(tmp_path)
    assert (data.shape, data.classes) == ((1, 4, 3), 3)
    np.testing.assert_array_equal(taken(data.x_train, np.arange(6))[:, 0], x[:6])
    np.testing.assert_array_equal(taken(data.x_test, np.arange(3))[:, 0], x[6:])
    np.testing.assert_array_equal(data.y_test, y[6:])


def test_idx_plain_files_are_mapped(tmp_path):
    """The images of an unpacked set stay on disk."""
    write_mnist(tmp_path, packed=False)
    assert isinstance(Idx(".").load(tmp_path).x_train._array, np.memmap)


@pytest.mark.parametrize(
    ("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")]
)
def test_idx_types(tmp_path, code, dtype):
    """Every type of the format, big-endian."""
    array = np.array([[1, 2, 3], [4, 5, 100]], dtype)
    (tmp_path / "a-idx2").write_bytes(idx_bytes(array, code))
    np.testing.assert_array_equal(read_idx(tmp_path / "a-idx2"), array)


def test_bad_idx(tmp_path):
    """Truncated, too long, no IDX at all, a bad gzip, a file missing, two sets in one folder."""
    write_mnist(tmp_path, packed=False)
    images = tmp_path / "train-images-idx3-ubyte"
    content = images.read_bytes()
    for bad, message in (
        (content[:-1], r"has 87 bytes, its header \(6, 4, 3\) of uint8 asks for 88; it is truncated"),
        (content + b"x", "too long"),
        (b"PK\x03\x04" + content, "is no IDX file: it begins with 50 4b 03 04"),
        (content[:6], "is no IDX file"),
        (b"", "begins with nothing"),
        (idx_bytes(np.zeros((6, 4, 3), np.uint8), 0x07), "is no IDX file"),
    ):
        images.write_bytes(bad)
        with pytest.raises(DataError, match=message):
            Idx(".").load(tmp_path)
    images.unlink()
    with pytest.raises(DataError, match=r"no file fits .*train.*images.*found t10k-images"):
        Idx(".").load(tmp_path)
    for damaged in (gzip.compress(content)[:-12], b"no gzip", b""):
        (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(damaged)
        with pytest.raises(DataError, match="train-images"):
            Idx(".").load(tmp_path)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(content))
    (tmp_path / "fashion-train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="2 files fit"):
        Idx(".").load(tmp_path)


def test_idx_fewer_labels(tmp_path):
    """Images and labels that do not belong together."""
    write_mnist(tmp_path, packed=False)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(5, np.uint8)))
    with pytest.raises(DataError, match="y_train holds 5 labels, x_train 6 samples"):
        Idx(".").load(tmp_path)


def cifar_bytes(n: int, labels: np.ndarray) -> tuple[bytes, np.ndarray]:
    x = RNG.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
    return np.concatenate([labels, x.reshape(n, -1)], axis=1).astype(np.uint8).tobytes(), x


def test_cifar10(tmp_path):
    """Training files in order, the folder the archive makes, names."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    parts = []
    for i in (1, 2):
        content, x = cifar_bytes(4, np.full((4, 1), i))
        (folder / f"data_batch_{i}.bin").write_bytes(content)
        parts.append(x)
    content, x_test = cifar_bytes(2, np.array([[9], [0]]))
    (folder / "test_batch.bin").write_bytes(content)
    (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    data = Cifar10(".").load(tmp_path)
    assert (data.shape, data.classes, data.class_names[9]) == ((3, 32, 32), 10, "j")
    np.testing.assert_array_equal(taken(data.x_train, np.arange(8)), np.concatenate(parts))
    np.testing.assert_array_equal(taken(data.x_test, np.arange(2)), x_test)
    assert data.y_train.tolist() == [1] * 4 + [2] * 4

    (folder / "test_batch.bin").write_bytes(content[:-5])
    with pytest.raises(DataError, match="has 6141 bytes, which is no whole number of records of 3073"):
        Cifar10(".").load(tmp_path)
    (folder / "test_batch.bin").write_bytes(cifar_bytes(1, np.array([[10]]))[0])
    with pytest.raises(DataError, match="label 10 of sample 0 is outside the 10 classes"):
        Cifar10(".").load(tmp_path)
    (folder / "test_batch.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_1.bin"):
        Cifar10(".").load(tmp_path)


def test_cifar100(tmp_path):
    """Two label bytes: coarse, then fine."""
    for name in ("train", "test"):
        (tmp_path / f"{name}.bin").write_bytes(cifar_bytes(3, np.array([[1, 11], [2, 22], [19, 99]]))[0])
    fine, coarse = Cifar100(".").load(tmp_path), Cifar100(".", labels="coarse").load(tmp_path)
    assert (fine.classes, fine.y_train.tolist()) == (100, [11, 22, 99])
    assert (coarse.classes, coarse.y_test.tolist()) == (20, [1, 2, 19])
    (tmp_path / "fine_label_names.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="holds 2 names; expected 100"):
        Cifar100(".").load(tmp_path)
    (tmp_path / "test.bin").unlink()
    with pytest.raises(DataError, match="there is no such file"):
        Cifar100(".", labels="coarse").load(tmp_path)


def test_csv_with_words(tmp_path):
    """A header, labels that are words, another target column, a byte order mark, a test file."""
    (tmp_path / "a.csv").write_text("\ufeffkind,w,h\nfox,1,2\ncat,3,4.5\nfox,5,6\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("kind,w,h\ncat,7,8\n")
    data = Csv("a.csv", test_path="b.csv", target="kind").load(tmp_path)
    assert (data.class_names, data.y_train.tolist(), data.y_test.tolist()) == (("cat", "fox"), [1, 0, 1], [0])
    np.testing.assert_array_equal(taken(data.x_train, np.arange(3)), [[1, 2], [3, 4.5], [5, 6]])
    (tmp_path / "b.csv").write_text("kind,w,h\nowl,7,8\n")
    with pytest.raises(DataError, match="label 'owl' does not occur in the training part"):
        Csv("a.csv", test_path="b.csv", target="kind").load(tmp_path)


def test_csv_of_pixels_and_values(tmp_path):
    """Rows of pixels become images by shape and scale; regression keeps the numbers; no header needed."""
    (tmp_path / "a.csv").write_text("0;255;0;51;1\n255;0;0;0;0\n\n")
    data = Csv("a.csv", delimiter=";", shape=(1, 2, 2), scale=255).load(tmp_path)
    assert (data.shape, data.classes, data.y_train.tolist()) == ((1, 2, 2), 2, [1, 0])
    np.testing.assert_allclose(taken(data.x_train, np.array([0])), [[[[0, 1], [0, 0.2]]]])
    data = Csv("a.csv", delimiter=";", task="regression", target=1).load(tmp_path)
    assert (data.classes, data.y_train.tolist(), data.shape) == (None, [255, 0], (4,))


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "is empty"),
        ("a,b\n", {}, "has a header and nothing else"),
        ("1,2,0\n1,0\n", {}, r"bad\.csv:2: the row has 2 fields, the first 3"),
        ("1,2,0\n1,x,0\n", {}, r"bad\.csv:2: 'x' is no number"),
        ("1,2,0\n", {"target": "kind"}, "has no column 'kind'; its header says 1, 2, 0"),
        ("1,2,0\n", {"target": 3}, "has 3 columns, there is no column 3"),
        ("1;2;0\n", {}, "is the delimiter ','"),
        ("1,2,0\n", {"shape": (3,)}, r"has 2 features a row, data.shape \[3\] needs 3"),
        ("1,2,x\n", {"task": "regression"}, "target is no number"),
        ("1,2,-1\n", {}, "label -1 of sample 0 is outside"),
    ],
)
def test_bad_csv(tmp_path, text, options, message):
    """The file, and the line where there is one."""
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        Csv("bad.csv", **options).load(tmp_path)


def test_csv_that_is_no_text(tmp_path):
    """Bytes that are no UTF-8."""
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00,1\n")
    with pytest.raises(DataError, match="no CSV text"):
        Csv("bad.csv").load(tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"delimiter": ";;"}, {"shape": (0, 1)}, {"shape": ()}, {"scale": 0.0}, {"target": "a", "header": "no"}],
)
def test_csv_parameters(options):
    """Values that can never be right are refused before any file is opened."""
    with pytest.raises(ParameterError):
        Csv("a.csv", **options)
