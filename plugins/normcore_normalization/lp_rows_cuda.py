"""lp_norm of rows on CUDA: a team of threads (teams_cuda) takes a row of the flat x, by slots of 16 bytes.

A row is read from memory once for its norm and again, from the cache, to write y. norm (A, 1) is float64. Where p
needs powers (lp_powers_cuda) forward finds the norms.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, inline, real, wide
from normcore.kernels.lanes import give, slot_at, take_padded
from normcore.kernels.packs import load_one
from normcore.kernels.warps import larger
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
from normcore_normalization.teams_cuda import TEAM, team_largest, team_of, team_sum


@inline
def row_terms(x, lo, hi, lane, v, scratch):
    total = wide(0)
    for i in range(slot_at(lo, lane), hi, TEAM * LANES):
        take_padded(x, i, lo, hi, v)
        part = real(0)
        for j in range(LANES):
            part += term(v[j])
        total += wide(part)
    return team_sum(total, scratch)


@inline
def row_largest(x, lo, hi, lane, v, scratch):
    most = real(0)
    for i in range(slot_at(lo, lane), hi, TEAM * LANES):
        take_padded(x, i, lo, hi, v)
        for j in range(LANES):
            most = larger(most, abs(v[j]))
    return team_largest(wide(most), scratch)


@inline
def row_ties(x, lo, hi, lane, n, v, scratch):
    """How many elements share the largest absolute value, n."""
    count = real(0)
    for i in range(slot_at(lo, lane), hi, TEAM * LANES):
        take_padded(x, i, lo, hi, v)
        for j in range(LANES):
            if reaches(v[j], n):
                count += real(1)
    return max(team_sum(wide(count), scratch), wide(1))


@inline
def exact_row_norm(x, lo, hi, lane, v, scratch):
    """As exact_norm in lp_scalars, for p = 1 and 2. Only float64 has squares that float64 cannot hold."""
    scale = wide(1)
    if LANES == 2:
        largest = row_largest(x, lo, hi, lane, v, scratch)
        if is_norm(largest):
            return largest
        scale = scale_of(largest)
    total = wide(0)
    for i in range(lo + lane, hi, TEAM):
        total += scaled_term(load_one(x, i), wide(1) / scale, wide(KIND))
    return norm_of_scaled(scale, team_sum(total, scratch), wide(KIND))


@inline
def row_norm(x, lo, hi, lane, v, scratch):
    """For any p that needs no powers."""
    if KIND == 3:
        return row_largest(x, lo, hi, lane, v, scratch)
    total = row_terms(x, lo, hi, lane, v, scratch)
    if usable(total, wide(hi - lo)):
        return norm_of_terms(total)
    return exact_row_norm(x, lo, hi, lane, v, scratch)


@cuda
def forward_rows_cuda(x, y, length, norm, eps):
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    for row in range(cu.grid(1) // TEAM, norm.size, cu.gridsize(1) // TEAM):
        lo, hi = row * length, row * length + length
        if KIND == 0:
            n = norm[row, 0]
        else:
            n = row_norm(x, lo, hi, lane, v, scratch)
            if lane == 0:
                norm[row, 0] = n
        r = inverse(n, eps)
        for i in range(slot_at(lo, lane), hi, TEAM * LANES):
            take_padded(x, i, lo, hi, v)
            for j in range(LANES):
                v[j] *= r
            give(y, i, lo, hi, v)


@cuda
def backward_rows_cuda(x, dy, dx, length, norm, shares, eps):
    """shares (A, 1): what lp_powers_cuda takes where p needs powers; then dx is left to that."""
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    for row in range(cu.grid(1) // TEAM, norm.size, cu.gridsize(1) // TEAM):
        lo, hi = row * length, row * length + length
        n = norm[row, 0]
        r = inverse(n, eps)
        along = wide(0)
        for i in range(slot_at(lo, lane), hi, TEAM * LANES):
            take_padded(x, i, lo, hi, v)
            take_padded(dy, i, lo, hi, dv)
            part = real(0)
            for j in range(LANES):
                part += dv[j] * (v[j] * r)
            along += wide(part)
        ties = row_ties(x, lo, hi, lane, n, v, scratch) if KIND == 3 else wide(1)
        c = share(team_sum(along, scratch), n, eps, ties)
        if KIND == 0:
            if lane == 0:
                shares[row, 0] = c
        else:
            if KIND == 3:
                r = real(divisor(n, eps))
            for i in range(slot_at(lo, lane), hi, TEAM * LANES):
                take_padded(x, i, lo, hi, v)
                take_padded(dy, i, lo, hi, dv)
                for j in range(LANES):
                    v[j] = gradient(v[j], dv[j], r, c)
                give(dx, i, lo, hi, v)


# -- launching ---------------------------------------------------------------------------------------------


def forward(t, kind, shape, x, y, norm, eps):
    """x, y: flat, of this shape (A, M, 1)."""
    length = shape[1]
    team, extent = team_of(shape[0], length)
    forward_rows_cuda.with_constants(TEAM=team, KIND=kind)[t, extent](x, y, length, norm, eps)


def backward(t, kind, shape, x, dy, dx, norm, shares, eps):
    team, extent = team_of(shape[0], shape[1])
    kernel = backward_rows_cuda.with_constants(TEAM=team, KIND=kind)
    kernel[t, extent](x, dy, dx, shape[1], norm, shares, eps)
