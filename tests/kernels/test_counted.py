"""Kernels are compiled without reference counts; one that makes arrays is compiled with them, at once the next time."""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from normcore.kernels import cpu, prange, variant
from normcore.kernels.kernel import KernelError

SCRIPT = """
import numpy as np
from types import SimpleNamespace
import counted_kernels
from normcore.kernels import kernel, variant

t = SimpleNamespace(variant=variant("float32"))
x = np.arange(12, dtype=np.float32).reshape(3, 4)
for made in (counted_kernels.takes_slices, counted_kernels.makes_arrays):
    y = np.zeros(3, np.float32)
    made[t](x, y)
    assert (y == 2 * x.sum(1)).all(), y
print(kernel.statistics.compiled, kernel.statistics.loaded)
"""
KERNELS = """
import numpy as np
from normcore.kernels import cpu, prange

@cpu
def takes_slices(x, y):
    for i in prange(x.shape[0]):
        y[i] = 2 * x[i].sum()

@cpu
def makes_arrays(x, y):
    for i in prange(x.shape[0]):
        twice = np.empty(x.shape[1], x.dtype)
        twice[:] = 2 * x[i]
        y[i] = twice.sum()
"""


def test_a_kernel_that_makes_arrays_is_found_at_once_the_next_time(tmp_path):
    (tmp_path / "counted_kernels.py").write_text(KERNELS, encoding="utf-8")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "NORMCORE_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }

    def run():
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    assert run() == ["2", "0"]
    texts = [file.read_text("utf-8") for file in (tmp_path / "cache" / "kernels").glob("*.py")]
    assert sorted("_nrt=False" in text for text in texts) == [False, True, True]  # one was refused
    assert run() == ["0", "2"]


@cpu
def wrong(x, y):
    for i in prange(x.shape[0]):
        y[i] = x.no_such_thing


def test_what_is_wrong_for_another_reason_is_told_as_before():
    t = SimpleNamespace(variant=variant("float32"))
    with pytest.raises(KernelError, match="no_such_thing"):
        wrong[t](np.zeros(3, np.float32), np.zeros(3, np.float32))
