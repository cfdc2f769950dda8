"""What happens to gradients before an update: gathering them over batches, and their global norm for clipping."""

from typing import Any

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import block_sum
from normcore.training.optimizers.base import CHUNK


@inline(reassociate=True)
def _square_sum(g):
    total = real(0)
    for i in range(g.size):
        total += g[i] * g[i]
    return total


@cpu
def square_sums(g, starts, stops, partial):
    """partial[c] = sum of squares of chunk c, for the global norm."""
    for c in prange(starts.size):
        partial[c] = wide(_square_sum(g[starts[c] : stops[c]]))


@cuda
def square_sums_cuda(g, starts, stops, partial):
    """One block a chunk; a thread adds up few enough numbers for float32."""
    scratch = cu.shared.array(32, np.float64)
    c = cu.blockIdx.x
    total = real(0)
    for i in range(starts[c] + cu.threadIdx.x, stops[c], cu.blockDim.x):
        total += g[i] * g[i]
    everything = block_sum(wide(total), scratch)
    if cu.threadIdx.x == 0:
        partial[c] = everything


@inline
def _gather_slice(g, total, samples, fresh):
    if fresh:
        for i in range(g.size):
            total[i] = samples * g[i]
    else:
        for i in range(g.size):
            total[i] += samples * g[i]


@cpu
def _gather(g, total, samples, fresh):
    n = g.size
    for chunk in prange((n + CHUNK - 1) // CHUNK):
        lo = chunk * CHUNK
        hi = min(n, lo + CHUNK)
        _gather_slice(g[lo:hi], total[lo:hi], samples, fresh)


@cuda
def _gather_cuda(g, total, samples, fresh):
    for i in range(cu.grid(1), g.size, cu.gridsize(1)):
        total[i] = samples * g[i] if fresh else total[i] + samples * g[i]


def gather_gradients(t: Any, g: Any, samples: float, fresh: bool) -> None:
    """t.g += samples * g, or = when fresh; t is an optimizer's namespace."""
    if t.device.name == "cpu":
        _gather[t](g, t.g, t.scalar(samples), fresh)
    else:
        _gather_cuda[t, g.size](g, t.g, t.scalar(samples), fresh)
