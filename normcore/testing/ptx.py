"""CUDA kernels compiled to machine code without a GPU: do they compile, and what do they cost?

An op runs on a device that records kernels with the types of their arguments instead of launching them; each
is then compiled to PTX by numba-cuda, and linked for a real architecture, whose assembler reports registers,
spills and shared memory. Needs the extra `cuda` (numba-cuda and NVIDIA's compiler wheels), no driver and no
GPU.

    for launch in record(op, [(32, 96, 55, 55)]):
        print(resources(launch, "sm_90"))

float64 arithmetic in a float32 kernel is counted: consumer GPUs run it at 1/64 of the speed. A kernel that
means it says so by wide().
"""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from normcore.bound_layer import Layer
from normcore.devices.cuda import INSTALL, simulating
from normcore.devices.cuda_simulator import StandIn, kernel_arguments
from normcore.op import Op, Shape
from normcore.storage import array_dtype

LIBRARIES = ("nvvm", "nvrtc", "nvJitLink")  # to PTX, CUDA C beside it, and from there to machine code
ARCHITECTURES = {"sm_80": (8, 0), "sm_90": (9, 0)}  # Ampere and Hopper
# But for the multiplication by pi / 2 * 2^-64 with which CUDA's float32 sin, cos and tan reduce huge arguments.
DOUBLE = re.compile(
    r"^\s*(?:@!?%p\d+\s+)?(?:add|sub|mul|div|fma|mad|sqrt|rcp|rsqrt|min|max|abs|neg|setp)\b[\w.]*\.f64\b"
    r"(?!.*0d3BF921FB54442D19)"
)
REGISTERS = re.compile(r"Used (\d+) registers")
SPILLS = re.compile(r"(\d+) bytes spill")
SHARED = re.compile(r"\.shared\b.*\.b8 \w+\[(\d+)\]")  # the assembler does not count what the linker places
STACK = re.compile(r"(\d+) bytes stack frame")


def missing() -> str | None:
    """What compiling needs and is not there, or None."""
    if simulating():
        return "NUMBA_ENABLE_CUDASIM is set: the simulator compiles nothing"
    try:
        absent = [m for m in ("numba_cuda", "cuda.core") if importlib.util.find_spec(m) is None]
    except ImportError:
        absent = ["cuda.core"]
    if absent:
        return f"needs {' and '.join(absent)}: {INSTALL}"
    return _missing_libraries()


@cache
def _missing_libraries() -> str | None:
    """NVIDIA's compiler and linker may be out of reach although the Python packages are there.

    They are looked for as numba-cuda and cuda.core do, which is not along sys.path: an environment that sees
    another one's packages by a .pth file does not see their libraries.
    """
    from cuda import pathfinder

    absent = []
    for name in LIBRARIES:
        try:
            pathfinder.load_nvidia_dynamic_lib(name)
        except (pathfinder.DynamicLibNotFoundError, OSError):
            absent.append(f"lib{name}")
    return f"needs {' and '.join(absent)}, found in no library folder: {INSTALL}" if absent else None


@dataclass(frozen=True)
class Launch:
    """A kernel as an op launches it. types: its arguments', as keys (kind, dtype, dimensions) nested for
    tuples."""

    label: str  # "batch_norm forward float32 channels_first"
    kernel: Any = field(repr=False)
    extent: Any = field(compare=False)
    dtype: str
    types: tuple[Any, ...]

    @property
    def name(self) -> str:
        return str(self.kernel.py_func.__name__).strip("_")


@dataclass(frozen=True)
class Resources:
    """What one thread (registers, spills and stack in bytes) and one block (shared, bytes) of a kernel take.

    double_ops: float64 instructions; wide: whether the kernel's source says wide(), which allows them.
    """

    kernel: str
    label: str
    architecture: str
    registers: int
    spills: int
    stack: int
    shared: int
    double_ops: int
    wide: bool

    @property
    def faults(self) -> list[str]:
        """What a kernel must not do."""
        found = [f"spills {self.spills} bytes of registers to memory"] if self.spills else []
        if self.double_ops and not self.wide:
            found.append(
                f"has {self.double_ops} float64 instructions in a float32 kernel that does not say wide()"
            )
        return found


