"""Settings that must stand before Numba is imported."""

import os

# Results must not depend on the number of threads: have at least two to vary, on any machine.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))


def pytest_collection_modifyitems(items):
    """Whatever compares with torch carries the marker `peers`: CI runs it once the extra is there."""
    import inspect

    import pytest

    for item in items:
        function = getattr(item, "function", None)
        if function is not None and 'importorskip("torch"' in inspect.getsource(function):
            item.add_marker(pytest.mark.peers)
