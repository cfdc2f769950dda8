"""What this machine can do at most: bytes a second of a plain copy and of reading alone, floating-point operations a
second.

The CPU's copy is a parallel kernel like all others (read one array, write another), so it runs with the same
threads and under the same compiler, and writes what no cache holds around the caches. Reading alone moves fewer bytes
a second, for a copy reads and writes at once: an op that reads much more than it writes cannot reach the copy's rate.
The peak is the register tile of the matrix products on data that stays in the first-level cache. On the GPU the copy
goes from device to device and the peak is a product of the device's library.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from normcore.devices.device import Device
from normcore.kernels import cpu, inline, prange, real, variant
from normcore.kernels.streaming import STREAM_STEP, first_line, leaves_cache, stream_run, stream_step
from normcore.kernels.tile import TILE_ROWS, tile_columns, tile_rows_2
from normcore.kernels.window import window
from normcore.measuring.timer import interleave

PIECE = 16384  # numbers a task copies
DEPTH = 128  # of the product whose operands stay in the first-level cache
PEAK_SIDE = 4096  # of the GPU's square matrices
LARGE = 1 << 28  # bytes of a copy that no cache holds


@inline
def _move(x, y):
    for i in range(y.size):
        y[i] = x[i]


@cpu
def _copy(x, y):
    n, far = y.size, leaves_cache(y)
    for piece in prange((n + PIECE - 1) // PIECE):
        lo = piece * PIECE
        hi = min(n, lo + PIECE)
        if far:
            at = lo + first_line(y[lo:hi])
            stream_run(y, lo, x[lo:at], at - lo)
            while at + STREAM_STEP <= hi:
                stream_step(y, at, window(x, at, at + STREAM_STEP), x)
                at += STREAM_STEP
            stream_run(y, at, x[at:hi], hi - at)
        else:
            _move(x[lo:hi], y[lo:hi])


@inline(reassociate=True)
def _sum(x):
    total = real(0)
    for i in range(x.size):
        total += x[i]
    return total


@cpu
def _read(x, sums):
    for piece in prange(sums.size):
        lo = piece * PIECE
        sums[piece] = _sum(x[lo : min(x.size, lo + PIECE)])


@cpu
def _products(a, table, b, c, tasks, repeats, depth, rows, columns):
    for task in prange(tasks):
        for _ in range(repeats):
            tile_rows_2(
                a, 0, table, 0, rows, 1, depth, b, 0, columns, b, 0, c, task * rows * columns, columns, True,
                rows, columns,
            )  # fmt: skip


def copier(device: Device, nbytes: int, dtype: str = "float32") -> Callable[[], None]:
    """A call that reads nbytes / 2 and writes nbytes / 2, as a kernel that moves nbytes must."""
    return copiers(device, nbytes, 1, dtype)[0]


def copiers(device: Device, nbytes: int, count: int, dtype: str = "float32") -> list[Callable[[], None]]:
    """`count` of them that read arrays of their own and write the same one. What they read is random, as an op's input
    is: some processors copy zeros a tenth faster."""
    size = max(1, nbytes // 2 // np.dtype(dtype).itemsize)
    values = np.resize(np.random.default_rng(7).standard_normal(min(size, PIECE)).astype(dtype), size)
    y = device.array(np.zeros(size), dtype)
    return [_copier(device, device.array(values, dtype), y, dtype) for _ in range(count)]


def _copier(device: Device, x: Any, y: Any, dtype: str) -> Callable[[], None]:
    if device.name != "cpu":

        def copy_on_device():
            y[...] = x

        return copy_on_device
    t = SimpleNamespace(variant=variant(dtype, parallel=y.size >= PIECE))

    def copy():
        _copy[t](x, y)

    return copy


def copy_rate(device: Device, nbytes: int = LARGE, seconds: float = 0.5) -> float:
    """Bytes a second, read and written, of a copy that moves nbytes."""
    nbytes = int(min(nbytes, device.free_memory() // 8))
    call = copier(device, nbytes)
    return nbytes / _seconds(device, call, seconds)


def read_rate(device: Device, nbytes: int = LARGE, seconds: float = 0.3) -> float | None:
    """Bytes a second of reading alone, nbytes of float32; None of a GPU, where copies are not limited by one side."""
    if device.name != "cpu":
        return None
    x = device.array(np.ones(int(min(nbytes, device.free_memory() // 8)) // 4), "float32")
    sums = np.zeros(-(-x.size // PIECE), np.float32)
    t = SimpleNamespace(variant=variant("float32", parallel=True))
    return float(x.nbytes / _seconds(device, lambda: _read[t](x, sums), seconds))


def peak_rate(device: Device, dtype: str = "float32", seconds: float = 0.3) -> float:
    """Floating-point operations a second; a multiplication and an addition count as two."""
    if device.name != "cpu":
        return _device_peak(device, dtype, seconds)
    import numba

    size = np.dtype(dtype).itemsize
    rows, columns, tasks = TILE_ROWS, tile_columns(size), numba.get_num_threads()
    rng = np.random.default_rng(7)
    a, b = (rng.standard_normal(n).astype(dtype) for n in (rows * DEPTH, (DEPTH + 1) * columns))
    c = np.zeros(tasks * rows * columns, dtype)
    table = np.array([*(i * DEPTH for i in range(rows)), 0], np.int64)
    repeats = 2000
    t = SimpleNamespace(variant=variant(dtype, parallel=True))

    def call():
        _products[t](a, table, b, c, tasks, repeats, DEPTH, rows, columns)

    flops = 2 * rows * columns * DEPTH * repeats * tasks
    return float(flops / _seconds(device, call, seconds))


def _device_peak(device: Any, dtype: str, seconds: float) -> float:
    side = PEAK_SIDE if device.free_memory() > 1 << 30 and device.title != "simulator" else 64
    a, b, c = (device.array(np.zeros((side, side)), dtype) for _ in range(3))
    return float(2 * side**3 / _seconds(device, lambda: device.matmul(a, b, c), seconds))


def _seconds(device: Any, call: Any, seconds: float) -> float:
    """The fastest round's: a limit is what the machine reaches undisturbed."""
    call()
    clocks = {} if device.name == "cpu" else {"limit": device.measure}
    timing = interleave({"limit": call}, rounds=9, seconds=seconds, clocks=clocks)
    return float(min(timing.rounds["limit"]))
