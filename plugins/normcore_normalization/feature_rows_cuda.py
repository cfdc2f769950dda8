"""Normalizing rows with a gamma and beta of their own for each element on CUDA; the mathematics is in feature_rows.

x, y, dy, dx are flat arrays of rows. A team of threads takes a row (teams_cuda): it is read from memory once for its
statistics and again, from the cache, to write y. dgamma and dbeta: `width` threads stand side by side over
neighbouring columns, the block's others over a chunk of rows; then a thread a column adds the chunks in order.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, epilogue, inline, real, wide
from normcore.kernels.lanes import (
    clear,
    clear_sums,
    column_sums,
    give,
    inside,
    slot_at,
    slots_of,
    take,
    take_columns,
    take_real,
    tiles_of,
    whole_rows,
    widen,
)
from normcore_normalization.channel_rows_cuda import FOLD, WARPS, rows_of, stand
from normcore_normalization.channel_scalars import THREADS, centered, chunk_totals
from normcore_normalization.feature_rows import before_epilogue
from normcore_normalization.row_statistics import keep_row, row_scalars
from normcore_normalization.teams_cuda import TEAM, team_mean_square, team_of, team_statistics, team_sum

CENTERED = True
AFFINE = True
BIAS = True


@inline
def take_parameters(gamma, beta, column, g, b):
    if AFFINE:
        take_real(gamma, column, g)
    if BIAS:
        take_real(beta, column, b)


@cuda
def forward_rows_cuda(x, y, gamma, beta, shift, rest, scale, bend, eps, e):
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    g = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    size = x.size // shift.size
    for r in range(cu.grid(1) // TEAM, shift.size, cu.gridsize(1) // TEAM):
        lo = r * size
        if CENTERED:
            mean, var = team_statistics(x, lo, size, lane, eps, v, scratch)
        else:
            mean, var = wide(0), team_mean_square(x, lo, size, lane, eps, v, scratch)
        s, d, a = row_scalars(mean, var, eps, bend)
        if lane == 0:
            keep_row(r, mean, var, eps, shift, rest, scale, bend)
        for slot in range(lane, slots_of(size), TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + size, v)
            for j in range(LANES):
                v[j] = centered(v[j], s, d) * a
            if AFFINE:
                take_real(gamma, i - lo, g)
                for j in range(LANES):
                    v[j] *= g[j]
            if BIAS:
                take_real(beta, i - lo, g)
                for j in range(LANES):
                    v[j] += g[j]
            for j in range(LANES):
                v[j] = epilogue(v[j], e)
            give(y, i, lo, lo + size, v)


@cuda
def backward_rows_cuda(x, dy, dx, gamma, beta, shift, rest, scale, e):
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    g = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    size = x.size // shift.size
    slots = slots_of(size)
    for r in range(cu.grid(1) // TEAM, shift.size, cu.gridsize(1) // TEAM):
        lo = r * size
        s, d, a = shift[r], rest[r], scale[r]
        total = wide(0)
        along = wide(0)
        for slot in range(lane, slots, TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + size, v)
            take(dy, i, lo, lo + size, dv)
            take_parameters(gamma, beta, i - lo, g, b)
            h_sum = real(0)
            product_sum = real(0)
            for j in range(LANES):
                if inside(i + j, lo, lo + size):
                    xhat, h = before_epilogue(v, dv, g, b, s, d, a, j, e)
                    if AFFINE:
                        h = h * g[j]
                    h_sum += h
                    product_sum += h * xhat
            total += wide(h_sum)
            along += wide(product_sum)
        mean_h = real(team_sum(total, scratch) / wide(size)) if CENTERED else real(0)
        slope = real(team_sum(along, scratch) / wide(size))
        for slot in range(lane, slots, TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + size, v)
            take(dy, i, lo, lo + size, dv)
            take_parameters(gamma, beta, i - lo, g, b)
            for j in range(LANES):
                xhat, h = before_epilogue(v, dv, g, b, s, d, a, j, e)
                if AFFINE:
                    h = h * g[j]
                v[j] = a * (h - mean_h - xhat * slope)
            give(dx, i, lo, lo + size, v)


@cuda
def column_sums_cuda(x, dy, width, gamma, beta, shift, rest, scale, sums, e):
    """sums (K, 2, L): block (k, tile) adds chunk k of the rows."""
    rows, size = shift.size, gamma.size
    chunks = sums.shape[0]
    along = cu.shared.array((WARPS, LANES, 32), np.float64)
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    g = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    product_sum = cu.local.array(LANES, real)
    h_sum = cu.local.array(LANES, real)
    k, first, c, row = stand(size, width)
    count = size - c
    whole = whole_rows(x, size) & whole_rows(dy, size)
    take_parameters(gamma, beta, c, g, b)
    clear_sums(along)
    clear_sums(total)
    clear(product_sum)
    clear(h_sum)
    begin, last = rows_of(rows, chunks, k, count)
    down = cu.blockDim.x // width
    for block in range(begin + row, last, down * FOLD):
        for r in range(block, min(last, block + down * FOLD), down):
            i = r * size + c
            take_columns(x, i, count, whole, v)
            take_columns(dy, i, count, whole, dv)
            s, d, a = shift[r], rest[r], scale[r]
            for j in range(LANES):
                xhat, h = before_epilogue(v, dv, g, b, s, d, a, j, e)
                product_sum[j] += h * xhat
                h_sum[j] += h
        widen(product_sum, along)
        widen(h_sum, total)
    column_sums(along, width, sums[k, 0], first)
    column_sums(total, width, sums[k, 1], first)


@cuda
def merge_columns_cuda(sums, dgamma, dbeta):
    for i in range(cu.grid(1), dgamma.size, cu.gridsize(1)):
        along, total = chunk_totals(sums, i)
        dgamma[i] = real(along)
        if BIAS:
            dbeta[i] = real(total)


def forward(t, flags, x, y, gamma, beta, eps):
    if x.size == 0:
        return
    team, extent = team_of(*x.shape)
    kernel = forward_rows_cuda.with_constants(TEAM=team, **flags)
    saved = (t.shift, t.rest, t.scale, t.shift[:0])
    kernel[t, extent](x.reshape(-1), y.reshape(-1), gamma, beta, *saved, np.float64(eps), t.e)


def backward(t, flags, x, dy, dx, gamma, beta, dgamma, dbeta):
    size, arrays, saved = x.shape[1], (x.reshape(-1), dy.reshape(-1)), (t.shift, t.rest, t.scale)
    if dx is not None and x.size:
        team, extent = team_of(*x.shape)
        kernel = backward_rows_cuda.with_constants(TEAM=team, **flags)
        kernel[t, extent](*arrays, dx.reshape(-1), gamma, beta, *saved, t.e)
    if flags["AFFINE"]:
        width, tiles = tiles_of(size, x.itemsize)
        grid = (t.sums.shape[0] * tiles, THREADS)
        column_sums_cuda.with_constants(**flags)[t, grid](*arrays, width, gamma, beta, *saved, t.sums, t.e)
        merge_columns_cuda.with_constants(BIAS=flags["BIAS"])[t, size](t.sums, dgamma, dbeta)
