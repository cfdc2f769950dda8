"""Channel statistics on CUDA, channels first: x, y, dy, dx are flat arrays of planes of `length` elements, one for
each sample and channel. A thread takes a slot of a plane, 16 bytes where they are aligned (lanes.py)."""

import numpy as np

from normcore.kernels import LANES, cu, cuda, epilogue, epilogue_gradient, inline, real, wide
from normcore.kernels.lanes import give, inside, slot_at, slots_of, take
from normcore.kernels.packs import load_one
from normcore.kernels.warps import block_sum
from normcore_normalization.channel_scalars import affine, centered, weights


@inline
def part_of(batch, length, chunks, k):
    """Where this thread begins in chunk k of a channel, and where the chunk ends: both count slots."""
    pairs = batch * slots_of(length)
    step = (pairs + chunks - 1) // chunks
    return k * step + cu.threadIdx.x, min(pairs, k * step + step)


@cuda
def planes_sums_cuda(x, length, shift, sums):
    """Block (k, c) sums part k of channel c, relative to the channel's first value."""
    channels, chunks = shift.size, sums.shape[0]
    k = cu.blockIdx.x // channels
    c = cu.blockIdx.x - k * channels
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    slots = slots_of(length)
    q, last = part_of(x.size // (channels * length), length, chunks, k)
    n = q // slots
    slot = q - n * slots
    down = cu.blockDim.x // slots
    along = cu.blockDim.x - down * slots
    s = load_one(x, c * length)
    total = wide(0)
    squares = wide(0)
    while q < last:
        lo = (n * channels + c) * length
        i = slot_at(lo, slot)
        take(x, i, lo, lo + length, v)
        u_sum = real(0)
        square_sum = real(0)
        for j in range(LANES):
            if inside(i + j, lo, lo + length):
                u = v[j] - s
                u_sum += u
                square_sum += u * u
        total += wide(u_sum)
        squares += wide(square_sum)
        q += cu.blockDim.x
        n += down
        slot += along
        if slot >= slots:
            slot -= slots
            n += 1
    total = block_sum(total, scratch)
    squares = block_sum(squares, scratch)
    if cu.threadIdx.x == 0:
        shift[c] = s
        sums[k, 0, c] = total
        sums[k, 1, c] = squares


@inline
def gradient_terms(x, dy, s, d, a, b, e):
    """g, the gradient before the epilogue, and x - mean of one element."""
    z = affine(x, s, d, a, b)
    return epilogue_gradient(z, z, dy, e), centered(x, s, d)


@cuda
def planes_gradient_sums_cuda(x, dy, length, gamma, beta, shift, rest, scale, change, sums, e):
    channels, chunks = shift.size, sums.shape[0]
    k = cu.blockIdx.x // channels
    c = cu.blockIdx.x - k * channels
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    slots = slots_of(length)
    q, last = part_of(x.size // (channels * length), length, chunks, k)
    n = q // slots
    slot = q - n * slots
    down = cu.blockDim.x // slots
    along = cu.blockDim.x - down * slots
    s, d = shift[c], rest[c]
    a, b = weights(c, gamma, beta, scale, change)
    total = wide(0)
    products = wide(0)
    while q < last:
        lo = (n * channels + c) * length
        i = slot_at(lo, slot)
        take(x, i, lo, lo + length, v)
        take(dy, i, lo, lo + length, dv)
        g_sum = real(0)
        product_sum = real(0)
        for j in range(LANES):
            if inside(i + j, lo, lo + length):
                g, u = gradient_terms(v[j], dv[j], s, d, a, b, e)
                g_sum += g
                product_sum += g * u
        total += wide(g_sum)
        products += wide(product_sum)
        q += cu.blockDim.x
        n += down
        slot += along
        if slot >= slots:
            slot -= slots
            n += 1
    total = block_sum(total, scratch)
    products = block_sum(products, scratch)
    if cu.threadIdx.x == 0:
        sums[k, 0, c] = total
        sums[k, 1, c] = products


@cuda
def planes_normalize_cuda(x, y, length, gamma, beta, shift, rest, scale, change, e):
    channels = shift.size
    v = cu.local.array(LANES, real)
    slots = slots_of(length)
    step = cu.gridsize(1)
    q = cu.grid(1)
    plane = q // slots
    slot = q - plane * slots
    planes = step // slots
    along = step - planes * slots
    down = planes % channels
    c = plane % channels
    lo = plane * length
    while lo < x.size:
        i = slot_at(lo, slot)
        take(x, i, lo, lo + length, v)
        s, d = shift[c], rest[c]
        a, b = weights(c, gamma, beta, scale, change)
        for j in range(LANES):
            v[j] = epilogue(affine(v[j], s, d, a, b), e)
        give(y, i, lo, lo + length, v)
        lo += planes * length
        slot += along
        c += down
        if slot >= slots:
            slot -= slots
            lo += length
            c += 1
        if c >= channels:
            c -= channels


@cuda
def planes_input_gradient_cuda(x, dy, dx, length, gamma, beta, shift, rest, scale, change, mean_g, slope, e):
    """mean_g, slope: what is taken out of g, from parameter_gradients_cuda."""
    channels = shift.size
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    slots = slots_of(length)
    step = cu.gridsize(1)
    q = cu.grid(1)
    plane = q // slots
    slot = q - plane * slots
    planes = step // slots
    along = step - planes * slots
    down = planes % channels
    c = plane % channels
    lo = plane * length
    while lo < x.size:
        i = slot_at(lo, slot)
        take(x, i, lo, lo + length, v)
        take(dy, i, lo, lo + length, dv)
        s, d = shift[c], rest[c]
        a, b = weights(c, gamma, beta, scale, change)
        for j in range(LANES):
            g, u = gradient_terms(v[j], dv[j], s, d, a, b, e)
            v[j] = a * (g - mean_g[c] - u * slope[c])
        give(dx, i, lo, lo + length, v)
        lo += planes * length
        slot += along
        c += down
        if slot >= slots:
            slot -= slots
            lo += length
            c += 1
        if c >= channels:
            c -= channels
