"""Looking for CUDA and saying what is missing; launch sizes."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import normcore
from normcore.devices import cuda
from normcore.devices.cuda import Cuda, launch_size, scalar_arguments
from normcore.devices.device import get
from normcore.errors import DeviceError


@pytest.fixture
def without_cuda(monkeypatch):
    """A machine without a driver and without the extra."""
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(cuda, "_installed", lambda module: False)
    monkeypatch.setattr(cuda, "_library", _no_library)
    cuda.missing.cache_clear()
    yield
    cuda.missing.cache_clear()


def _no_library(name):
    raise OSError(f"{name}: cannot open shared object file")


def test_missing_says_what_to_install(without_cuda):
    with pytest.raises(DeviceError) as fault:
        normcore.layer("relu", (2, 3), device="cuda")
    message = str(fault.value)
    assert fault.value.exit_status == 2
    assert "--device cuda" in message
    assert "no NVIDIA driver" in message
    assert "numba-cuda and CuPy and cuda-core not installed" in message
    assert 'pip install "normcore[cuda]"' in message


def test_auto_falls_back_to_the_cpu(without_cuda):
    assert get("auto").name == "cpu"


def test_the_command_line_ends_with_2(without_cuda, tmp_path, capsys, monkeypatch):
    from normcore_cli.main import run

    file = tmp_path / "net.yaml"
    file.write_text("input: [1, 2, 2]\nnetwork: [flatten]\nloss: mse\n")
    monkeypatch.setattr(sys, "argv", ["normcore", "summary", str(file), "--device", "cuda"])
    assert run() == 2
    assert 'pip install "normcore[cuda]"' in capsys.readouterr().err


def test_unknown_device():
    with pytest.raises(DeviceError, match="auto, cpu, cuda"):
        get("tpu")


class Driver:
    """What libcuda would answer."""

    def __init__(self, init=0, count=1, version=13000):
        self.init, self.count, self.version = init, count, version

    def cuInit(self, flags):
        return self.init

    def cuDeviceGetCount(self, pointer):
        pointer._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, pointer):
        pointer._obj.value = self.version
        return 0


@pytest.mark.parametrize(
    "driver, words",
    [
        (Driver(), None),
        (Driver(init=100), "finds no usable GPU"),
        (Driver(count=0), "finds no usable GPU"),
        (Driver(version=12040), "supports CUDA 12.4, but 13.0 is needed"),
    ],
)
def test_driver_faults(monkeypatch, driver, words):
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    monkeypatch.setattr(cuda, "_library", lambda name: driver)
    monkeypatch.setattr(cuda, "_installed", lambda module: True)
    cuda.missing.cache_clear()
    found = cuda.missing()
    cuda.missing.cache_clear()
    assert found is None if words is None else words in found


def test_looking_for_cuda_imports_neither_library():
    program = (
        "import sys; from normcore.devices import cuda; cuda.missing();"
        "print(*[m for m in ('numba', 'cupy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_launch_sizes():
    most = 132 * 2048  # an H100
    assert launch_size(0, most) == (0, 256)
    assert launch_size(1, most) == (1, 256)
    assert launch_size(257, most) == (2, 256)
    assert launch_size(10**9, most) == (132 * 8, 256)
    assert launch_size((7, 128), most) == (7, 128)


def test_scalars_take_the_kernels_dtype():
    wide = np.float64(0.1)
    got = scalar_arguments((0.1, wide, 3, True, (0.5, 2)), np.float32)
    assert [type(a) for a in got[:4]] == [np.float32, np.float64, int, bool]
    assert [type(a) for a in got[4]] == [np.float32, int]


class Array:
    """As much of a CuPy array as a launch looks at."""

    def __init__(self, pointer, shape):
        self.data, self.shape, self.strides = SimpleNamespace(ptr=pointer), shape, (4,)
        self.dtype = np.dtype("float32")
        self.__cuda_array_interface__ = {"data": (pointer, False), "shape": shape, "stream": 7, "version": 3}


class Kernel:
    """A numba kernel that notes its launches."""

    def __init__(self):
        self.launches = []

    def __getitem__(self, configuration):
        return lambda *arguments: self.launches.append((configuration, arguments))


@pytest.fixture
def hardware():
    """A Cuda on libraries that only take notes."""
    found = object.__new__(Cuda)
    found._cupy = SimpleNamespace(ndarray=Array)
    found._numba = SimpleNamespace(from_cuda_array_interface=lambda interface, owner, sync: dict(interface))
    found._launch_stream, found.most_threads = "stream", 2048
    found._launchers, found._views = {}, {}
    return found


def test_a_launch_reuses_what_it_can(hardware):
    kernel = Kernel()
    launch = hardware.launcher(kernel, 1000, "float32")
    assert launch is hardware.launcher(kernel, 1000, "float32")
    launch(Array(64, (3,)), 0.5, 2)
    launch(Array(64, (3,)), 0.5, 2)  # another object, the same place and shape
    launch(Array(64, (4,)), 0.5, 2)
    (configuration, first), (_, second), (_, third) = kernel.launches
    assert configuration == (4, 256, "stream")
    assert first[0] is second[0] and first[0] is not third[0]
    assert first[0]["stream"] is None  # no waiting for a stream that everything runs on already
    assert type(first[1]) is np.float32 and type(first[2]) is int


def test_no_items_no_launch(hardware):
    kernel = Kernel()
    hardware.launcher(kernel, 0, "float32")(Array(0, (0,)))
    assert not kernel.launches


def test_kept_views_are_bounded(hardware, monkeypatch):
    monkeypatch.setattr(cuda, "VIEWS_KEPT", 3)
    for pointer in range(10):
        hardware._view(Array(pointer, (1,)))
    assert len(hardware._views) <= 3