class Recorder(StandIn):
    """A CUDA device that launches nothing. launches: what it was asked for."""

    title = "recorder"

    def __init__(self) -> None:
        self.launches: list[Launch] = []
        self.label = ""

    def empty(self, nbytes: int) -> np.ndarray:
        array = super().empty(nbytes)
        array[...] = 0  # nothing will ever be written, and host code may look at it
        return array

    def launcher(self, kernel: Any, extent: Any, dtype: str) -> Callable[..., None]:
        real = np.dtype(dtype).type

        def record(*arguments: Any) -> None:
            types = tuple(_type(a) for a in kernel_arguments(arguments, real))
            self.launches.append(Launch(self.label, kernel, extent, dtype, types))

        return record


def record(
    op: Op,
    input_shapes: Sequence[Shape],
    dtype: str = "float32",
    memory_format: str = "channels_first",
    training: bool = True,
) -> list[Launch]:
    """The kernels that the op launches for one forward and, where it has one, one backward. Runs none."""
    device = Recorder()
    layer = Layer(op, list(input_shapes), device, dtype, memory_format)
    dtypes = getattr(op, "input_dtypes", None) or (dtype,) * len(input_shapes)
    inputs = [
        np.ones(s, array_dtype(d or dtype))
        if array_dtype(d or dtype).kind == "i"
        else np.zeros(s, array_dtype(d or dtype))
        for s, d in zip(input_shapes, dtypes, strict=False)
    ]
    if layer.state and not training:  # some ops refuse inference before there are statistics
        layer.forward(*inputs, training=True)
        device.launches.clear()
    device.label = f"{op.name} forward {dtype} {memory_format}"
    y = layer.forward(*inputs, training=training)
    if op.differentiable:
        device.label = f"{op.name} backward {dtype} {memory_format}"
        layer.backward(np.zeros((y[0] if isinstance(y, tuple) else y).shape, array_dtype(dtype)))
    return device.launches


@cache
def resources(launch: Launch, architecture: str = "sm_90") -> Resources:
    """Compile and link one recorded kernel. Raises what numba raises when it does not compile."""
    from cuda.core import Linker, LinkerOptions, ObjectCode

    text = ptx(launch.kernel, launch.types, architecture)
    options = LinkerOptions(arch=architecture, ptxas_options=["-v"])
    linker = Linker(ObjectCode.from_ptx(text.encode()), options=options)
    linker.link("cubin")
    log = linker.get_info_log()
    double = sum(1 for line in text.splitlines() if DOUBLE.match(line)) if launch.dtype == "float32" else 0
    return Resources(
        launch.name,
        launch.label,
        architecture,
        _number(REGISTERS, log),
        sum(map(int, SPILLS.findall(log))),
        _number(STACK, log),
        sum(map(int, SHARED.findall(text))),
        double,
        _says_wide(launch.kernel),
    )


@cache
def ptx(kernel: Any, types: tuple[Any, ...], architecture: str) -> str:
    """The PTX of a kernel for these argument types."""
    from unittest import mock

    from numba import cuda, void
    from numba.cuda import dispatcher

    cc = ARCHITECTURES[architecture]
    signature = void(*[_numba_type(t) for t in types])
    # cuda.compile takes the architecture as an argument, but for device functions asks the current device.
    present = SimpleNamespace(compute_capability=cc)
    with mock.patch.object(dispatcher, "get_current_device", lambda: present):
        text, _ = cuda.compile(kernel.py_func, signature, cc=cc, device=False, abi="numba", output="ptx")
    return text.decode() if isinstance(text, bytes) else str(text)


def _number(pattern: re.Pattern[str], log: str) -> int:
    found = pattern.search(log)
    return int(found[1]) if found else 0


def _says_wide(kernel: Any) -> bool:
    import linecache

    text = "".join(linecache.getlines(kernel.py_func.__code__.co_filename))
    return "wide(" in text


def _type(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return ("array", str(value.dtype), value.ndim, "C" if value.flags.c_contiguous else "A")
    if isinstance(value, tuple):
        return ("tuple", *(_type(v) for v in value))
    if isinstance(value, bool | np.bool_):
        return "boolean"
    if isinstance(value, int):
        return "int64"
    return str(np.dtype(type(value)))


def _numba_type(key: Any) -> Any:
    from numba import types

    if isinstance(key, str):
        return getattr(types, key)
    if key[0] == "tuple":
        members = [_numba_type(k) for k in key[1:]]
        return types.UniTuple(members[0], len(members)) if len(set(members)) == 1 else types.Tuple(members)
    return types.Array(getattr(types, key[1]), key[2], key[3])
