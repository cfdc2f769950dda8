"""Settings that must stand before Numba is imported."""

import os

# Results must not depend on the number of threads: have at least two to vary, on any machine.
os.environ.setdefault("NUMBA_NUM_THREADS", str(max(2, os.cpu_count() or 1)))
