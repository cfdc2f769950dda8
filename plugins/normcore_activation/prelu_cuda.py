"""prelu on CUDA: x (N, C, L); channels last and features are (M, C, 1). See prelu.py."""

import numpy as np

from normcore.kernels import cu, cuda, real, wide
from normcore.kernels.warps import block_sum
from normcore_activation.prelu_cpu import slope, slope_gradient, value

THREADS = 256  # of a block that sums together
WARPS = THREADS // 32


@cuda
def forward_cuda(x, weight, length, y):
    """x, y flat; the channel changes every `length` numbers."""
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        y[i] = value(x[i], weight[i // length % weight.size])


@cuda
def planes_backward_cuda(x, dy, weight, dx, wanted, sums):
    """Block (k, c) takes part k of channel c; sums (chunks, C)."""
    channels, length = x.shape[1], x.shape[2]
    chunks = sums.shape[0]
    c = cu.blockIdx.x % channels
    k = cu.blockIdx.x // channels
    scratch = cu.shared.array(WARPS, np.float64)
    count = x.shape[0] * length
    step = (count + chunks - 1) // chunks
    w = weight[c]
    total = wide(0)
    for q in range(k * step + cu.threadIdx.x, min(count, k * step + step), cu.blockDim.x):
        n = q // length
        i = q - n * length
        v, g = x[n, c, i], dy[n, c, i]
        if wanted:
            dx[n, c, i] = g * slope(v, real(0), w)
        total += wide(slope_gradient(v, g))
    total = block_sum(total, scratch)
    if cu.threadIdx.x == 0:
        sums[k, c] = total


@cuda
def rows_backward_cuda(x, dy, weight, dx, wanted, sums):
    """Block (k, b) takes part k of the rows, channels 32 b .. 32 b + 31: a warp a row, whole lines at once."""
    rows, channels = x.shape[0], x.shape[1]
    chunks = sums.shape[0]
    scratch = cu.shared.array(THREADS, np.float64)
    k = cu.blockIdx.x % chunks
    c = cu.blockIdx.x // chunks * 32 + cu.threadIdx.x % 32
    step = (rows + chunks - 1) // chunks
    total = wide(0)
    if c < channels:
        w = weight[c]
        for r in range(k * step + cu.threadIdx.x // 32, min(rows, k * step + step), cu.blockDim.x // 32):
            v, g = x[r, c, 0], dy[r, c, 0]
            if wanted:
                dx[r, c, 0] = g * slope(v, real(0), w)
            total += wide(slope_gradient(v, g))
    scratch[cu.threadIdx.x] = total
    cu.syncthreads()
    if cu.threadIdx.x < 32 and c < channels:
        for other in range(1, cu.blockDim.x // 32):
            total += scratch[cu.threadIdx.x + 32 * other]
        sums[k, c] = total


@cuda
def finish_cuda(sums, dweight):
    for c in range(cu.grid(1), dweight.size, cu.gridsize(1)):
        total = wide(0)
        for k in range(sums.shape[0]):
            total += sums[k, c]
        dweight[c] = real(total)
