"""CUDA kernels without a GPU: tests/cuda/simulated in a process of its own, where numba.cuda simulates."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


def test_simulated_kernels_agree_with_the_cpu():
    if importlib.util.find_spec("numba.cuda.simulator") is None:
        pytest.skip("this numba has no CUDA simulator")
    environment = {**os.environ, "NUMBA_ENABLE_CUDASIM": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(HERE / "simulated")]
    done = subprocess.run(command, env=environment, cwd=HERE.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
