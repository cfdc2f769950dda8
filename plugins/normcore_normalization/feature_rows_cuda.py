"""Normalizing rows with a gamma and beta of their own for each element on CUDA; the mathematics is in feature_rows.

A team of threads takes a row: a warp where rows are short, else a block. The row is read from memory once and
again from the cache: for its mean, for the squares about it, and to write y. dgamma and dbeta: blocks of 32
columns by a chunk of rows, a warp a row, a thread a column; then a thread a column adds the chunks in order.
"""

import math

import numpy as np

from normcore.kernels import cu, cuda, epilogue, inline, real, wide
from normcore.kernels.warps import block_sum, warp_sum
from normcore_normalization.channel_scalars import INFINITY, THREADS, centered, trusted
from normcore_normalization.feature_rows import before_epilogue, scaled
from normcore_normalization.row_statistics import keep_row

CENTERED = True
AFFINE = True
BIAS = True
TEAM = 32  # threads that share a row: a warp, or a block of THREADS
FOLD = 16  # values that a thread sums in the kernel's precision before float64 takes over
SHORT = 1024  # elements of a row that a warp takes


@inline
def team_sum(value, scratch):
    """The sum over the team's threads, to each of them. value: float64."""
    return warp_sum(value) if TEAM == 32 else block_sum(value, scratch)


@inline
def team_sums(x, lane, s, d, scratch):
    """Sums of u and u^2 for u = x - s - d over a row, in float64."""
    total = wide(0)
    squares = wide(0)
    for first in range(lane, x.size, TEAM * FOLD):
        u_sum = real(0)
        square_sum = real(0)
        for i in range(first, min(x.size, first + TEAM * FOLD), TEAM):
            u = centered(x[i], s, d)
            u_sum += u
            square_sum += u * u
        total += wide(u_sum)
        squares += wide(square_sum)
    return team_sum(total, scratch), team_sum(squares, scratch)


@inline
def team_statistics(x, lane, eps, scratch):
    """Mean and biased variance of a row: a mean, then the squares about it, both corrected."""
    count = wide(x.size)
    first = x[0]
    total, squares = team_sums(x, lane, first, real(0), scratch)
    mean = wide(first) + total / count
    s = real(mean)
    total, squares = team_sums(x, lane, s, real(0), scratch)
    if trusted(total, squares, count, eps):
        return wide(s) + total / count, (squares - total * total / count) / count
    total = wide(0)
    for i in range(lane, x.size, TEAM):
        total += wide(x[i]) - wide(first)
    mean = wide(first) + team_sum(total, scratch) / count
    squares = wide(0)
    for i in range(lane, x.size, TEAM):
        u = wide(x[i]) - mean
        squares += u * u
    return mean, team_sum(squares, scratch) / count


@inline
def team_mean_square(x, lane, eps, scratch):
    count = wide(x.size)
    _, squares = team_sums(x, lane, real(0), real(0), scratch)
    if squares < INFINITY and (squares > count * wide(1e-30) or eps > wide(1e-20)):
        return squares / count
    squares = wide(0)
    for i in range(lane, x.size, TEAM):
        squares += wide(x[i]) * wide(x[i])
    return team_sum(squares, scratch) / count


