"""lp_norm on CUDA for a p that needs powers: any but 1, 2 and infinity. x (A, M, B), flat, rows (B = 1) included.

Float64 powers take many registers, and longer than loads: so they have kernels of their own, one element at a time.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, real, wide
from normcore.kernels.lanes import join_columns, split
from normcore.kernels.packs import load_one, store_one
from normcore_normalization.channel_rows_cuda import WARPS
from normcore_normalization.lp_columns_cuda import TILE, column_most, launch_of, stand, stretch
from normcore_normalization.lp_scalars import (
    inverse,
    is_norm,
    norm_of_scaled,
    scale_of,
    scaled_term,
    slope_at,
)


@cuda
def power_norms_cuda(x, length, width, norm, p):
    """norm (A, B); a thread takes one column at a time (COUNT = 1 in lp_columns_cuda)."""
    sums = cu.shared.array((WARPS, LANES, 32), np.float64)
    most = cu.shared.array(TILE, np.float64)
    total = cu.shared.array(TILE, np.float64)
    v = cu.local.array(LANES, real)
    part = cu.local.array(LANES, real)
    columns = norm.shape[1]
    a, first, k, here = stand(columns, width)
    rows = stretch(a, width, length, k, here)
    column_most(x, first + k, rows, columns, False, v, part, sums)
    join_columns(sums, width, 1, most, 0, True)
    cu.syncthreads()
    factor = wide(1) / scale_of(most[k])
    power_sum = wide(0)
    begin, last, down = rows
    for i in range(begin, last, down):
        power_sum += scaled_term(load_one(x, i * columns + first + k), factor, p)
    sums[cu.threadIdx.x // 32, 0, cu.threadIdx.x % 32] = power_sum
    join_columns(sums, width, 1, total, 0, False)
    for c in range(cu.threadIdx.x, here, cu.blockDim.x):
        n = most[c]
        norm[a, first + c] = n if is_norm(n) else norm_of_scaled(scale_of(n), total[c], p)


@cuda
def power_gradient_cuda(x, dy, dx, length, norm, shares, p, eps):
    """norm, shares (A, B): see backward_columns_cuda."""
    columns = norm.shape[1]
    for i in range(cu.grid(1), x.size, cu.gridsize(1)):
        row, b = split(i, columns)
        a = row // length
        n = norm[a, b]
        slope = slope_at(load_one(x, i), n, p)
        store_one(dx, i, load_one(dy, i) * inverse(n, eps) - slope * shares[a, b])


def norms(t, shape, x, norm, p):
    """x: flat, of this shape (A, M, B)."""
    _, width, extent = launch_of(shape, 1)
    power_norms_cuda.with_constants(KIND=0)[t, extent](x, shape[1], width, norm, p)


def input_gradient(t, shape, x, dy, dx, norm, shares, p, eps):
    kernel = power_gradient_cuda.with_constants(KIND=0)
    kernel[t, x.size](x, dy, dx, shape[1], norm, shares, p, eps)
