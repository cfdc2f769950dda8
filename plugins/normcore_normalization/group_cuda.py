"""Groups of channels on CUDA, in both memory formats; the formulas are in group_planes.

Channels first, a team of threads takes a group of one sample whole (group_planes_cuda). Channels last, where samples
share their statistics, and in backward, partial sums of each channel go to `part` and a warp a row merges them in
order (group_columns_cuda, group_planes_cuda).
"""

import numpy as np

from normcore.kernels import cu, cuda, inline, real, wide
from normcore.kernels.lanes import split, tiles_of
from normcore.kernels.warps import warp_sum
from normcore_normalization.channel_scalars import THREADS, parameter
from normcore_normalization.group_columns_cuda import (
    column_gradient_cuda,
    column_gradient_sums_cuda,
    column_statistics_cuda,
    normalize_columns_cuda,
)
from normcore_normalization.group_planes_cuda import (
    forward_groups_cuda,
    normalize_planes_cuda,
    plane_gradient_cuda,
    plane_statistics_cuda,
    plane_sums_cuda,
)
from normcore_normalization.row_statistics import keep_row
from normcore_normalization.teams_cuda import team_of


@inline
def count_of(positions, chunks, k):
    """How many positions chunk k has."""
    step = (positions + chunks - 1) // chunks
    return wide(max(0, min(positions, k * step + step) - k * step))


@inline
def part_at(q, first, chunks, c0, width):
    """(n, k, c) of the q-th part of a row."""
    n, left = split(q, chunks * width)
    k, c = split(left, width)
    return first + n, k, c0 + c


