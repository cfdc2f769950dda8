"""The global norm of the gradient, chunk by chunk, for clipping."""

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import block_sum


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
