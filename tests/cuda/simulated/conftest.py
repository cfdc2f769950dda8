"""These tests run in a process of their own with NUMBA_ENABLE_CUDASIM=1; see tests/cuda/test_simulator.py."""

from normcore.devices.cuda import simulating

collect_ignore_glob = [] if simulating() else ["test_*.py"]
