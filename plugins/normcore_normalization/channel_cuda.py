"""Channel statistics on CUDA, in both memory formats: blocks sum parts of a channel (channel_planes_cuda,
channel_rows_cuda), one block a channel merges them in order, a last pass normalizes. Backward likewise: two passes.

A channel's element q lies at (q // inner * C + c) * inner + q % inner of the flat array: inner = L channels first,
1 channels last.
"""

import numpy as np

from normcore.kernels import cu, cuda, real, wide
from normcore.kernels.lanes import tiles_of
from normcore.kernels.packs import PACK_BYTES, load_one
from normcore.kernels.warps import block_sum
from normcore_normalization.channel_planes import keep_statistics, move_running
from normcore_normalization.channel_planes_cuda import (
    planes_gradient_sums_cuda,
    planes_input_gradient_cuda,
    planes_normalize_cuda,
    planes_sums_cuda,
)
from normcore_normalization.channel_rows_cuda import (
    rows_gradient_sums_cuda,
    rows_input_gradient_cuda,
    rows_normalize_cuda,
    rows_sums_cuda,
)
from normcore_normalization.channel_scalars import (
    THREADS,
    chunk_totals,
    keep_change,
    trusted,
    weight_gradient,
)

BLOCKS = 2048  # of a launch that a block's start shall not weigh on; several for each multiprocessor there is


@cuda
def finish_cuda(
    x, inner, sums, running_mean, running_var, num_batches, shift, rest, scale, change, eps, momentum
):
    """One block a channel: merge the parts; where they cannot be trusted, sum again in float64.

    momentum < 0: all batches weigh the same, this one 1 / num_batches.
    """
    c = cu.blockIdx.x
    channels = shift.size
    scratch = cu.shared.array(32, np.float64)
    count = x.size // channels
    m = wide(count)
    total, squares = chunk_totals(sums, c)
    mean = wide(shift[c]) + total / m
    var = (squares - total * total / m) / m
    if not trusted(total, squares, m, eps):
        first = wide(load_one(x, c * inner))
        total = wide(0)
        for q in range(cu.threadIdx.x, count, cu.blockDim.x):
            total += wide(load_one(x, (q // inner * channels + c) * inner + q % inner)) - first
        mean = first + block_sum(total, scratch) / m
        squares = wide(0)
        for q in range(cu.threadIdx.x, count, cu.blockDim.x):
            u = wide(load_one(x, (q // inner * channels + c) * inner + q % inner)) - mean
            squares += u * u
        var = block_sum(squares, scratch) / m
    if cu.threadIdx.x == 0:
        keep_statistics(c, mean, var, eps, shift, rest, scale)
        keep_change(c, mean, var, eps, running_mean, running_var, change)
        weight = momentum if momentum >= 0 else wide(1) / wide(num_batches[0])
        move_running(c, mean, var, m, weight, running_mean, running_var)


@cuda
def count_cuda(num_batches):
    if cu.grid(1) == 0:
        num_batches[0] += 1


@cuda
def running_cuda(running_mean, running_var, shift, rest, scale, eps):
    for c in range(cu.grid(1), shift.size, cu.gridsize(1)):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)


@cuda
def parameter_gradients_cuda(sums, dgamma, dbeta, scale, change, mean_g, slope, share):
    """Merge the sums of g and of g * (x - mean). mean_g, slope: dx takes mean_g + (x - mean) * slope out of g."""
    for c in range(cu.grid(1), scale.size, cu.gridsize(1)):
        total, products = chunk_totals(sums, c)
        products *= wide(scale[c])
        if dgamma.size > 0:
            dgamma[c] = real(weight_gradient(c, total, products, change))
            dbeta[c] = real(total)
        mean_g[c] = real(total * share)
        slope[c] = real(products * share * wide(scale[c]))


# -- launching ---------------------------------------------------------------------------------------------


class Extent:
    """How blocks and threads are laid over x, (M, C) rows or (N, C, L) planes: by its shape and dtype alone."""

    def __init__(self, x, rows):
        self.rows = rows or x.shape[2] == 1  # maps of one element are rows
        self.channels = x.shape[1]
        self.length = 1 if self.rows else x.shape[2]
        lanes = PACK_BYTES // x.itemsize
        self.width, tiles = tiles_of(self.channels, x.itemsize)
        self.tiles = tiles if self.rows else self.channels
        self.slots = x.size // lanes + (0 if self.length % lanes == 0 else x.size // self.length)
        steps = -(-x.shape[0] // (THREADS // self.width))
        self.chunks = max(1, min(steps, -(-BLOCKS // self.tiles)))

    def sums(self, sums):
        """As much of the workspace as there are chunks, and the grid that fills it."""
        sums = sums[: -(-BLOCKS // self.tiles)]
        return sums, (sums.shape[0] * self.tiles, THREADS)


def statistics(t, x, rows, kernel, running, counter, kept, eps, momentum):
    """Batch statistics into kept = (shift, rest, scale, change); moves the running ones. kernel: finish_cuda's form."""
    at, flat = Extent(x, rows), x.reshape(-1)
    sums, grid = at.sums(t.sums)
    if at.rows:
        rows_sums_cuda[t, grid](flat, at.width, kept[0], sums)
    else:
        planes_sums_cuda[t, grid](flat, at.length, kept[0], sums)
    kernel[t, (at.channels, THREADS)](flat, at.length, sums, *running, counter, *kept, eps, momentum)


def normalize(t, x, y, rows, gamma, beta, kept):
    at, arrays = Extent(x, rows), (x.reshape(-1), y.reshape(-1))
    if at.rows:
        grid = (at.chunks * at.tiles, THREADS)
        rows_normalize_cuda[t, grid](*arrays, at.width, at.chunks, gamma, beta, *kept, t.e)
    else:
        planes_normalize_cuda[t, at.slots](*arrays, at.length, gamma, beta, *kept, t.e)


def backward(t, x, dy, rows, gamma, beta, dgamma, dbeta, kept, share):
    at, arrays = Extent(x, rows), (x.reshape(-1), dy.reshape(-1))
    sums, grid = at.sums(t.sums)
    if at.rows:
        rows_gradient_sums_cuda[t, grid](*arrays, at.width, gamma, beta, *kept, sums, t.e)
    else:
        planes_gradient_sums_cuda[t, grid](*arrays, at.length, gamma, beta, *kept, sums, t.e)
    parameter_gradients_cuda[t, at.channels](sums, dgamma, dbeta, *kept[2:], t.a, t.b, share)
    if t.dx is None or not x.size:
        return
    arrays = (*arrays, t.dx.reshape(-1))
    if at.rows:
        grid = (at.chunks * at.tiles, THREADS)
        rows_input_gradient_cuda[t, grid](*arrays, at.width, at.chunks, gamma, beta, *kept, t.a, t.b, t.e)
    else:
        planes_input_gradient_cuda[t, at.slots](*arrays, at.length, gamma, beta, *kept, t.a, t.b, t.e)
