"""How long a user waits: for help, for the import, for the first step with nothing compiled and with a warm cache.

python -m pytest benches/test_startup.py. Each is the median of fresh processes.
"""

import os
import statistics
import subprocess
import sys
import time

import pytest

STEP = """
import numpy as np
from normcore import Network, Trainer
layers = [{"conv": {"out_channels": 8, "kernel_size": 3}}, "batch_norm", "relu", "flatten", {"dense": 10}]
mapping = {"input": [1, 28, 28], "network": layers, "loss": "cross_entropy", "optimizer": {"sgd": {"lr": 0.1}}}
trainer = Trainer(Network.from_mapping(mapping))
trainer.step(np.zeros((64, 1, 28, 28), np.float32), np.zeros(64, np.int64))
"""
HELP = [sys.executable, "-m", "normcore_cli.main", "--help"]


def seconds(command, rounds, **environment):
    """The median over fresh processes."""
    found = []
    for _ in range(rounds):
        started = time.perf_counter()
        subprocess.run(
            command, env={**os.environ, **environment}, check=True, capture_output=True, timeout=300
        )
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def record(benchmark, recorder, name, value):
    benchmark.extra_info["seconds"] = value
    recorder.add(name, seconds=value)
    benchmark.pedantic(lambda: None)


def test_python_itself(benchmark, recorder):
    record(benchmark, recorder, "python -c pass", seconds([sys.executable, "-c", "pass"], 7))


def test_help(benchmark, recorder):
    record(benchmark, recorder, "normcore --help", seconds(HELP, 7))


@pytest.mark.parametrize("what", ["normcore", "normcore.bound_layer"])
def test_import(benchmark, recorder, what):
    record(benchmark, recorder, f"import {what}", seconds([sys.executable, "-c", f"import {what}"], 7))


def test_first_step(benchmark, recorder, tmp_path):
    """A small convolutional net: from the start of Python to the end of its first step."""
    command, cache = [sys.executable, "-c", STEP], str(tmp_path / "cache")
    cold = seconds(command, 1, NORMCORE_CACHE_DIR=cache)
    warm = seconds(command, 3, NORMCORE_CACHE_DIR=cache)
    recorder.add("first step, nothing compiled", seconds=cold)
    record(benchmark, recorder, "first step, kernels cached", warm)
    assert warm < cold
