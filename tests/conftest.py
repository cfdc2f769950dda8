"""Settings that must stand before Numba is imported, markers, and the suite spread over the processors."""

import os

import pytest
from hypothesis import HealthCheck, settings

# Results must not depend on the number of threads: have at least two to vary, on any machine.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))

# Threads that wait must not take a processor from the tests beside them.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# How long an example takes to draw or to run says something of the machine, not of what is tested.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

MOST_WORKERS = 4  # each grows to 3 GB, with what Numba keeps of a thousand compilations


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """The whole suite runs in a process for each processor: Numba compiles one kernel at a time in each.

    `-n 0` keeps it in one process, and so do paths on the command line.
    """
    option = config.option
    if not hasattr(option, "numprocesses") or hasattr(config, "workerinput"):
        return
    whole = config.args_source is config.ArgsSource.TESTPATHS and not option.collectonly and not option.usepdb
    if whole and option.numprocesses is None:
        # Neighbouring tests share kernels: each worker takes a run of them, and the rest of another's when it is done.
        option.numprocesses, option.dist = min(os.cpu_count() or 1, MOST_WORKERS), "worksteal"
    if option.numprocesses:
        option.benchmark_disable = True  # pytest-benchmark would warn that it is


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
