"""The simulator itself: warps, barriers, and the mistakes it must find."""

from types import SimpleNamespace

import numpy as np
import pytest

from normcore.devices.cuda import device
from normcore.devices.cuda_threads import SimulatorError
from normcore.kernels import cu, cuda, inline, real, variant


def zeros(*shape, dtype=np.float32):
    return device().array(np.zeros(shape), dtype)


def tensors(dtype="float32"):
    return SimpleNamespace(variant=variant(dtype), device=device())


@inline
def warp_sum(v):
    for k in range(5):
        v += cu.shfl_down_sync(0xFFFFFFFF, v, 16 >> k)
    return v


@cuda
def _block_sums(x, out):
    partial = cu.shared.array(32, real)
    lane = cu.threadIdx.x % 32
    v = 0.0
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        v += x[i]
    v = warp_sum(v)
    if lane == 0:
        partial[cu.threadIdx.x // 32] = v
    cu.syncthreads()
    if cu.threadIdx.x == 0:
        total = 0.0
        for w in range(cu.blockDim.x // 32):
            total += partial[w]
        out[cu.blockIdx.x] = total


@pytest.mark.parametrize("block", [32, 96, 256])
def test_shuffles_and_shared_memory(block):
    x = device().array(np.arange(500), "float32")
    out = zeros(3)
    _block_sums[tensors(), (3, block)](x, out)
    assert out.sum() == x.sum()


@cuda
def _no_barrier(out):
    shared = cu.shared.array(64, real)
    shared[cu.threadIdx.x] = 1.0
    out[cu.threadIdx.x] = shared[63 - cu.threadIdx.x]
    cu.syncthreads()


def test_missing_barrier_shows():
    """A thread that reads what a later one writes finds the NaN that shared memory starts with."""
    out = zeros(64)
    _no_barrier[tensors(), (1, 64)](out)
    assert np.isnan(out).any()


@cuda
def _divergent(out):
    if cu.threadIdx.x < 40:
        cu.syncthreads()
    out[cu.threadIdx.x] = 1.0


def test_divergent_barrier_is_an_error():
    with pytest.raises(SimulatorError, match="40 of 64 threads wait"):
        _divergent[tensors(), (1, 64)](zeros(64))


@cuda
def _left_out(out):
    out[cu.threadIdx.x] = cu.shfl_sync(0xFFFF, out[cu.threadIdx.x], 0)


def test_lane_outside_its_mask_is_an_error():
    with pytest.raises(SimulatorError, match="leaves it out"):
        _left_out[tensors(), (1, 32)](zeros(32))


@cuda
def _votes(x, out):
    i = cu.threadIdx.x
    found = cu.ballot_sync(0xFFFFFFFF, x[i] > 0.0)
    some = cu.any_sync(0xFFFFFFFF, x[i] > 30.0)
    every = cu.all_sync(0xFFFFFFFF, x[i] > 30.0)
    count = cu.syncthreads_count(x[i] > 0.0)
    up = cu.shfl_up_sync(0xFFFFFFFF, x[i], 1)
    out[i] = cu.popc(found) + 100 * some + 1000 * every + 10000 * count + 1000000 * up


def test_votes():
    x = device().array(np.arange(32), "float64")
    out = zeros(32, dtype="float64")
    _votes[tensors("float64"), (1, 32)](x, out)
    up = np.concatenate([[0], np.arange(31)])
    np.testing.assert_array_equal(device().to_host(out), 31 + 100 + 10000 * 31 + 1000000 * up)


@cuda
def _scalars(out, a, b):
    out[cu.grid(1)] = a * b[0]


def test_python_floats_arrive_in_the_kernels_dtype():
    """As float64 they would turn float32 arithmetic double."""
    out = zeros(4, dtype="float64")
    _scalars[tensors(), 4](out, 0.1, (1.0, 2))
    assert (out == np.float32(0.1)).all()
    _scalars[tensors(), 4](out, np.float64(0.1), (1.0, 2))
    assert (out == 0.1).all()


def test_nothing_to_launch():
    _scalars[tensors(), 0](zeros(0), 1.0, (1.0,))


def test_arrays_of_the_host_do_not_mix_with_the_devices():
    """CuPy refuses them; a launch would copy them there and back."""
    x, host = zeros(4), np.ones(4, np.float32)
    for mixing in (lambda: x + host, lambda: x.__setitem__(slice(None), host), lambda: np.dot(x, host)):
        with pytest.raises(SimulatorError, match="mixes arrays"):
            mixing()
    with pytest.raises(SimulatorError, match="mixes arrays"):
        _scalars[tensors(), 4](host, 1.0, (1.0,))
    x[...] = 2
    x += device().array(host, "float32")
    assert (x == 3).all()
