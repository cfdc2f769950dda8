"""Statistics of groups of channels on the CPU, channels last; the formulas are in group_planes.

x (N, S, C): a group's elements lie apart, so lines of all channels are summed at once. Chunks of a few hundred
positions, cut by shape alone, each give mean and sum of squares of every channel; chunks and the channels of a
group are merged in order. Where there are samples enough, each is taken through all passes by one thread and
stays in the cache.
"""

from normcore.kernels import cpu, epilogue_gradient, inline, prange, real, wide
from normcore.kernels.prefetch import NEXT, prefetch_lines
from normcore.kernels.streaming import (
    STREAM_BLOCK,
    leaves_cache,
    stack_block,
    stream_run,
)
from normcore.kernels.unaliased import unaliased
from normcore_normalization.channel_rows import normalize_row, one_gradient_sums, one_sums
from normcore_normalization.channel_scalars import affine, centered, parameter, trusted
from normcore_normalization.group_planes import merge_row, parameter_sums, row_means

LEAST = 8  # samples, for one to be a task


@inline
def clear(line):
    for i in range(line.size):
        line[i] = real(0)


@inline
def column_wide(x, c, origin):
    """Mean and sum of squares about it of column c, in float64."""
    total = wide(0)
    for s in range(x.shape[0]):
        total += wide(x[s, c]) - origin
    mean = origin + total / wide(x.shape[0])
    squares = wide(0)
    for s in range(x.shape[0]):
        u = wide(x[s, c]) - mean
        squares += u * u
    return mean, squares


@inline
def chunk_statistics(x, part, line, eps):
    """part (C, 2): mean and sum of squares about it of each column of x (positions, C)."""
    count = wide(x.shape[0])
    total, squares = unaliased(line[0]), unaliased(line[1])
    clear(total)
    clear(squares)
    for s in range(x.shape[0]):
        one_sums(x[s], x[0], total, squares)
    for c in range(total.size):
        t, q = wide(total[c]), wide(squares[c])
        mean, spread = wide(x[0, c]) + t / count, q - t * t / count
        if not trusted(t, q, count, eps):
            mean, spread = column_wide(x, c, wide(x[0, c]))
        part[c, 0] = mean
        part[c, 1] = spread


@inline
def channel_lines(n, gamma, beta, shift, rest, scale, per_sample, groups, line):
    """Rows 0 to 4 of line: s, d, a = gamma * scale, b and scale of each channel of sample n."""
    channels = line.shape[1]
    width = channels // groups
    for g in range(groups):
        r = g + (n * groups if per_sample else 0)
        for c in range(g * width, g * width + width):
            line[0, c] = shift[r]
            line[1, c] = rest[r]
            line[2, c] = scale[r] * parameter(gamma, c, 1)
            line[3, c] = parameter(beta, c, 0)
            line[4, c] = scale[r]


@inline
def bounds(positions, chunks, k):
    step = (positions + chunks - 1) // chunks
    return min(positions, k * step), min(positions, k * step + step)


@inline
def normalize_positions(x, y, n, first, last, ahead, line, e):
    """Positions first to last of sample n; around the caches where y is large, and then with `ahead` asking for the
    next sample's."""
    s, d, a, b = line[0], line[1], line[2], line[3]
    channels = x.shape[2]
    if not leaves_cache(y) or channels > STREAM_BLOCK:
        for i in range(first, last):
            normalize_row(x[n, i], y[n, i], s, d, a, b, e)
        return
    block, step = stack_block(y), STREAM_BLOCK // channels
    for i in range(first, last, step):
        count = min(step, last - i)
        if ahead:
            prefetch_lines(x, ((n + 1) * x.shape[1] + i) * channels, count * channels)
        for k in range(count):
            normalize_row(x[n, i + k], block[k * channels : k * channels + channels], s, d, a, b, e)
        stream_run(y, (n * x.shape[1] + i) * channels, block, count * channels)


@cpu
def statistics_lines(x, part, lines, per_sample, groups, eps, shift, rest, scale, bend):
    """x (N, S, C); part (N, K, C, 2) float64, lines (N, K, 7, C): scratch."""
    batch, positions, _ = x.shape
    chunks = part.shape[1]
    floor = eps * eps if bend.size > 0 else eps
    for j in prange(batch * chunks):
        n = j // chunks
        k = j - n * chunks
        lo, hi = bounds(positions, chunks, k)
        if lo < hi:
            chunk_statistics(x[n, lo:hi], part[n, k], lines[n, k], floor)
    for r in prange(shift.size):
        merge_row(r, part, positions, per_sample, groups, eps, shift, rest, scale, bend)


@cpu
def normalize_lines(x, y, gamma, beta, lines, per_sample, groups, shift, rest, scale, e):
    batch, positions, _ = x.shape
    chunks = lines.shape[1]
    for j in prange(batch * chunks):
        n = j // chunks
        k = j - n * chunks
        line = lines[n, k]
        channel_lines(n, gamma, beta, shift, rest, scale, per_sample, groups, line)
        lo, hi = bounds(positions, chunks, k)
        normalize_positions(x, y, n, lo, hi, False, line, e)


