"""Benches compare kernels with the memory allocator tuned: torch then reuses memory instead of page-faulting anew.

glibc reads these settings when the process starts, so a run without them starts itself once more with them.
With --save-results FILE everything measured is put into that file, which make_tables.py turns into tables.
"""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))  # peers and helpers stand beside the benches

import recording

from normcore.measuring.peer import TUNED


def pytest_addoption(parser):
    parser.addoption(
        "--save-results", metavar="FILE", help="JSON of the rows, such as benches/results/cpu.json"
    )
    parser.addoption("--bench-seconds", type=float, default=1.0, help="for a row's interleaved rounds")


def pytest_configure(config):
    recording.SETTINGS["seconds"] = config.getoption("--bench-seconds")
    if all(os.environ.get(key) == value for key, value in TUNED.items()):
        return
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]], {**os.environ, **TUNED})


@pytest.fixture(scope="session")
def recorder(request):
    """Gathers rows; writes them at the end when --save-results asks for it."""
    found = recording.Recorder()
    yield found
    path = request.config.getoption("--save-results")
    if path:
        found.write(path)
