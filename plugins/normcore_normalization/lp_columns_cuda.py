"""lp_norm of columns on CUDA: x (A, M, B), flat, norms along M. A block takes a tile of the columns of one x[a].

`width` threads stand side by side over the columns, COUNT each: LANES (16 bytes at once) where B is a multiple of
that, else 1. The block's others stand over M. Sums and maxima of threads meet in shared memory, from where each column's
factors come back. norm (A, B) is float64. Where p needs powers (lp_powers_cuda) forward finds the norms.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, inline, real, wide
from normcore.kernels.lanes import (
    clear,
    clear_sums,
    give_columns,
    join_columns,
    put_columns,
    take_columns,
    tiles_of,
    widen,
)
from normcore.kernels.packs import PACK_BYTES, aligned, load_one
from normcore.kernels.warps import larger
from normcore_normalization.channel_rows_cuda import FOLD, WARPS
from normcore_normalization.channel_scalars import THREADS
from normcore_normalization.lp_scalars import (
    KIND,
    divisor,
    gradient,
    inverse,
    is_norm,
    norm_of_scaled,
    norm_of_terms,
    reaches,
    scale_of,
    scaled_term,
    share,
    term,
    usable,
)

COUNT = 1  # columns of a thread: 1 or LANES
TILE = 256  # columns of a block, at most: 32 threads side by side, eight each


@inline
def stand(columns, width):
    """(a, the block's first column, the thread's first column within the tile, the columns that the block has)."""
    tile = width * COUNT
    tiles = (columns + tile - 1) // tile
    a = cu.blockIdx.x // tiles
    first = (cu.blockIdx.x - a * tiles) * tile
    return a, first, cu.threadIdx.x % width * COUNT, min(tile, columns - first)


@inline
def stretch(a, width, length, k, here):
    """The thread's rows of x as (A M, B): first, end and step; none for a thread beyond the columns."""
    row = cu.threadIdx.x // width
    return a * length + row, a * length + (length if k < here else 0), cu.blockDim.x // width


@inline
def is_whole(x):
    return (COUNT == LANES) & aligned(x, 0)


@inline
def own(array, v):
    """v = what the thread's columns have of an array in shared memory that begins with them."""
    for j in range(COUNT):
        v[j] = array[j]


@inline
def widen_in_memory(part, sums):
    """As widen. The fence keeps the compiler from holding the float64 sums in registers for the length of a loop."""
    cu.threadfence_block()
    widen(part, sums)


@inline
def column_terms(x, at, rows, columns, whole, v, part, sums):
    """The thread's sums of terms, in `sums`. at: its first column; rows: its stretch."""
    begin, last, down = rows
    clear_sums(sums)
    clear(part)
    for block in range(begin, last, down * FOLD):
        for i in range(block, min(last, block + down * FOLD), down):
            take_columns(x, i * columns + at, COUNT, whole, v)
            for j in range(COUNT):
                part[j] += term(v[j])
        widen_in_memory(part, sums)


@inline
def column_most(x, at, rows, columns, whole, v, part, sums):
    """The thread's largest absolute values, in `sums`."""
    begin, last, down = rows
    clear(part)
    for i in range(begin, last, down):
        take_columns(x, i * columns + at, COUNT, whole, v)
        for j in range(COUNT):
            part[j] = larger(part[j], abs(v[j]))
    put_columns(part, sums)


@inline
def column_ties(x, at, rows, columns, whole, d, v, part, sums):
    """How many of the thread's elements share the largest absolute value d of their column, in `sums`."""
    begin, last, down = rows
    clear(part)
    for i in range(begin, last, down):
        take_columns(x, i * columns + at, COUNT, whole, v)
        for j in range(COUNT):
            if reaches(v[j], d[j]):
                part[j] += real(1)
    put_columns(part, sums)


@inline
def column_products(x, dy, at, rows, columns, whole, r, v, dv, part, sums):
    """The thread's sums of dy y, in `sums`."""
    begin, last, down = rows
    clear_sums(sums)
    clear(part)
    for block in range(begin, last, down * FOLD):
        for i in range(block, min(last, block + down * FOLD), down):
            take_columns(x, i * columns + at, COUNT, whole, v)
            take_columns(dy, i * columns + at, COUNT, whole, dv)
            for j in range(COUNT):
                part[j] += dv[j] * (v[j] * r[j])
        widen_in_memory(part, sums)


@inline
def exact_column_norm(x, at, length, columns):
    """As exact_norm in lp_scalars, for p = 1 and 2. at: the column's first element."""
    largest = wide(0)
    for m in range(length):
        largest = larger(largest, abs(wide(load_one(x, at + m * columns))))
    if is_norm(largest):
        return largest
    scale = scale_of(largest)
    total = wide(0)
    for m in range(length):
        total += scaled_term(load_one(x, at + m * columns), wide(1) / scale, wide(KIND))
    return norm_of_scaled(scale, total, wide(KIND))