@cpu
def forward_lines(x, y, gamma, beta, part, lines, groups, eps, shift, rest, scale, bend, e):
    """All passes over a sample in turn; statistics belong to a sample."""
    batch, positions, channels = x.shape
    chunks = part.shape[1]
    floor = eps * eps if bend.size > 0 else eps
    ahead = positions * channels <= NEXT
    for n in prange(batch):
        line = lines[n, 0]
        for k in range(chunks):
            lo, hi = bounds(positions, chunks, k)
            if lo < hi:
                chunk_statistics(x[n, lo:hi], part[n, k], line, floor)
        for g in range(groups):
            merge_row(n * groups + g, part, positions, True, groups, eps, shift, rest, scale, bend)
        channel_lines(n, gamma, beta, shift, rest, scale, True, groups, line)
        for k in range(chunks):
            lo, hi = bounds(positions, chunks, chunks - 1 - k)  # what was read last is still in the cache
            normalize_positions(x, y, n, lo, hi, ahead, line, e)


@inline(force=True)
def line_input_gradient(x, dy, dx, shift, rest, a, b, inverse, mean_h, slope, e):
    """mean_h carries the factor 1 / sigma already."""
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a[i] * g - inverse[i] * (mean_h[i] + centered(x[i], shift[i], rest[i]) * slope[i])


@inline
def chunk_gradient_sums(x, dy, part, line, e):
    """part (C, 2): the sums of g and g * xhat of each column."""
    total, along = unaliased(line[5]), unaliased(line[6])
    clear(total)
    clear(along)
    for s in range(x.shape[0]):
        one_gradient_sums(x[s], dy[s], line[0], line[1], line[2], line[3], total, along, e)
    for c in range(total.size):
        part[c, 0] = wide(total[c])
        part[c, 1] = wide(along[c]) * wide(line[4, c])


@inline
def mean_lines(n, part, count, per_sample, groups, gamma, scale, bend, fixed, line):
    """Rows 5 and 6 of line: mean(h) and the slope of each channel of sample n."""
    width = line.shape[1] // groups
    for g in range(groups):
        r = g + (n * groups if per_sample else 0)
        mean_h, slope = row_means(r, part, count, per_sample, groups, gamma, scale, bend)
        for c in range(g * width, g * width + width):
            line[5, c] = real(0) if fixed else mean_h
            line[6, c] = real(0) if fixed else slope


@inline
def chunk_gradient(x, dy, dx, n, first, last, line, e):
    """Positions first to last of sample n; around the caches where dx is large."""
    s, d, a, b, inverse, mean_h, slope = line[0], line[1], line[2], line[3], line[4], line[5], line[6]
    channels = x.shape[2]
    if not leaves_cache(dx) or channels > STREAM_BLOCK:
        for i in range(first, last):
            line_input_gradient(x[n, i], dy[n, i], dx[n, i], s, d, a, b, inverse, mean_h, slope, e)
        return
    block, step = stack_block(dx), STREAM_BLOCK // channels
    for i in range(first, last, step):
        count = min(step, last - i)
        for k in range(count):
            part = block[k * channels : k * channels + channels]
            line_input_gradient(x[n, i + k], dy[n, i + k], part, s, d, a, b, inverse, mean_h, slope, e)
        stream_run(dx, (n * x.shape[1] + i) * channels, block, count * channels)


@cpu
def backward_lines(
    x,
    dy,
    dx,
    gamma,
    beta,
    dgamma,
    dbeta,
    shift,
    rest,
    scale,
    bend,
    part,
    lines,
    per_sample,
    groups,
    fixed,
    wanted,
    e,
):
    batch, positions, _ = x.shape
    chunks = part.shape[1]
    if per_sample and batch >= LEAST:
        for n in prange(batch):
            line = lines[n, 0]
            channel_lines(n, gamma, beta, shift, rest, scale, True, groups, line)
            for k in range(chunks):
                lo, hi = bounds(positions, chunks, k)
                chunk_gradient_sums(x[n, lo:hi], dy[n, lo:hi], part[n, k], line, e)
            if wanted:
                mean_lines(n, part, wide(positions), True, groups, gamma, scale, bend, fixed, line)
                for k in range(chunks):
                    lo, hi = bounds(positions, chunks, chunks - 1 - k)
                    chunk_gradient(x, dy, dx, n, lo, hi, line, e)
    else:
        for j in prange(batch * chunks):
            n = j // chunks
            k = j - n * chunks
            lo, hi = bounds(positions, chunks, k)
            channel_lines(n, gamma, beta, shift, rest, scale, per_sample, groups, lines[n, k])
            chunk_gradient_sums(x[n, lo:hi], dy[n, lo:hi], part[n, k], lines[n, k], e)
        if wanted:
            for j in prange(batch * chunks):
                n = j // chunks
                k = j - n * chunks
                lo, hi = bounds(positions, chunks, k)
                line = lines[n, k]
                mean_lines(n, part, wide(positions), per_sample, groups, gamma, scale, bend, fixed, line)
                chunk_gradient(x, dy, dx, n, lo, hi, line, e)
    parameter_sums(part, dgamma, dbeta)
