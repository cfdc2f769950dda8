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
def larger(a, b):
    """The larger one; a NaN wins."""
    return b if b > a or b != b else a


@inline
def warp_largest(v):
    """The largest v of the warp's lanes; a NaN wins."""
    for k in range(5):
        v = larger(v, cu.shfl_xor_sync(ALL, v, 16 >> k))
    return v


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


@inline
def block_largest(v, scratch):
    """The largest v of the block; a NaN wins. scratch: as block_sum's."""
    v = warp_largest(v)
    if cu.threadIdx.x % 32 == 0:
        scratch[cu.threadIdx.x // 32] = v
    cu.syncthreads()
    best = scratch[0]
    for w in range(1, cu.blockDim.x // 32):
        best = larger(best, scratch[w])
    cu.syncthreads()
    return best
