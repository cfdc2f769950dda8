"""Weights on disk: the library reads what is written here, nothing is half written, and little memory is taken."""

import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load

from normcore import weights_file
from normcore.errors import DataError


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "turned": rng.standard_normal((5, 3)).T,
        "none": np.zeros((0, 7), np.float32),
        "count": np.array(5, np.int64),
        "bytes": np.arange(9, dtype=np.uint8),
    }


def test_the_library_reads_it(tmp_path, arrays):
    file = tmp_path / "w.safetensors"
    digest = weights_file.write(file, arrays)
    assert digest == weights_file.digest_of(file)
    for found in (load(file.read_bytes()), weights_file.read(file)):
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    weights_file.write(file, {})
    assert weights_file.read(file) == {}


def test_a_failed_write_leaves_the_old_file(tmp_path, arrays):
    file = tmp_path / "w.safetensors"
    weights_file.write(file, arrays)
    before = file.read_bytes()

    def fail(out):
        out.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        weights_file.write_whole(file, fail)
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_writing_copies_nothing_large(tmp_path):
    arrays = {str(k): np.zeros(1 << 18, np.float32) for k in range(8)}
    tracemalloc.start()
    try:
        weights_file.write(tmp_path / "w.safetensors", arrays)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [None, b"", b"{}", b"\xff" * 40])
def test_what_is_no_weights_file(tmp_path, content):
    file = tmp_path / "w.safetensors"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=r"w\.safetensors"):
        weights_file.read(file)
