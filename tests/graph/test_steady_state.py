"""A training step in steady state allocates no array, memory stays flat, and threads do not change a bit."""

import pathlib
import tracemalloc

import numba
import numpy as np
import pytest
from numba.core.runtime import _nrt_python, rtsys

import normcore

BATCH = 32
SHAPE = (4, 12, 12)
LARGE = 4096  # bytes; every activation of the net below is larger
SPEC = {
    "input": list(SHAPE),
    "seed": 3,
    "network": [
        {"conv": {"out_channels": 8, "kernel_size": 3, "padding": "same", "bias": False}},
        "batch_norm",
        "relu",
        {"residual": {"body": [{"conv": {"out_channels": 8, "kernel_size": 3, "padding": "same"}}, "tanh"]}},
        {"branches": {"paths": [["relu"], [{"conv": {"out_channels": 4, "kernel_size": 1}}]]}},
        {"max_pool": {"kernel_size": 3, "stride": 2}},
        "flatten",
        {"dense": 40},
        "batch_norm",
        "relu",
        {"dropout": 0.25},
        {"dense": 10},
    ],
    "loss": "cross_entropy",
    "optimizer": {"sgd": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}},
    "train": {"clip_grad_norm": 1.0},
}


def trainer_and_batch():
    trainer = normcore.Trainer(normcore.Network.from_mapping(SPEC))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, *SHAPE)).astype(np.float32)
    return trainer, x, rng.integers(0, 10, BATCH)


def test_a_step_allocates_nothing():
    trainer, x, targets = trainer_and_batch()
    for _ in range(5):
        trainer.step(x, targets)
    tracemalloc.start(8)
    try:
        trainer.step(x, targets)  # what tracing itself makes others allocate once
        before = tracemalloc.take_snapshot()
        tracemalloc.reset_peak()
        held, _ = tracemalloc.get_traced_memory()
        for _ in range(3):
            trainer.step(x, targets)
        _, peak = tracemalloc.get_traced_memory()
        after = tracemalloc.take_snapshot()
    finally:
        tracemalloc.stop()
    domain = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    left = [trace for trace in after.filter_traces(domain).traces if trace.size > LARGE]
    known = {trace.traceback for trace in before.filter_traces(domain).traces}
    new = [trace for trace in left if trace.traceback not in known]
    assert not new, "\n".join(map(str, new))
    # What came and went within a step shows in the peak; Python's own small objects stay below one activation.
    assert peak - held < 4 * LARGE, f"{peak - held} bytes at once"


def test_kernels_make_no_arrays():
    """A kernel that makes none is compiled without reference counts; for others Numba counts what they are given, too."""
    trainer, x, targets = trainer_and_batch()
    for _ in range(3):
        trainer.step(x, targets)
    _nrt_python.memsys_enable_stats()
    try:
        before = rtsys.get_allocation_stats().alloc
        trainer.step(x, targets)
        made = rtsys.get_allocation_stats().alloc - before
    finally:
        _nrt_python.memsys_disable_stats()
    assert made == 0


@pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_resident_memory_stays_flat_over_500_steps():
    trainer, x, targets = trainer_and_batch()

    def resident():
        return int(pathlib.Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096

    for _ in range(50):
        trainer.step(x, targets)
    before = resident()
    for _ in range(500):
        trainer.step(x, targets)
    assert resident() - before < 1_000_000


def weights_after(steps, threads):
    trainer, x, targets = trainer_and_batch()
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        losses = [trainer.step(x, targets) for _ in range(steps)]
    finally:
        numba.set_num_threads(before)
    return losses, {path: array.copy() for path, array in trainer.net.parameters.items()}


def test_same_seed_same_bits_for_any_number_of_threads():
    losses, weights = weights_after(6, threads=1)
    for threads in (1, 2):
        again, others = weights_after(6, threads)
        assert again == losses
        for path, array in weights.items():
            assert (array == others[path]).all(), f"{path} with {threads} threads"
    assert losses[-1] < losses[0]
