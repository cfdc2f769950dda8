"""Passes of decorrelated_batch_norm over x, y, dy and dx on CUDA, channels first: (N, C, L), flat.

The centered data between them, z, are (C, N L) float64, flat too. A thread takes a slot of 16 bytes of a plane (lanes.py)
and moves its float64 counterparts in pairs.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, inline, real, wide
from normcore.kernels.lanes import give, inside, slot_at, slots_of, split, take_padded
from normcore.kernels.packs import PACK_BYTES, aligned, load_one, read_pack, write_pack
from normcore.kernels.warps import block_sum
from normcore_normalization.channel_scalars import THREADS


@inline
def chunk_of(count, chunks, k):
    """The first vector of chunk k and the one behind its last."""
    step = (count + chunks - 1) // chunks
    return min(count, k * step), min(count, k * step + step)


@cuda
def sum_planes_cuda(x, length, sums, mean, averaging):
    """Block (k, c): sums[k, c] = chunk k of channel c; where `averaging`, relative to its first number, kept in mean."""
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    chunks, channels = sums.shape
    k, c = split(cu.blockIdx.x, channels)
    begin, stop = chunk_of(x.size // channels, chunks, k)
    first = wide(load_one(x, c * length)) if averaging else wide(0)
    total = wide(0)
    for n in range(begin // length, (stop + length - 1) // length):
        plane = (n * channels + c) * length
        lo = plane + max(0, begin - n * length)
        hi = plane + min(length, stop - n * length)
        for i in range(slot_at(lo, cu.threadIdx.x), hi, cu.blockDim.x * LANES):
            take_padded(x, i, lo, hi, v)
            for j in range(LANES):
                if inside(i + j, lo, hi):
                    total += wide(v[j]) - first
    total = block_sum(total, scratch)
    if cu.threadIdx.x == 0:
        sums[k, c] = total
        if averaging and k == 0:
            mean[c] = first


@cuda
def merge_chunks_cuda(sums, mean, count, averaging):
    """sums[0] gets the sums of all chunks, in order; where `averaging`, mean gets the means."""
    for c in range(cu.grid(1), sums.shape[1], cu.gridsize(1)):
        total = sums[0, c]
        for k in range(1, sums.shape[0]):
            total += sums[k, c]
        sums[0, c] = total
        if averaging:
            mean[c] += total / wide(count)


@inline
def place(item, channels, length, count):
    """Where a slot is: its channel, the bounds of its plane in x, its first element there and in z."""
    plane, slot = split(item, slots_of(length))
    n, c = split(plane, channels)
    lo = plane * length
    i = slot_at(lo, slot)
    return c, lo, lo + length, i, c * count + n * length + i - lo


@inline
def paired(z, at, i, lo, hi):
    """Whether two numbers of z, which belong to x[i] and x[i + 1], are both of the plane lo..hi and one load."""
    return i >= lo and i + 2 <= hi and aligned(z, at)


@inline
def take_wide(z, at, i, lo, hi, w):
    """w[j] = z[at + j] where i + j lies in lo..hi, else 0."""
    for j in range(0, LANES, 2):
        w[j] = wide(0)
        w[j + 1] = wide(0)
        if paired(z, at + j, i + j, lo, hi):
            read_pack(z, at + j, w[j:])
        else:
            if inside(i + j, lo, hi):
                w[j] = z[at + j]
            if inside(i + j + 1, lo, hi):
                w[j + 1] = z[at + j + 1]


@inline
def give_wide(z, at, i, lo, hi, w):
    """z[at + j] = w[j] where i + j lies in lo..hi."""
    for j in range(0, LANES, 2):
        if paired(z, at + j, i + j, lo, hi):
            write_pack(z, at + j, w[j:])
        else:
            if inside(i + j, lo, hi):
                z[at + j] = w[j]
            if inside(i + j + 1, lo, hi):
                z[at + j + 1] = w[j + 1]


@cuda
def center_planes_cuda(x, z, length, mean, centering):
    """z = x, minus the means where `centering`."""
    v = cu.local.array(LANES, real)
    w = cu.local.array(LANES, np.float64)
    count = x.size // mean.size
    for item in range(cu.grid(1), x.size // length * slots_of(length), cu.gridsize(1)):
        c, lo, hi, i, at = place(item, mean.size, length, count)
        take_padded(x, i, lo, hi, v)
        m = mean[c] if centering else wide(0)
        for j in range(LANES):
            w[j] = wide(v[j]) - m
        give_wide(z, at, i, lo, hi, w)


@inline
def factors(c, gamma, beta):
    """gamma and beta of a channel, in float64; 1 and 0 where there are none."""
    a = wide(gamma[c]) if gamma.size > 0 else wide(1)
    return a, (wide(beta[c]) if beta.size > 0 else wide(0))


@cuda
def store_planes_cuda(z, more, y, channels, length, gamma, beta):
    """y = gamma z + beta, and `more`, as z, is added where it is not empty."""
    v = cu.local.array(LANES, real)
    w = cu.local.array(LANES, np.float64)
    u = cu.local.array(LANES, np.float64)
    count = y.size // channels
    for item in range(cu.grid(1), y.size // length * slots_of(length), cu.gridsize(1)):
        c, lo, hi, i, at = place(item, channels, length, count)
        a, b = factors(c, gamma, beta)
        take_wide(z, at, i, lo, hi, w)
        if more.size > 0:
            take_wide(more, at, i, lo, hi, u)
            for j in range(LANES):
                w[j] += u[j]
        for j in range(LANES):
            v[j] = real(a * w[j] + b)
        give(y, i, lo, hi, v)


# -- launching ---------------------------------------------------------------------------------------------


def sum_channels(t, shape, x, averaging):
    """t.sums[0] = the sums of x's channels; where `averaging`, t.mean = their means. shape: (N, C, L)."""
    sum_planes_cuda[t, (t.sums.size, THREADS)](x, shape[2], t.sums, t.mean, averaging)
    merge_chunks_cuda[t, shape[1]](t.sums, t.mean, shape[0] * shape[2], averaging)


def _slots(shape, itemsize):
    return shape[0] * shape[1] * (shape[2] * itemsize // PACK_BYTES + 1)


def center(t, shape, x, z, centering):
    """z (G, d, N L) float64 = x, minus t.mean where `centering`."""
    extent = _slots(shape, x.itemsize)
    center_planes_cuda[t, extent](x, z.reshape(-1), shape[2], t.mean, centering)


def store(t, shape, z, more, y, gamma, beta):
    """y = gamma z + beta, plus `more`; what is empty is left out."""
    extent = _slots(shape, y.itemsize)
    store_planes_cuda[t, extent](z.reshape(-1), more.reshape(-1), y, *shape[1:], gamma, beta)