@cuda
def merge_groups_cuda(part, positions, per_sample, groups, eps, shift, rest, scale, bend):
    """A warp a row."""
    batch, chunks, channels, _ = part.shape
    width = channels // groups
    lane = cu.threadIdx.x % 32
    for r in range(cu.grid(1) // 32, shift.size, cu.gridsize(1) // 32):
        first = r // groups if per_sample else 0
        samples = 1 if per_sample else batch
        c0 = r % groups * width
        parts = samples * chunks * width
        origin = part[first, 0, c0, 0]
        total = wide(0)
        for q in range(lane, parts, 32):
            n, k, c = part_at(q, first, chunks, c0, width)
            count = count_of(positions, chunks, k)
            if count > wide(0):
                total += count * (part[n, k, c, 0] - origin)
        m = wide(samples * positions * width)
        mean = origin + warp_sum(total) / m
        squares = wide(0)
        for q in range(lane, parts, 32):
            n, k, c = part_at(q, first, chunks, c0, width)
            count = count_of(positions, chunks, k)
            if count > wide(0):
                u = part[n, k, c, 0] - mean
                squares += part[n, k, c, 1] + count * u * u
        squares = warp_sum(squares)
        if lane == 0:
            keep_row(r, mean, squares / m, eps, shift, rest, scale, bend)


@cuda
def means_cuda(part, positions, per_sample, groups, gamma, scale, bend, fixed, means):
    """A warp a row: mean(h), and mean(h * xhat) * bend * scale."""
    batch, chunks, channels, _ = part.shape
    width = channels // groups
    lane = cu.threadIdx.x % 32
    for r in range(cu.grid(1) // 32, scale.size, cu.gridsize(1) // 32):
        first = r // groups if per_sample else 0
        samples = 1 if per_sample else batch
        c0 = r % groups * width
        total = wide(0)
        along = wide(0)
        for q in range(lane, samples * chunks * width, 32):
            n, k, c = part_at(q, first, chunks, c0, width)
            factor = wide(parameter(gamma, c, 1))
            total += factor * part[n, k, c, 0]
            along += factor * part[n, k, c, 1]
        m = wide(samples * width) * wide(positions)
        mean_h = warp_sum(total) / m
        slope = warp_sum(along) / m * wide(scale[r])
        if bend.size > 0:
            slope *= wide(bend[r])
        if lane == 0:
            means[r, 0] = real(0) if fixed else real(mean_h)
            means[r, 1] = real(0) if fixed else real(slope)


@cuda
def parameters_cuda(part, dgamma, dbeta):
    """A warp a channel."""
    batch, chunks, _, _ = part.shape
    lane = cu.threadIdx.x % 32
    for c in range(cu.grid(1) // 32, dgamma.size, cu.gridsize(1) // 32):
        total = wide(0)
        along = wide(0)
        for q in range(lane, batch * chunks, 32):
            n, k = split(q, chunks)
            total += part[n, k, c, 0]
            along += part[n, k, c, 1]
        total = warp_sum(total)
        along = warp_sum(along)
        if lane == 0:
            dgamma[c] = real(along)
            dbeta[c] = real(total)


# -- launching ---------------------------------------------------------------------------------------------


def _warps(rows):
    return (max(1, min(65536, -(-rows * 32 // THREADS))), THREADS)


def _columns(x, chunks):
    """Threads side by side over the channels of x (N, S, C), and the grid."""
    width, tiles = tiles_of(x.shape[2], x.itemsize)
    return width, (x.shape[0] * chunks * tiles, THREADS)


def forward(t, last, x, y, gamma, beta, bend, part, own, groups, eps, running):
    """x, y (N, S, C) if last, else (N, C, S)."""
    saved, parameters = (t.shift, t.rest, t.scale), (gamma, beta)
    channels, positions = (x.shape[2], x.shape[1]) if last else x.shape[1:]
    small = np.float64(eps * eps if bend.size else eps)
    eps = np.float64(eps)
    width, grid = _columns(x, part.shape[1])
    team, extent = team_of(x.shape[0] * channels, positions)
    x, y = x.reshape(-1), y.reshape(-1)
    if own and not running and not last:
        team, extent = team_of(t.shift.size, x.size // t.shift.size)
        forward_groups_cuda.with_constants(TEAM=team)[t, extent](
            x, y, positions, channels, *parameters, *saved, bend, groups, eps, t.e
        )
        return
    if not running:
        if last:
            column_statistics_cuda[t, grid](x, positions, width, part, small)
        else:
            plane_statistics_cuda.with_constants(TEAM=team)[t, extent](x, positions, part, small)
        merge_groups_cuda[t, _warps(t.shift.size)](part, positions, own, groups, eps, *saved, bend)
    if last:
        chunks = part.shape[1]
        normalize_columns_cuda[t, grid](
            x, y, positions, channels, width, *parameters, *saved, chunks, own, groups, t.e
        )
    else:
        normalize_planes_cuda.with_constants(TEAM=team)[t, extent](
            x, y, positions, channels, *parameters, *saved, own, groups, t.e
        )


def backward(t, last, x, dy, dx, gamma, beta, dgamma, dbeta, bend, part, own, groups, fixed):
    saved, parameters = (t.shift, t.rest, t.scale), (gamma, beta)
    channels, positions = (x.shape[2], x.shape[1]) if last else x.shape[1:]
    width, grid = _columns(x, part.shape[1])
    team, extent = team_of(x.shape[0] * channels, positions)
    x, dy = x.reshape(-1), dy.reshape(-1)
    if last:
        column_gradient_sums_cuda[t, grid](
            x, dy, positions, width, *parameters, *saved, part, own, groups, t.e
        )
    else:
        plane_sums_cuda.with_constants(TEAM=team)[t, extent](
            x, dy, positions, *parameters, *saved, part, own, groups, t.e
        )
    if dgamma.size:
        parameters_cuda[t, _warps(dgamma.size)](part, dgamma, dbeta)
    if dx is None:
        return
    means_cuda[t, _warps(t.scale.size)](part, positions, own, groups, gamma, t.scale, bend, fixed, t.means)
    if last:
        chunks = part.shape[1]
        column_gradient_cuda[t, grid](
            x,
            dy,
            dx.reshape(-1),
            positions,
            channels,
            width,
            *parameters,
            *saved,
            t.means,
            chunks,
            own,
            groups,
            t.e,
        )
    else:
        plane_gradient_cuda.with_constants(TEAM=team)[t, extent](
            x, dy, dx.reshape(-1), positions, channels, *parameters, *saved, t.means, own, groups, t.e
        )
