"""Channel statistics on CUDA, channels first: x, y, dy, dx are flat arrays of planes of `length` elements, one for
each sample and channel. A thread takes a slot of a plane, 16 bytes where they are aligned (lanes.py)."""

import numpy as np

from normcore.kernels import LANES, cu, cuda, epilogue, epilogue_gradient, inline, real, wide
from normcore.kernels.lanes import give, inside, slot_at, slots_of, split, stepped, take
from normcore.kernels.packs import load_one
from normcore.kernels.warps import block_sum
from normcore_normalization.channel_scalars import affine, centered, weights
from normcore_normalization.teams_cuda import slot_sums


@inline
def part_of(x, length, sums):
    """(k, c): the block's part of a channel; where this thread begins in it and where it ends, both in slots."""
    chunks, channels = sums.shape[0], sums.shape[2]
    k, c = split(cu.blockIdx.x, channels)
    slots = x.size // (channels * length) * slots_of(length)
    step = (slots + chunks - 1) // chunks
    return k, c, k * step + cu.threadIdx.x, min(slots, k * step + step)


@inline
def own_slots(length):
    """(slots, plane, slot, down, along): a plane's slots, the thread's first one, and how far its next one is."""
    slots = slots_of(length)
    plane, slot = split(cu.grid(1), slots)
    down, along = split(cu.gridsize(1), slots)
    return slots, plane, slot, down, along


@inline
def keep_sums(total, products, scratch, out, c):
    """Adds up two sums over the block, into out (2, C)."""
    total = block_sum(total, scratch)
    products = block_sum(products, scratch)
    if cu.threadIdx.x == 0:
        out[0, c] = total
        out[1, c] = products


@cuda
def planes_sums_cuda(x, length, shift, sums):
    """Block (k, c) sums part k of channel c, relative to the channel's first value."""
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    k, c, begin, last = part_of(x, length, sums)
    slots = slots_of(length)
    n, slot = split(begin, slots)
    down, along = split(cu.blockDim.x, slots)
    s = load_one(x, c * length)
    total = wide(0)
    squares = wide(0)
    for _ in range(begin, last, cu.blockDim.x):
        lo = (n * shift.size + c) * length
        u_sum, square_sum = slot_sums(x, slot_at(lo, slot), lo, lo + length, s, v)
        total += u_sum
        squares += square_sum
        slot, wrapped = stepped(slot, along, slots)
        n += down + wrapped
    keep_sums(total, squares, scratch, sums[k], c)
    if cu.threadIdx.x == 0:
        shift[c] = s


@inline
def gradient_terms(x, dy, s, d, a, b, e):
    """g, the gradient before the epilogue, and x - mean of one element."""
    z = affine(x, s, d, a, b)
    return epilogue_gradient(z, z, dy, e), centered(x, s, d)


@cuda
def planes_gradient_sums_cuda(x, dy, length, gamma, beta, shift, rest, scale, change, sums, e):
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    k, c, begin, last = part_of(x, length, sums)
    slots = slots_of(length)
    n, slot = split(begin, slots)
    down, along = split(cu.blockDim.x, slots)
    s, d = shift[c], rest[c]
    a, b = weights(c, gamma, beta, scale, change)
    total = wide(0)
    products = wide(0)
    for _ in range(begin, last, cu.blockDim.x):
        lo = (n * shift.size + c) * length
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
        slot, wrapped = stepped(slot, along, slots)
        n += down + wrapped
    keep_sums(total, products, scratch, sums[k], c)


@cuda
def planes_normalize_cuda(x, y, length, gamma, beta, shift, rest, scale, change, e):
    v = cu.local.array(LANES, real)
    slots, plane, slot, down, along = own_slots(length)
    c = plane % shift.size
    next_c = down % shift.size
    while plane * length < x.size:
        lo = plane * length
        i = slot_at(lo, slot)
        take(x, i, lo, lo + length, v)
        s, d = shift[c], rest[c]
        a, b = weights(c, gamma, beta, scale, change)
        for j in range(LANES):
            v[j] = epilogue(affine(v[j], s, d, a, b), e)
        give(y, i, lo, lo + length, v)
        slot, wrapped = stepped(slot, along, slots)
        plane += down + wrapped
        c, _ = stepped(c, next_c + wrapped, shift.size)


@cuda
def planes_input_gradient_cuda(x, dy, dx, length, gamma, beta, shift, rest, scale, change, mean_g, slope, e):
    """mean_g, slope: what is taken out of g, from parameter_gradients_cuda."""
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    slots, plane, slot, down, along = own_slots(length)
    c = plane % shift.size
    next_c = down % shift.size
    while plane * length < x.size:
        lo = plane * length
        i = slot_at(lo, slot)
        take(x, i, lo, lo + length, v)
        take(dy, i, lo, lo + length, dv)
        s, d = shift[c], rest[c]
        a, b = weights(c, gamma, beta, scale, change)
        for j in range(LANES):
            g, u = gradient_terms(v[j], dv[j], s, d, a, b, e)
            v[j] = a * (g - mean_g[c] - u * slope[c])
        give(dx, i, lo, lo + length, v)
        slot, wrapped = stepped(slot, along, slots)
        plane += down + wrapped
        c, _ = stepped(c, next_c + wrapped, shift.size)
