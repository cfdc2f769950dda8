"""Settings that must stand before Numba is imported, markers, and a second process that compiles ahead."""

import os
import pathlib
import subprocess
import sys

import pytest

# Results must not depend on the number of threads: have at least two to vary, on any machine.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))

HERE = pathlib.Path(__file__).parent
AHEAD = "NORMCORE_TESTS_AHEAD"  # set in the process that runs the tests backwards to fill the kernel cache
COMPILING = (
    *("conformance", "activation", "normalization", "pooling", "recurrent", "basic"),
    *("graph", "kernels", "templates", "training"),
)
WORTH_IT = 1000  # tests, from which a second process pays


def pytest_collection_modifyitems(config, items):
    """Whatever compares with torch carries the marker `peers`: CI runs it once the extra is there.

    Tests marked `slow` run only where -m asks for them.
    """
    import inspect

    for item in items:
        function = getattr(item, "function", None)
        if function is not None and 'importorskip("torch"' in inspect.getsource(function):
            item.add_marker(pytest.mark.peers)
    if "slow" not in config.getoption("markexpr"):
        slow = [item for item in items if item.get_closest_marker("slow")]
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
    if AHEAD in os.environ:
        items.reverse()


def pytest_collection_finish(session):
    """Numba compiles one kernel at a time, and with nothing compiled that is most of the time that the tests take.

    So a second process runs those that compile from the other end; both meet in the kernel cache on disk. Its
    results are thrown away: every test runs in this process.
    """
    folders = [str(HERE / name) for name in COMPILING if (HERE / name).is_dir()]
    if AHEAD in os.environ or len(session.items) < WORTH_IT or (os.cpu_count() or 1) < 2:
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *folders]
    session.config.stash[_helper] = subprocess.Popen(
        command,
        env={**os.environ, AHEAD: "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=HERE.parent,
    )


def pytest_sessionfinish(session):
    helper = session.config.stash.get(_helper, None)
    if helper is not None:
        helper.terminate()
        helper.wait()


_helper = pytest.StashKey()
