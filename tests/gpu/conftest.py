"""Tests on real hardware: `pytest -m gpu`."""

import pytest

from normcore.devices import cuda


@pytest.fixture(scope="session", autouse=True)
def hardware():
    """The CUDA device; skips where there is none."""
    if cuda.simulating():
        pytest.skip("NUMBA_ENABLE_CUDASIM is set: hardware only")
    reason = cuda.missing()
    if reason is not None:
        pytest.skip(f"no CUDA here: {reason}")
    return cuda.device()
