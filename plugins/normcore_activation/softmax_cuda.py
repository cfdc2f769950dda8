"""softmax, softmin and log_softmax on CUDA, arrays (O, A, I): a block for each line, or a thread for each column.

SIGN is 1, or -1 for softmin; LOG gives log_softmax. Sums go through warps in a fixed order.
"""

import math

from normcore.kernels import cu, cuda, inline, real
from normcore.kernels.warps import ALL, block_sum
from normcore_activation.softmax_cpu import (
    log_softmax_gradient,
    log_value,
    shifted_exp,
    softmax_gradient,
)

SIGN = 1
LOG = False
LOWEST = -math.inf
WARPS = 32  # of a block, at most


@inline
def block_max(v, scratch):
    """The largest v of the block, to all threads. scratch: as block_sum's. A NaN may be passed over."""
    for k in range(5):
        other = cu.shfl_xor_sync(ALL, v, 16 >> k)
        v = other if other > v else v
    if cu.threadIdx.x % 32 == 0:
        scratch[cu.threadIdx.x // 32] = v
    cu.syncthreads()
    best = scratch[0]
    for w in range(1, cu.blockDim.x // 32):
        best = scratch[w] if scratch[w] > best else best
    cu.syncthreads()
    return best


@inline
def value(x, m, total):
    """total: the sum of exponentials, or its logarithm."""
    return log_value(x, m, total) if LOG else shifted_exp(x, m) / total


@inline
def share(y, dy):
    return dy if LOG else y * dy


@inline
def gradient(y, dy, total):
    return log_softmax_gradient(y, dy, total) if LOG else softmax_gradient(y, dy, total)


@cuda
def lines_cuda(x, y):
    scratch = cu.shared.array(WARPS, real)
    size, inner = x.shape[1], x.shape[2]
    o = cu.blockIdx.x // inner
    i = cu.blockIdx.x - o * inner
    m = real(LOWEST)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        v = real(SIGN) * x[o, a, i]
        m = v if v > m else m
    m = block_max(m, scratch)
    total = real(0)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        total += shifted_exp(x[o, a, i], m)
    total = block_sum(total, scratch)
    if LOG:
        total = math.log(total)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        y[o, a, i] = value(x[o, a, i], m, total)


@cuda
def columns_cuda(x, y):
    outer, size, inner = x.shape
    for c in range(cu.grid(1), outer * inner, cu.gridsize(1)):
        o = c // inner
        i = c - o * inner
        m = real(LOWEST)
        for a in range(size):
            v = real(SIGN) * x[o, a, i]
            m = v if v > m else m
        total = real(0)
        for a in range(size):
            total += shifted_exp(x[o, a, i], m)
        if LOG:
            total = math.log(total)
        for a in range(size):
            y[o, a, i] = value(x[o, a, i], m, total)


@cuda
def lines_backward_cuda(y, dy, dx):
    scratch = cu.shared.array(WARPS, real)
    size, inner = y.shape[1], y.shape[2]
    o = cu.blockIdx.x // inner
    i = cu.blockIdx.x - o * inner
    total = real(0)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        total += share(y[o, a, i], dy[o, a, i])
    total = block_sum(total, scratch)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        dx[o, a, i] = gradient(y[o, a, i], dy[o, a, i], total)


@cuda
def columns_backward_cuda(y, dy, dx):
    outer, size, inner = y.shape
    for c in range(cu.grid(1), outer * inner, cu.gridsize(1)):
        o = c // inner
        i = c - o * inner
        total = real(0)
        for a in range(size):
            total += share(y[o, a, i], dy[o, a, i])
        for a in range(size):
            dx[o, a, i] = gradient(y[o, a, i], dy[o, a, i], total)
