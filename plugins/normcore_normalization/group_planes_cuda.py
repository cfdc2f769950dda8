"""Groups of channels on CUDA, channels first; the formulas are in group_planes.

x, y, dy, dx are flat arrays of planes of `positions` elements. A team of threads (teams_cuda) takes a group, or a
plane, by slots of 16 bytes: it is read from memory once and again from the cache.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, epilogue, epilogue_gradient, inline, real, wide
from normcore.kernels.lanes import give, inside, slot_at, slots_of, split, stepped, take
from normcore_normalization.channel_scalars import affine, centered, parameter
from normcore_normalization.row_statistics import keep_row, row_scalars
from normcore_normalization.teams_cuda import TEAM, team_statistics, team_sum


@inline
def row_of(n, c, width, groups, per_sample):
    return c // width + (n * groups if per_sample else 0)


@inline
def element_gradient(x, dy, s, d, inverse, factor, b, e):
    """g before the epilogue."""
    z = affine(x, s, d, inverse * factor, b)
    return epilogue_gradient(z, z, dy, e)


@inline
def input_slope(x, g, s, d, inverse, factor, mean_h, slope):
    return inverse * (factor * g - mean_h - centered(x, s, d) * slope)


@cuda
def forward_groups_cuda(x, y, positions, channels, gamma, beta, shift, rest, scale, bend, groups, eps, e):
    """A team a group of one sample: shift.size of them."""
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    width = channels // groups
    size = width * positions
    slots = slots_of(positions)
    down, along = split(TEAM, slots)
    for r in range(cu.grid(1) // TEAM, shift.size, cu.gridsize(1) // TEAM):
        least = eps * eps if bend.size > 0 else eps
        mean, var = team_statistics(x, r * size, size, lane, least, v, scratch)
        s, d, inverse = row_scalars(mean, var, eps, bend)
        if lane == 0:
            keep_row(r, mean, var, eps, shift, rest, scale, bend)
        first = r % groups * width
        c, slot = split(lane, slots)
        while c < width:
            lo = r * size + c * positions
            i = slot_at(lo, slot)
            take(x, i, lo, lo + positions, v)
            a = inverse * parameter(gamma, first + c, 1)
            b = parameter(beta, first + c, 0)
            for j in range(LANES):
                v[j] = epilogue(affine(v[j], s, d, a, b), e)
            give(y, i, lo, lo + positions, v)
            slot, wrapped = stepped(slot, along, slots)
            c += down + wrapped


@cuda
def plane_statistics_cuda(x, positions, part, eps):
    """A team a plane; part (N, 1, C, 2)."""
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    channels = part.shape[2]
    for plane in range(cu.grid(1) // TEAM, part.shape[0] * channels, cu.gridsize(1) // TEAM):
        n, c = split(plane, channels)
        mean, var = team_statistics(x, plane * positions, positions, lane, eps, v, scratch)
        if lane == 0:
            part[n, 0, c, 0] = mean
            part[n, 0, c, 1] = var * wide(positions)


@cuda
def normalize_planes_cuda(x, y, positions, channels, gamma, beta, shift, rest, scale, per_sample, groups, e):
    v = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    for plane in range(cu.grid(1) // TEAM, x.size // positions, cu.gridsize(1) // TEAM):
        n, c = split(plane, channels)
        r = row_of(n, c, channels // groups, groups, per_sample)
        a, b = scale[r] * parameter(gamma, c, 1), parameter(beta, c, 0)
        lo = plane * positions
        for slot in range(lane, slots_of(positions), TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + positions, v)
            for j in range(LANES):
                v[j] = epilogue(affine(v[j], shift[r], rest[r], a, b), e)
            give(y, i, lo, lo + positions, v)


@cuda
def plane_sums_cuda(x, dy, positions, gamma, beta, shift, rest, scale, part, per_sample, groups, e):
    """Sums of g and g * xhat of each plane, to part (N, 1, C, 2)."""
    scratch = cu.shared.array(32, np.float64)
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    channels = part.shape[2]
    for plane in range(cu.grid(1) // TEAM, part.shape[0] * channels, cu.gridsize(1) // TEAM):
        n, c = split(plane, channels)
        r = row_of(n, c, channels // groups, groups, per_sample)
        s, d, inverse = shift[r], rest[r], scale[r]
        factor, b = parameter(gamma, c, 1), parameter(beta, c, 0)
        lo = plane * positions
        total = wide(0)
        along = wide(0)
        for slot in range(lane, slots_of(positions), TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + positions, v)
            take(dy, i, lo, lo + positions, dv)
            g_sum = real(0)
            product_sum = real(0)
            for j in range(LANES):
                if inside(i + j, lo, lo + positions):
                    g = element_gradient(v[j], dv[j], s, d, inverse, factor, b, e)
                    g_sum += g
                    product_sum += g * (centered(v[j], s, d) * inverse)
            total += wide(g_sum)
            along += wide(product_sum)
        total = team_sum(total, scratch)
        along = team_sum(along, scratch)
        if lane == 0:
            part[n, 0, c, 0] = total
            part[n, 0, c, 1] = along


@cuda
def plane_gradient_cuda(
    x, dy, dx, positions, channels, gamma, beta, shift, rest, scale, means, per_sample, groups, e
):
    v = cu.local.array(LANES, real)
    dv = cu.local.array(LANES, real)
    lane = cu.threadIdx.x % TEAM
    for plane in range(cu.grid(1) // TEAM, x.size // positions, cu.gridsize(1) // TEAM):
        n, c = split(plane, channels)
        r = row_of(n, c, channels // groups, groups, per_sample)
        s, d, inverse, mean_h, slope = shift[r], rest[r], scale[r], means[r, 0], means[r, 1]
        factor, b = parameter(gamma, c, 1), parameter(beta, c, 0)
        lo = plane * positions
        for slot in range(lane, slots_of(positions), TEAM):
            i = slot_at(lo, slot)
            take(x, i, lo, lo + positions, v)
            take(dy, i, lo, lo + positions, dv)
            for j in range(LANES):
                g = element_gradient(v[j], dv[j], s, d, inverse, factor, b, e)
                v[j] = input_slope(v[j], g, s, d, inverse, factor, mean_h, slope)
            give(dx, i, lo, lo + positions, v)
