"""Kernels come out of Numba's cache without what only compiling needs, and either cache class reads the other's."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
import numpy as np
from types import SimpleNamespace
import plain_kernel
from normcore.kernels import kernel, store, variant

if sys.argv[1] == "numba":  # as Numba alone would do it
    store._load_lightly = lambda made: None
x = np.arange(100, dtype=np.float32)
plain_kernel.double[SimpleNamespace(variant=variant("float32"))](x)
assert (x == 2 * np.arange(100)).all()
print(kernel.statistics.compiled, kernel.statistics.loaded, "numba.cpython.charseq" in sys.modules)
"""
KERNEL = """
from normcore.kernels import cpu, prange

@cpu
def double(x):
    for i in prange(x.size):
        x[i] = 2 * x[i]
"""


@pytest.mark.parametrize(("writes", "reads"), [("numba", "lightly"), ("lightly", "numba")])
def test_what_one_wrote_the_other_reads(tmp_path, writes, reads):
    (tmp_path / "plain_kernel.py").write_text(KERNEL, encoding="utf-8")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "NORMCORE_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }

    def run(how):
        found = subprocess.run(
            [sys.executable, "-c", SCRIPT, how], env=environment, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        return found.stdout.split()

    assert run(writes)[:2] == ["1", "0"]
    compiled, loaded, prepared = run(reads)
    assert (compiled, loaded) == ("0", "1")
    assert prepared == str(reads == "numba")  # a module that Numba imports when it prepares to compile
