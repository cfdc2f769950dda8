"""Sums and maxima over the threads of a warp and of a block, in a fixed order, for CUDA kernels.

Every thread that calls one of these must reach it, and every thread gets the result. Blocks hold whole warps.
"""

from normcore.kernels import cu, inline

ALL = 0xFFFFFFFF  # the lanes of a warp that take part: all


@inline
def warp_sum(v):
    """The sum of v over the warp's lanes."""
    for k in range(5):
        v += cu.shfl_xor_sync(ALL, v, 16 >> k)
    return v


@inline
def warp_best(value, index):
    """The largest value over a warp's lanes and the lowest index that has it."""
    for k in range(5):
        other = cu.shfl_xor_sync(ALL, value, 16 >> k)
        place = cu.shfl_xor_sync(ALL, index, 16 >> k)
        if other > value or (other == value and place < index):
            value = other
            index = place
    return value, index


@inline
def block_sum(v, scratch):
    """The sum of v over the block. scratch: a shared array with an element of v's type for each warp."""
    v = warp_sum(v)
    if cu.threadIdx.x % 32 == 0:
        scratch[cu.threadIdx.x // 32] = v
    cu.syncthreads()
    total = scratch[0]
    for w in range(1, cu.blockDim.x // 32):
        total += scratch[w]
    cu.syncthreads()
    return total
