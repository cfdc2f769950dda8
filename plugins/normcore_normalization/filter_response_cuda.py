"""Kernels of filter_response_norm on CUDA; arrays are flat.

Channels first, planes of `length` elements: a team of threads (teams_cuda) takes a plane. Channels last, (N, length,
C): a block takes a tile of channels of one sample, `width` threads side by side over them, LANES each, the others over
positions. Either way sums are read from memory and what is written then from the cache.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, inline, real, wide
from normcore.kernels.lanes import (
    clear,
    clear_sums,
    column_sums,
    give,
    give_columns,
    inside,
    slot_at,
    slots_of,
    split,
    take,
    take_columns,
    tiles_of,
    whole_rows,
    widen,
)
from normcore.kernels.packs import load_one
from normcore_normalization.channel_rows_cuda import FOLD, WARPS, stand
from normcore_normalization.channel_scalars import THREADS
from normcore_normalization.filter_response_kernels import (
    above,
    inverse_root,
    member,
    sample_total,
    scaled,
    usable,
)
from normcore_normalization.teams_cuda import TEAM, team_mean_square, team_of, team_sum


@inline
def passed(x, dy, a, b, tau, c):
    """dy where the threshold lets it through."""
    return real(0) if tau.size > 0 and scaled(x, a, b) < member(tau, c, real(0)) else dy


@inline
def limited(x, a, b, tau, c):
    z = scaled(x, a, b)
    return above(z, tau[c]) if tau.size > 0 else z


# -- channels first ----------------------------------------------------------------------------------------


@cuda
def forward_planes_cuda(x, y, length, gamma, beta, tau, scale, eps):
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    channels = gamma.size
    for plane in range(cu.grid(1) // TEAM, x.size // length, cu.gridsize(1) // TEAM):
        n, c = split(plane, channels)
        lo = plane * length
        r = inverse_root(team_mean_square(x, lo, length, lane, eps, v, scratch), wide(1), eps)
        if lane == 0:
            scale[n, c] = r
        a, b = r * gamma[c], beta[c]
        for slot in range(lane, slots_of(length), TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + length, v)
            for j in range(LANES):
                v[j] = limited(v[j], a, b, tau, c)
            give(y, i, lo, lo + length, v)


@cuda
def backward_planes_cuda(x, dy, dx, length, gamma, beta, tau, scale, sums, wanted):
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    channels = gamma.size
    for plane in range(cu.grid(1) // TEAM, x.size // length, cu.gridsize(1) // TEAM):
        n, c = split(plane, channels)
        lo = plane * length
        r = scale[n, c]
        a, b = r * gamma[c], beta[c]
        along = wide(0)
        total = wide(0)
        taken = wide(0)
        for slot in range(lane, slots_of(length), TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + length, v)
            take(dy, i, lo, lo + length, dv)
            product_sum = real(0)
            g_sum = real(0)
            rest_sum = real(0)
            for j in range(LANES):
                if inside(i + j, lo, lo + length):
                    g = passed(v[j], dv[j], a, b, tau, c)
                    product_sum += g * (v[j] * r)
                    g_sum += g
                    rest_sum += dv[j] - g
            along += wide(product_sum)
            total += wide(g_sum)
            taken += wide(rest_sum)
        along = team_sum(along, scratch)
        total = team_sum(total, scratch)
        taken = team_sum(taken, scratch)
        if lane == 0:
            sums[0, n, c] = along
            sums[1, n, c] = total
            sums[2, n, c] = taken
        if wanted:
            slope = r * real(along / wide(length))
            for slot in range(lane, slots_of(length), TEAM):
                i = slot_at(lo, slot)
                take(x, i, lo, lo + length, v)
                take(dy, i, lo, lo + length, dv)
                for j in range(LANES):
                    g = passed(v[j], dv[j], a, b, tau, c)
                    v[j] = a * (g - v[j] * slope)
                give(dx, i, lo, lo + length, v)


# -- channels last -----------------------------------------------------------------------------------------


@cuda
def forward_positions_cuda(x, y, length, width, gamma, beta, tau, scale, totals, eps):
    """totals (N, C): scratch."""
    squares = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    square_sum = cu.local.array(LANES, real)
    a = cu.local.array(LANES, real)
    channels = gamma.size
    n, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(y, channels)
    begin, last = n * length + row, n * length + (length if count > 0 else 0)
    down = cu.blockDim.x // width
    clear_sums(squares)
    clear(square_sum)
    for block in range(begin, last, down * FOLD):
        for i in range(block, min(last, block + down * FOLD), down):
            take_columns(x, i * channels + c, count, whole, v)
            for j in range(LANES):
                square_sum[j] += v[j] * v[j]
        widen(square_sum, squares)
    column_sums(squares, width, totals[n], first)
    for column in range(first + cu.threadIdx.x, min(channels, first + width * LANES), cu.blockDim.x):
        total = totals[n, column]  # the thread's own sum, see column_sums
        if not usable(total, wide(length)):
            total = wide(0)
            for i in range(n * length, n * length + length):
                u = wide(load_one(x, i * channels + column))
                total += u * u
        scale[n, column] = inverse_root(total, wide(length), eps)
    cu.syncthreads()
    for j in range(LANES):
        if j < count:
            a[j] = scale[n, c + j] * gamma[c + j]
    for i in range(begin, last, down):
        take_columns(x, i * channels + c, count, whole, v)
        for j in range(LANES):
            if j < count:
                v[j] = limited(v[j], a[j], beta[c + j], tau, c + j)
        give_columns(y, i * channels + c, count, whole, v)


@inline
def hold_channels(scale, gamma, beta, n, c, r, a, b):
    for j in range(LANES):
        if c + j < gamma.size:
            r[j] = scale[n, c + j]
            a[j] = r[j] * gamma[c + j]
            b[j] = beta[c + j]


@cuda
def backward_positions_cuda(x, dy, dx, length, width, gamma, beta, tau, scale, sums, wanted):
    along = cu.shared.array((WARPS, LANES, 32), np.float64)
    total = cu.shared.array((WARPS, LANES, 32), np.float64)
    taken = cu.shared.array((WARPS, LANES, 32), np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    r = cu.local.array(LANES, real)
    a = cu.local.array(LANES, real)
    b = cu.local.array(LANES, real)
    product_sum = cu.local.array(LANES, real)
    g_sum = cu.local.array(LANES, real)
    rest_sum = cu.local.array(LANES, real)
    channels = gamma.size
    n, first, c, row = stand(channels, width)
    count = channels - c
    whole = whole_rows(x, channels) & whole_rows(dy, channels) & whole_rows(dx, channels)
    begin, last = n * length + row, n * length + (length if count > 0 else 0)
    down = cu.blockDim.x // width
    hold_channels(scale, gamma, beta, n, c, r, a, b)
    clear_sums(along)
    clear_sums(total)
    clear_sums(taken)
    clear(product_sum)
    clear(g_sum)
    clear(rest_sum)
    for block in range(begin, last, down * FOLD):
        for i in range(block, min(last, block + down * FOLD), down):
            take_columns(x, i * channels + c, count, whole, v)
            take_columns(dy, i * channels + c, count, whole, dv)
            for j in range(LANES):
                if j < count:
                    g = passed(v[j], dv[j], a[j], b[j], tau, c + j)
                    product_sum[j] += g * (v[j] * r[j])
                    g_sum[j] += g
                    rest_sum[j] += dv[j] - g
        widen(product_sum, along)
        widen(g_sum, total)
        widen(rest_sum, taken)
    column_sums(along, width, sums[0, n], first)
    column_sums(total, width, sums[1, n], first)
    column_sums(taken, width, sums[2, n], first)
    cu.syncthreads()
    if wanted:
        for j in range(LANES):
            if j < count:
                r[j] *= real(sums[0, n, c + j] / wide(length))
        for i in range(begin, last, down):
            take_columns(x, i * channels + c, count, whole, v)
            take_columns(dy, i * channels + c, count, whole, dv)
            for j in range(LANES):
                if j < count:
                    v[j] = a[j] * (passed(v[j], dv[j], a[j], b[j], tau, c + j) - v[j] * r[j])
            give_columns(dx, i * channels + c, count, whole, v)


@cuda
def collect_cuda(sums, dgamma, dbeta, dtau):
    for c in range(cu.grid(1), dgamma.size, cu.gridsize(1)):
        dgamma[c] = real(sample_total(sums, 0, c))
        dbeta[c] = real(sample_total(sums, 1, c))
        if dtau.size > 0:
            dtau[c] = real(sample_total(sums, 2, c))


# -- launching ---------------------------------------------------------------------------------------------


def _columns(shape, itemsize):
    """Threads side by side over the channels of an array (N, L, C), and the grid."""
    width, tiles = tiles_of(shape[2], itemsize)
    return width, (shape[0] * tiles, THREADS)


def forward(t, shape, last, x, y, parameters, eps):
    """x, y flat, of this shape: (N, L, C) if last, else (N, C, L)."""
    if last:
        width, grid = _columns(shape, x.itemsize)
        forward_positions_cuda[t, grid](x, y, shape[1], width, *parameters, t.scale, t.sums[0], eps)
    else:
        team, extent = team_of(shape[0] * shape[1], shape[2])
        forward_planes_cuda.with_constants(TEAM=team)[t, extent](x, y, shape[2], *parameters, t.scale, eps)


def backward(t, shape, last, x, dy, dx, parameters):
    arrays = (x, dy, dy if dx is None else dx)
    if last:
        width, grid = _columns(shape, x.itemsize)
        how = (shape[1], width, *parameters, t.scale, t.sums, dx is not None)
        backward_positions_cuda[t, grid](*arrays, *how)
    else:
        team, extent = team_of(shape[0] * shape[1], shape[2])
        how = (shape[2], *parameters, t.scale, t.sums, dx is not None)
        backward_planes_cuda.with_constants(TEAM=team)[t, extent](*arrays, *how)
