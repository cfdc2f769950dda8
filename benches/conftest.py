"""Benches compare kernels with the memory allocator tuned: torch then reuses memory instead of page-faulting anew.

glibc reads these settings when the process starts, so a run without them starts itself once more with them.
"""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # peers stand beside the benches

TUNED = {
    "MALLOC_MMAP_THRESHOLD_": "1000000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000000",
    "GOMP_SPINCOUNT": "10000",
}


def pytest_configure(config):
    if all(os.environ.get(key) == value for key, value in TUNED.items()):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]], {**os.environ, **TUNED})
