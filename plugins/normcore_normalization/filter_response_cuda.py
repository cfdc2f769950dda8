"""Kernels of filter_response_norm on CUDA.

Channels first, x (N, C, L): a block a plane. Channels last, x (N, L, C): a block 32 channels of a sample, a warp a
position, a thread a channel. Either way a block sums, and then writes what it has just read.
"""

import numpy as np

from normcore.kernels import cu, cuda, inline, real, wide
from normcore.kernels.warps import block_sum
from normcore_normalization.filter_response_kernels import (
    above,
    inverse_root,
    member,
    sample_total,
    scaled,
    usable,
)

THREADS = 256
WARPS = THREADS // 32


@cuda
def forward_planes_cuda(x, y, gamma, beta, tau, scale, eps):
    scratch = cu.shared.array(WARPS, np.float64)
    channels, length = x.shape[1], x.shape[2]
    n = cu.blockIdx.x // channels
    c = cu.blockIdx.x - n * channels
    total = wide(0)
    for i in range(cu.threadIdx.x, length, cu.blockDim.x):
        total += wide(x[n, c, i] * x[n, c, i])
    total = block_sum(total, scratch)
    if not usable(total, wide(length)):
        total = wide(0)
        for i in range(cu.threadIdx.x, length, cu.blockDim.x):
            total += wide(x[n, c, i]) * wide(x[n, c, i])
        total = block_sum(total, scratch)
    r = inverse_root(total, wide(length), eps)
    if cu.threadIdx.x == 0:
        scale[n, c] = r
    a, b = r * gamma[c], beta[c]
    for i in range(cu.threadIdx.x, length, cu.blockDim.x):
        z = scaled(x[n, c, i], a, b)
        y[n, c, i] = above(z, tau[c]) if tau.size > 0 else z


@inline
def passed(x, dy, a, b, tau, c):
    """dy where the threshold lets it through."""
    return real(0) if tau.size > 0 and scaled(x, a, b) < member(tau, c, real(0)) else dy


@cuda
def backward_planes_cuda(x, dy, dx, gamma, beta, tau, scale, sums, wanted):
    scratch = cu.shared.array(WARPS, np.float64)
    channels, length = x.shape[1], x.shape[2]
    n = cu.blockIdx.x // channels
    c = cu.blockIdx.x - n * channels
    r = scale[n, c]
    a, b = r * gamma[c], beta[c]
    along = wide(0)
    total = wide(0)
    everything = wide(0)
    for i in range(cu.threadIdx.x, length, cu.blockDim.x):
        g = passed(x[n, c, i], dy[n, c, i], a, b, tau, c)
        along += wide(g * (x[n, c, i] * r))
        total += wide(g)
        everything += wide(dy[n, c, i] - g)
    along = block_sum(along, scratch)
    total = block_sum(total, scratch)
    everything = block_sum(everything, scratch)
    if cu.threadIdx.x == 0:
        sums[0, n, c] = along
        sums[1, n, c] = total
        sums[2, n, c] = everything
    if wanted:
        slope = real(along / wide(length))
        for i in range(cu.threadIdx.x, length, cu.blockDim.x):
            g = passed(x[n, c, i], dy[n, c, i], a, b, tau, c)
            dx[n, c, i] = a * (g - x[n, c, i] * r * slope)


@inline
def lane_total(value, scratch):
    """The sum over the block's threads of one lane, to all of them."""
    lane = cu.threadIdx.x % 32
    scratch[cu.threadIdx.x] = value
    cu.syncthreads()
    total = scratch[lane]
    for w in range(1, cu.blockDim.x // 32):
        total += scratch[lane + 32 * w]
    cu.syncthreads()
    return total


@cuda
def forward_positions_cuda(x, y, gamma, beta, tau, scale, eps):
    scratch = cu.shared.array(THREADS, np.float64)
    length, channels = x.shape[1], x.shape[2]
    tiles = (channels + 31) // 32
    n = cu.blockIdx.x // tiles
    c = (cu.blockIdx.x - n * tiles) * 32 + cu.threadIdx.x % 32
    first, step = cu.threadIdx.x // 32, cu.blockDim.x // 32
    inside = c < channels
    total = wide(0)
    exact = wide(0)
    if inside:
        for i in range(first, length, step):
            total += wide(x[n, i, c] * x[n, i, c])
    total = lane_total(total, scratch)
    if inside and not usable(total, wide(length)):
        for i in range(first, length, step):
            exact += wide(x[n, i, c]) * wide(x[n, i, c])
    exact = lane_total(exact, scratch)
    if inside:
        if not usable(total, wide(length)):
            total = exact
        r = inverse_root(total, wide(length), eps)
        if first == 0:
            scale[n, c] = r
        a, b = r * gamma[c], beta[c]
        for i in range(first, length, step):
            z = scaled(x[n, i, c], a, b)
            y[n, i, c] = above(z, tau[c]) if tau.size > 0 else z


@cuda
def backward_positions_cuda(x, dy, dx, gamma, beta, tau, scale, sums, wanted):
    scratch = cu.shared.array(THREADS, np.float64)
    length, channels = x.shape[1], x.shape[2]
    tiles = (channels + 31) // 32
    n = cu.blockIdx.x // tiles
    c = (cu.blockIdx.x - n * tiles) * 32 + cu.threadIdx.x % 32
    first, step = cu.threadIdx.x // 32, cu.blockDim.x // 32
    inside = c < channels
    at = c if inside else 0
    r = scale[n, at]
    a, b = r * gamma[at], beta[at]
    along = wide(0)
    total = wide(0)
    taken = wide(0)
    if inside:
        for i in range(first, length, step):
            g = passed(x[n, i, c], dy[n, i, c], a, b, tau, c)
            along += wide(g * (x[n, i, c] * r))
            total += wide(g)
            taken += wide(dy[n, i, c] - g)
    along = lane_total(along, scratch)
    total = lane_total(total, scratch)
    taken = lane_total(taken, scratch)
    if inside:
        if first == 0:
            sums[0, n, c] = along
            sums[1, n, c] = total
            sums[2, n, c] = taken
        if wanted:
            slope = real(along / wide(length))
            for i in range(first, length, step):
                g = passed(x[n, i, c], dy[n, i, c], a, b, tau, c)
                dx[n, i, c] = a * (g - x[n, i, c] * r * slope)


@cuda
def collect_cuda(sums, dgamma, dbeta, dtau):
    for c in range(cu.grid(1), dgamma.size, cu.gridsize(1)):
        dgamma[c] = real(sample_total(sums, 0, c))
        dbeta[c] = real(sample_total(sums, 1, c))
        if dtau.size > 0:
            dtau[c] = real(sample_total(sums, 2, c))
