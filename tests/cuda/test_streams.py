"""Running on another library's stream (PyTorch's current one), on libraries that only take notes."""

import threading
from types import SimpleNamespace

import pytest

from normcore.devices.cuda import Cuda


class Stream:
    """A CuPy stream; `entered` are the streams that are current."""

    entered: list[int] = []

    def __init__(self, pointer):
        self.ptr = pointer

    def __enter__(self):
        self.entered.append(self.ptr)

    def __exit__(self, *fault):
        self.entered.pop()


class Kernel:
    def __init__(self):
        self.streams = []

    def __getitem__(self, configuration):
        return lambda *arguments: self.streams.append(configuration[2])


@pytest.fixture
def hardware():
    found = object.__new__(Cuda)
    found._cupy = SimpleNamespace(ndarray=Stream, cuda=SimpleNamespace(ExternalStream=Stream))
    found._numba = SimpleNamespace(external_stream=lambda pointer: f"launches on {pointer}")
    found.stream, found._launch_stream, found.most_threads = Stream(5), "launches on 5", 2048
    found._launchers, found._views, found._scratch = {}, {}, None
    found._lanes, found._lane_lock = {}, threading.RLock()
    found.empty = lambda nbytes: memoryview(bytearray(nbytes))
    return found


def test_launches_go_to_the_stream_and_back(hardware):
    kernel = Kernel()
    for pointer in (None, 9, 9, 0, None):
        if pointer is None:
            hardware.launcher(kernel, 10, "float32")()
            continue
        with hardware.on_stream(pointer):
            assert Stream.entered == [pointer or 5]  # copies and cuBLAS follow CuPy's current stream
            hardware.launcher(kernel, 10, "float32")()
        assert not Stream.entered
    # The legacy default stream and our own wait for each other: nothing to change.
    assert kernel.streams == [f"launches on {p}" for p in (5, 9, 9, 5, 5)]


def test_streams_share_no_scratch(hardware):
    own = hardware.scratch(8)
    with hardware.on_stream(9):
        other = hardware.scratch(8)
    with hardware.on_stream(9):
        again = hardware.scratch(8)
    assert other.obj is again.obj
    assert other.obj is not own.obj
    assert hardware.scratch(8).obj is own.obj


def test_a_fault_gives_the_stream_back(hardware):
    with pytest.raises(ValueError, match="a fault"), hardware.on_stream(9):
        raise ValueError("a fault")
    assert hardware.stream.ptr == 5
    assert not Stream.entered