@cuda
def forward_rows_cuda(x, y, gamma, beta, shift, rest, scale, bend, eps, e):
    scratch = cu.shared.array(32, np.float64)
    lane = cu.threadIdx.x % TEAM
    for r in range(cu.grid(1) // TEAM, x.shape[0], cu.gridsize(1) // TEAM):
        if CENTERED:
            mean, var = team_statistics(x[r], lane, eps, scratch)
        else:
            mean, var = wide(0), team_mean_square(x[r], lane, eps, scratch)
        if lane == 0:
            keep_row(r, mean, var, eps, shift, rest, scale, bend)
        s = real(mean)
        d = real(mean - wide(s))
        a = real(wide(1) / math.sqrt(var + eps))
        for i in range(lane, x.shape[1], TEAM):
            y[r, i] = epilogue(scaled(centered(x[r, i], s, d) * a, gamma, beta, i), e)


@cuda
def backward_rows_cuda(x, dy, dx, gamma, beta, shift, rest, scale, e):
    scratch = cu.shared.array(32, np.float64)
    lane = cu.threadIdx.x % TEAM
    size = x.shape[1]
    for r in range(cu.grid(1) // TEAM, x.shape[0], cu.gridsize(1) // TEAM):
        s, d, a = shift[r], rest[r], scale[r]
        total = wide(0)
        along = wide(0)
        for first in range(lane, size, TEAM * FOLD):
            h_sum = real(0)
            product_sum = real(0)
            for i in range(first, min(size, first + TEAM * FOLD), TEAM):
                xhat, h = before_epilogue(x[r], dy[r], gamma, beta, s, d, a, i, e)
                if AFFINE:
                    h = h * gamma[i]
                h_sum += h
                product_sum += h * xhat
            total += wide(h_sum)
            along += wide(product_sum)
        mean_h = real(team_sum(total, scratch) / wide(size))
        slope = real(team_sum(along, scratch) / wide(size))
        for i in range(lane, size, TEAM):
            xhat, h = before_epilogue(x[r], dy[r], gamma, beta, s, d, a, i, e)
            if AFFINE:
                h = h * gamma[i]
            if CENTERED:
                h = h - mean_h
            dx[r, i] = a * (h - xhat * slope)


@cuda
def column_sums_cuda(x, dy, gamma, beta, shift, rest, scale, sums, e):
    """sums (K, 2, L): block (k, tile) adds chunk k of the rows for 32 columns."""
    rows, size = x.shape
    chunks = sums.shape[0]
    tiles = (size + 31) // 32
    k = cu.blockIdx.x // tiles
    i = (cu.blockIdx.x - k * tiles) * 32 + cu.threadIdx.x % 32
    scratch = cu.shared.array((2, THREADS), np.float64)
    step = (rows + chunks - 1) // chunks
    warps = cu.blockDim.x // 32
    total = wide(0)
    along = wide(0)
    if i < size:
        for r in range(k * step + cu.threadIdx.x // 32, min(rows, k * step + step), warps):
            xhat, g = before_epilogue(x[r], dy[r], gamma, beta, shift[r], rest[r], scale[r], i, e)
            total += wide(g)
            along += wide(g * xhat)
    scratch[0, cu.threadIdx.x] = along
    scratch[1, cu.threadIdx.x] = total
    cu.syncthreads()
    if cu.threadIdx.x < 32 and i < size:
        for w in range(1, warps):
            along += scratch[0, cu.threadIdx.x + 32 * w]
            total += scratch[1, cu.threadIdx.x + 32 * w]
        sums[k, 0, i] = along
        sums[k, 1, i] = total


@cuda
def merge_columns_cuda(sums, dgamma, dbeta):
    for i in range(cu.grid(1), dgamma.size, cu.gridsize(1)):
        along = wide(0)
        total = wide(0)
        for k in range(sums.shape[0]):
            along += sums[k, 0, i]
            total += sums[k, 1, i]
        dgamma[i] = real(along)
        if BIAS:
            dbeta[i] = real(total)


def team_of(rows, size):
    """(threads a row, launch extent)."""
    team = 32 if size <= SHORT else THREADS
    return team, (min(65536, -(-rows * team // THREADS)), THREADS)


def forward(t, flags, x, y, gamma, beta, eps):
    if x.size == 0:
        return
    team, extent = team_of(*x.shape)
    kernel = forward_rows_cuda.with_constants(TEAM=team, **flags)
    kernel[t, extent](x, y, gamma, beta, t.shift, t.rest, t.scale, t.shift[:0], np.float64(eps), t.e)


def backward(t, flags, x, dy, dx, gamma, beta, dgamma, dbeta):
    if dx is not None and x.size:
        team, extent = team_of(*x.shape)
        kernel = backward_rows_cuda.with_constants(TEAM=team, **flags)
        kernel[t, extent](x, dy, dx, gamma, beta, t.shift, t.rest, t.scale, t.e)
    if flags["AFFINE"]:
        chunks, size = t.sums.shape[0], x.shape[1]
        kernel = column_sums_cuda.with_constants(**flags)
        kernel[t, (chunks * -(-size // 32), THREADS)](
            x, dy, gamma, beta, t.shift, t.rest, t.scale, t.sums, t.e
        )
        merge_columns_cuda.with_constants(BIAS=flags["BIAS"])[t, size](t.sums, dgamma, dbeta)
