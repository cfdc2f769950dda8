"""Groups of channels on CUDA; the formulas are in group_planes.

Channels first, a team of threads (a warp where rows are short, else a block) reads a group from memory once and
again from the cache. Channels last, and where samples share their statistics, partial sums of each channel go to
`part` and a warp a row merges them in order: channels last a block takes 32 channels of a chunk of positions of one
sample, a warp a position, a thread a channel, so that loads coalesce and no index is divided in a loop.
"""

import math

import numpy as np

from normcore.kernels import cu, cuda, epilogue, epilogue_gradient, inline, real, wide
from normcore.kernels.warps import warp_sum
from normcore_normalization.channel_scalars import THREADS, affine, centered, parameter, trusted
from normcore_normalization.feature_rows_cuda import TEAM, team_of, team_statistics, team_sum
from normcore_normalization.group_lines import bounds, column_wide
from normcore_normalization.group_planes import count_of
from normcore_normalization.row_statistics import keep_row


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


# -- channels first ----------------------------------------------------------------------------------------


@cuda
def forward_groups_cuda(x, y, positions, gamma, beta, shift, rest, scale, bend, groups, eps, e):
    """x, y (R, P * S): a team a row."""
    scratch = cu.shared.array(32, np.float64)
    lane = cu.threadIdx.x % TEAM
    size = x.shape[1]
    width = size // positions
    down = TEAM // positions
    along = TEAM - down * positions
    for r in range(cu.grid(1) // TEAM, x.shape[0], cu.gridsize(1) // TEAM):
        mean, var = team_statistics(x[r], lane, eps * eps if bend.size > 0 else eps, scratch)
        if lane == 0:
            keep_row(r, mean, var, eps, shift, rest, scale, bend)
        s = real(mean)
        d = real(mean - wide(s))
        inverse = wide(1)
        if bend.size == 0:
            inverse = wide(1) / math.sqrt(var + eps)
        elif eps >= wide(0):
            inverse = wide(1) / (math.sqrt(var) + eps)
        a = real(inverse)
        c = r % groups * width + lane // positions
        at = lane % positions
        for i in range(lane, size, TEAM):
            y[r, i] = epilogue(affine(x[r, i], s, d, a * parameter(gamma, c, 1), parameter(beta, c, 0)), e)
            at += along
            c += down
            if at >= positions:
                at -= positions
                c += 1


@cuda
def plane_statistics_cuda(x, part, eps):
    """A team a plane of x (N, C, S)."""
    scratch = cu.shared.array(32, np.float64)
    lane = cu.threadIdx.x % TEAM
    channels = x.shape[1]
    for j in range(cu.grid(1) // TEAM, x.shape[0] * channels, cu.gridsize(1) // TEAM):
        n = j // channels
        c = j - n * channels
        mean, var = team_statistics(x[n, c], lane, eps, scratch)
        if lane == 0:
            part[n, 0, c, 0] = mean
            part[n, 0, c, 1] = var * wide(x.shape[2])


@cuda
def normalize_planes_cuda(x, y, gamma, beta, shift, rest, scale, per_sample, groups, e):
    lane = cu.threadIdx.x % TEAM
    channels = x.shape[1]
    width = channels // groups
    for j in range(cu.grid(1) // TEAM, x.shape[0] * channels, cu.gridsize(1) // TEAM):
        n = j // channels
        c = j - n * channels
        r = row_of(n, c, width, groups, per_sample)
        s, d, a, b = shift[r], rest[r], scale[r] * parameter(gamma, c, 1), parameter(beta, c, 0)
        for i in range(lane, x.shape[2], TEAM):
            y[n, c, i] = epilogue(affine(x[n, c, i], s, d, a, b), e)


@cuda
def plane_sums_cuda(x, dy, gamma, beta, shift, rest, scale, part, per_sample, groups, e):
    scratch = cu.shared.array(32, np.float64)
    lane = cu.threadIdx.x % TEAM
    channels = x.shape[1]
    width = channels // groups
    for j in range(cu.grid(1) // TEAM, x.shape[0] * channels, cu.gridsize(1) // TEAM):
        n = j // channels
        c = j - n * channels
        r = row_of(n, c, width, groups, per_sample)
        s, d, inverse = shift[r], rest[r], scale[r]
        factor, b = parameter(gamma, c, 1), parameter(beta, c, 0)
        total = wide(0)
        along = wide(0)
        for i in range(lane, x.shape[2], TEAM):
            g = element_gradient(x[n, c, i], dy[n, c, i], s, d, inverse, factor, b, e)
            total += wide(g)
            along += wide(g * (centered(x[n, c, i], s, d) * inverse))
        total = team_sum(total, scratch)
        along = team_sum(along, scratch)
        if lane == 0:
            part[n, 0, c, 0] = total
            part[n, 0, c, 1] = along


@cuda
def plane_gradient_cuda(x, dy, dx, gamma, beta, shift, rest, scale, means, per_sample, groups, e):
    lane = cu.threadIdx.x % TEAM
    channels = x.shape[1]
    width = channels // groups
    for j in range(cu.grid(1) // TEAM, x.shape[0] * channels, cu.gridsize(1) // TEAM):
        n = j // channels
        c = j - n * channels
        r = row_of(n, c, width, groups, per_sample)
        s, d, inverse = shift[r], rest[r], scale[r]
        factor, b = parameter(gamma, c, 1), parameter(beta, c, 0)
        for i in range(lane, x.shape[2], TEAM):
            g = element_gradient(x[n, c, i], dy[n, c, i], s, d, inverse, factor, b, e)
            dx[n, c, i] = input_slope(x[n, c, i], g, s, d, inverse, factor, means[r, 0], means[r, 1])


# -- rows and channels, from part (N, K, C, 2) -------------------------------------------------------------


@inline
def part_at(q, first, chunks, c0, width):
    """(n, k, c) of the q-th part of a row."""
    n = q // (chunks * width)
    left = q - n * chunks * width
    k = left // width
    return first + n, k, c0 + left - k * width


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
            n = q // chunks
            total += part[n, q - n * chunks, c, 0]
            along += part[n, q - n * chunks, c, 1]
        total = warp_sum(total)
        along = warp_sum(along)
        if lane == 0:
            dgamma[c] = real(along)
            dbeta[c] = real(total)


# -- channels last -----------------------------------------------------------------------------------------


@inline
def place(block, chunks, channels):
    """(n, k, c) of this thread: a block is a chunk of 32 channels of a sample."""
    tiles = (channels + 31) // 32
    j = block // tiles
    n = j // chunks
    return n, j - n * chunks, (block - j * tiles) * 32 + cu.threadIdx.x % 32


@inline
def over_warps(value, scratch):
    """The sum of a column over the block's warps, valid in the first warp."""
    scratch[cu.threadIdx.x] = value
    cu.syncthreads()
    if cu.threadIdx.x < 32:
        for w in range(1, cu.blockDim.x // 32):
            value += scratch[cu.threadIdx.x + 32 * w]
    cu.syncthreads()
    return value


@cuda
def column_statistics_cuda(x, part, eps):
    """x (N, S, C): mean and sum of squares about it of each channel in each chunk."""
    _, positions, channels = x.shape
    chunks = part.shape[1]
    scratch = cu.shared.array(THREADS, np.float64)
    n, k, c = place(cu.blockIdx.x, chunks, channels)
    lo, hi = bounds(positions, chunks, k)
    total = real(0)
    squares = real(0)
    first = real(0)
    if c < channels and lo < hi:
        first = x[n, lo, c]
        for i in range(lo + cu.threadIdx.x // 32, hi, cu.blockDim.x // 32):
            u = x[n, i, c] - first
            total += u
            squares += u * u
    t = over_warps(wide(total), scratch)
    q = over_warps(wide(squares), scratch)
    if cu.threadIdx.x < 32 and c < channels and lo < hi:
        count = wide(hi - lo)
        mean, spread = wide(first) + t / count, q - t * t / count
        if not trusted(t, q, count, eps):
            mean, spread = column_wide(x[n, lo:hi], c, wide(first))
        part[n, k, c, 0] = mean
        part[n, k, c, 1] = spread


@cuda
def normalize_columns_cuda(x, y, gamma, beta, shift, rest, scale, chunks, per_sample, groups, e):
    _, positions, channels = x.shape
    n, k, c = place(cu.blockIdx.x, chunks, channels)
    lo, hi = bounds(positions, chunks, k)
    if c < channels:
        r = row_of(n, c, channels // groups, groups, per_sample)
        s, d, a, b = shift[r], rest[r], scale[r] * parameter(gamma, c, 1), parameter(beta, c, 0)
        for i in range(lo + cu.threadIdx.x // 32, hi, cu.blockDim.x // 32):
            y[n, i, c] = epilogue(affine(x[n, i, c], s, d, a, b), e)


@cuda
def column_gradient_sums_cuda(x, dy, gamma, beta, shift, rest, scale, part, per_sample, groups, e):
    _, positions, channels = x.shape
    chunks = part.shape[1]
    scratch = cu.shared.array(THREADS, np.float64)
    n, k, c = place(cu.blockIdx.x, chunks, channels)
    lo, hi = bounds(positions, chunks, k)
    total = real(0)
    along = real(0)
    if c < channels:
        r = row_of(n, c, channels // groups, groups, per_sample)
        s, d, inverse = shift[r], rest[r], scale[r]
        factor, b = parameter(gamma, c, 1), parameter(beta, c, 0)
        for i in range(lo + cu.threadIdx.x // 32, hi, cu.blockDim.x // 32):
            g = element_gradient(x[n, i, c], dy[n, i, c], s, d, inverse, factor, b, e)
            total += g
            along += g * (centered(x[n, i, c], s, d) * inverse)
    t = over_warps(wide(total), scratch)
    p = over_warps(wide(along), scratch)
    if cu.threadIdx.x < 32 and c < channels:
        part[n, k, c, 0] = t
        part[n, k, c, 1] = p


@cuda
def column_gradient_cuda(x, dy, dx, gamma, beta, shift, rest, scale, means, chunks, per_sample, groups, e):
    _, positions, channels = x.shape
    n, k, c = place(cu.blockIdx.x, chunks, channels)
    lo, hi = bounds(positions, chunks, k)
    if c < channels:
        r = row_of(n, c, channels // groups, groups, per_sample)
        s, d, inverse, mean_h, slope = shift[r], rest[r], scale[r], means[r, 0], means[r, 1]
        factor, b = parameter(gamma, c, 1), parameter(beta, c, 0)
        for i in range(lo + cu.threadIdx.x // 32, hi, cu.blockDim.x // 32):
            g = element_gradient(x[n, i, c], dy[n, i, c], s, d, inverse, factor, b, e)
            dx[n, i, c] = input_slope(x[n, i, c], g, s, d, inverse, factor, mean_h, slope)


# -- launching ---------------------------------------------------------------------------------------------


def _warps(rows):
    return (max(1, min(65536, -(-rows * 32 // THREADS))), THREADS)


def forward(t, last, x, y, gamma, beta, bend, part, own, groups, eps, running):
    saved = (t.shift, t.rest, t.scale)
    positions = x.shape[1] if last else x.shape[2]
    small = np.float64(eps * eps if bend.size else eps)
    eps = np.float64(eps)
    if last:
        grid = (x.shape[0] * part.shape[1] * -(-x.shape[2] // 32), THREADS)
        if not running:
            column_statistics_cuda[t, grid](x, part, small)
            merge_groups_cuda[t, _warps(t.shift.size)](part, positions, own, groups, eps, *saved, bend)
        normalize_columns_cuda[t, grid](x, y, gamma, beta, *saved, part.shape[1], own, groups, t.e)
        return
    if own and not running:
        shape = (t.shift.size, x.size // t.shift.size)
        team, extent = team_of(*shape)
        forward_groups_cuda.with_constants(TEAM=team)[t, extent](
            x.reshape(shape), y.reshape(shape), positions, gamma, beta, *saved, bend, groups, eps, t.e
        )
        return
    team, extent = team_of(x.shape[0] * x.shape[1], positions)
    if not running:
        plane_statistics_cuda.with_constants(TEAM=team)[t, extent](x, part, small)
        merge_groups_cuda[t, _warps(t.shift.size)](part, positions, own, groups, eps, *saved, bend)
    normalize_planes_cuda.with_constants(TEAM=team)[t, extent](x, y, gamma, beta, *saved, own, groups, t.e)


def backward(t, last, x, dy, dx, gamma, beta, dgamma, dbeta, bend, part, own, groups, fixed):
    saved = (t.shift, t.rest, t.scale)
    positions = x.shape[1] if last else x.shape[2]
    team, extent = team_of(x.shape[0] * x.shape[1], positions)
    grid = (x.shape[0] * part.shape[1] * -(-x.shape[2] // 32), THREADS)
    if last:
        column_gradient_sums_cuda[t, grid](x, dy, gamma, beta, *saved, part, own, groups, t.e)
    else:
        plane_sums_cuda.with_constants(TEAM=team)[t, extent](
            x, dy, gamma, beta, *saved, part, own, groups, t.e
        )
    if dgamma.size:
        parameters_cuda[t, _warps(dgamma.size)](part, dgamma, dbeta)
    if dx is None:
        return
    means_cuda[t, _warps(t.scale.size)](part, positions, own, groups, gamma, t.scale, bend, fixed, t.means)
    if last:
        column_gradient_cuda[t, grid](
            x, dy, dx, gamma, beta, *saved, t.means, part.shape[1], own, groups, t.e
        )
    else:
        plane_gradient_cuda.with_constants(TEAM=team)[t, extent](
            x, dy, dx, gamma, beta, *saved, t.means, own, groups, t.e
        )