@cuda
def forward_columns_cuda(x, y, length, width, norm, eps):
    sums = cu.shared.array((WARPS, LANES, 32), np.float64)
    total = cu.shared.array(TILE, np.float64)
    factor = cu.shared.array(TILE, real)
    v = cu.local.array(LANES, real)
    part = cu.local.array(LANES, real)
    columns = norm.shape[1]
    a, first, k, here = stand(columns, width)
    whole = is_whole(x) & is_whole(y)
    rows = stretch(a, width, length, k, here)
    if KIND == 1 or KIND == 2:
        column_terms(x, first + k, rows, columns, whole, v, part, sums)
    elif KIND == 3:
        column_most(x, first + k, rows, columns, whole, v, part, sums)
    if KIND != 0:
        join_columns(sums, width, COUNT, total, 0, KIND == 3)
    for c in range(cu.threadIdx.x, here, cu.blockDim.x):
        if KIND == 0:
            n = norm[a, first + c]
        else:
            n = total[c]  # the thread's own, see join_columns
            if KIND != 3:
                if usable(n, wide(length)):
                    n = norm_of_terms(n)
                else:
                    n = exact_column_norm(x, a * length * columns + first + c, length, columns)
            norm[a, first + c] = n
        factor[c] = inverse(n, eps)
    cu.syncthreads()
    own(factor[k:], part)
    begin, last, down = rows
    for i in range(begin, last, down):
        take_columns(x, i * columns + first + k, COUNT, whole, v)
        for j in range(COUNT):
            v[j] *= part[j]
        give_columns(y, i * columns + first + k, COUNT, whole, v)


@cuda
def backward_columns_cuda(x, dy, dx, length, width, norm, shares, eps):
    """shares (A, B): what lp_powers_cuda takes where p needs powers; then dx is left to that."""
    sums = cu.shared.array((WARPS, LANES, 32), np.float64)
    total = cu.shared.array(TILE, np.float64)
    ties = cu.shared.array(TILE, np.float64)
    factor = cu.shared.array(TILE, real)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    part = cu.local.array(LANES, real)
    r = cu.local.array(LANES, real)
    columns = norm.shape[1]
    a, first, k, here = stand(columns, width)
    whole = is_whole(x) & is_whole(dy) & is_whole(dx)
    rows = stretch(a, width, length, k, here)
    for c in range(cu.threadIdx.x, here, cu.blockDim.x):
        factor[c] = inverse(norm[a, first + c], eps)
    cu.syncthreads()
    own(factor[k:], r)
    column_products(x, dy, first + k, rows, columns, whole, r, v, dv, part, sums)
    join_columns(sums, width, COUNT, total, 0, False)
    cu.syncthreads()
    if KIND == 3:
        for c in range(cu.threadIdx.x, here, cu.blockDim.x):
            factor[c] = real(divisor(norm[a, first + c], eps))
        cu.syncthreads()
        own(factor[k:], r)
        column_ties(x, first + k, rows, columns, whole, r, v, part, sums)
        join_columns(sums, width, COUNT, ties, 0, False)
    for c in range(cu.threadIdx.x, here, cu.blockDim.x):
        tied = (
            max(ties[c], wide(1)) if KIND == 3 else wide(1)
        )  # the thread's own, as total[c], see join_columns
        factor[c] = share(total[c], norm[a, first + c], eps, tied)
        if KIND == 0:
            shares[a, first + c] = factor[c]
    if KIND != 0:
        cu.syncthreads()
        own(factor[k:], part)
        begin, last, down = rows
        for i in range(begin, last, down):
            take_columns(x, i * columns + first + k, COUNT, whole, v)
            take_columns(dy, i * columns + first + k, COUNT, whole, dv)
            for j in range(COUNT):
                v[j] = gradient(v[j], dv[j], r[j], part[j])
            give_columns(dx, i * columns + first + k, COUNT, whole, v)


# -- launching ---------------------------------------------------------------------------------------------


def launch_of(shape, lanes):
    """COUNT, threads side by side over the columns of x (A, M, B), and the extent: no more threads down than rows."""
    count = 1 if shape[2] % lanes else lanes
    width, tiles = tiles_of(shape[2], PACK_BYTES // count)
    threads = 32
    while threads < THREADS and threads < width * shape[1]:
        threads *= 2
    return count, width, (shape[0] * tiles, threads)


def forward(t, kind, shape, x, y, norm, eps):
    """x, y: flat, of this shape (A, M, B)."""
    count, width, extent = launch_of(shape, PACK_BYTES // x.itemsize)
    kernel = forward_columns_cuda.with_constants(KIND=kind, COUNT=count)
    kernel[t, extent](x, y, shape[1], width, norm, eps)


def backward(t, kind, shape, x, dy, dx, norm, shares, eps):
    count, width, extent = launch_of(shape, PACK_BYTES // x.itemsize)
    kernel = backward_columns_cuda.with_constants(KIND=kind, COUNT=count)
    kernel[t, extent](x, dy, dx, shape[1], width, norm, shares, eps)
