"""What is known of the machine: memory that a tuned allocator keeps counts as free."""

import os
import subprocess
import sys

import pytest

from normcore.measuring.peer import TUNED

HELD = 200_000_000  # bytes

SCRIPT = f"""
import numpy as np
from normcore.measuring.machine import memory_kept_free
from normcore.measuring.peer import tuned
assert tuned()
before = memory_kept_free()
held = [np.ones({HELD} // 80) for _ in range(10)]
during = memory_kept_free()
del held
print(before, during, memory_kept_free())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator is asked")
def test_memory_that_the_allocator_keeps_is_free():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, **TUNED},
        capture_output=True,
        text=True,
        check=True,
    )
    before, during, after = map(int, done.stdout.split())
    if (before, during, after) == (0, 0, 0):
        pytest.skip("this C library cannot tell: mallinfo2 is glibc's, from 2.33 on")
    assert after - during >= HELD
    assert abs(during - before) < HELD
