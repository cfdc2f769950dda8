"""Summing the gradients that several readers send to one value."""

from collections.abc import Sequence
from typing import Any

from normcore.kernels import cpu, cu, cuda, inline, prange

CHUNK = 16384


@inline
def _add_slice(a, b, y):
    for i in range(y.size):
        y[i] = a[i] + b[i]


@cpu
def _add(a, b, y):
    n = y.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        lo = chunk * CHUNK
        hi = min(n, lo + CHUNK)
        _add_slice(a[lo:hi], b[lo:hi], y[lo:hi])


@cuda
def _add_cuda(a, b, y):
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        y[i] = a[i] + b[i]


def accumulate(t: Any, parts: Sequence[Any], total: Any) -> None:
    """total = sum of parts, always in the same order; flat arrays. t selects the kernel's variant."""
    left = parts[0]
    for right in parts[1:]:
        if t.device.name == "cpu":
            _add[t](left, right, total)
        else:
            _add_cuda[t, total.size](left, right, total)
        left = total
