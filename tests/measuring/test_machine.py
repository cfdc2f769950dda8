"""Memory that a tuned allocator keeps goes back to the system when a benchmark runs short of it."""

import os
import subprocess
import sys

import pytest

from normcore.measuring.peer import TUNED

HELD = 200_000_000  # bytes

SCRIPT = f"""
import os
import numpy as np
from normcore.measuring.machine import give_back_freed
from normcore.measuring.peer import tuned

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

assert tuned()
held = [np.ones({HELD} // 80) for _ in range(10)]
del held
kept = resident()
give_back_freed()
print(kept, resident())
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux tells what is resident")
def test_freed_memory_goes_back():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **TUNED},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, left = map(int, done.stdout.split())
    assert left <= kept
    if kept > HELD:  # glibc, which keeps it
        assert kept - left > HELD / 2
