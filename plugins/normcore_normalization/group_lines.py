"""Statistics of groups of channels on the CPU, channels last; the formulas are in group_planes.

A group's elements lie apart, so lines of all channels are summed at once: x (N, R, W) is a map of R * W / C positions,
W / C of them to a row, so that few channels make long vectors too. What belongs to a channel is repeated W / C times
in `line` (7, W). Chunks of a few hundred positions, cut by shape alone, each give mean and sum of squares of every
channel; chunks and the channels of a group are merged in order. Where there are samples enough, each is taken through
all passes by one thread and stays in the cache.
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
from normcore.kernels.window import window
from normcore_normalization.channel_lines import repeat
from normcore_normalization.channel_rows import normalize_row, one_gradient_sums, one_sums
from normcore_normalization.channel_scalars import affine, centered, parameter, trusted
from normcore_normalization.group_planes import merge_row, parameter_sums, row_means

LEAST = 8  # samples, for one to be a task


@inline
def clear(line):
    for i in range(line.size):
        line[i] = real(0)


@inline
def column_wide(x, c, channels, origin):
    """Mean and sum of squares about it of channel c of x (rows, W), in float64."""
    total = wide(0)
    for s in range(x.shape[0]):
        for k in range(c, x.shape[1], channels):
            total += wide(x[s, k]) - origin
    mean = origin + total / wide(x.size // channels)
    squares = wide(0)
    for s in range(x.shape[0]):
        for k in range(c, x.shape[1], channels):
            u = wide(x[s, k]) - mean
            squares += u * u
    return mean, squares


@inline
def add_to(source, target):
    for i in range(target.size):
        target[i] += source[i]


@inline
def fold_repeats(line, channels):
    """Add the repetitions of each channel to its first place."""
    first = line[:channels]
    for lo in range(channels, line.size, channels):
        add_to(line[lo : lo + channels], first)


@inline
def chunk_statistics(x, part, line, eps):
    """part (C, 2): mean and sum of squares about it of each channel of x (rows, W)."""
    channels = part.shape[0]
    count = wide(x.size // channels)
    total, squares, shift = unaliased(line[0]), unaliased(line[1]), line[2]
    clear(total)
    clear(squares)
    repeat(x[0, :channels], shift)
    for s in range(x.shape[0]):
        one_sums(x[s], shift, total, squares)
    fold_repeats(total, channels)
    fold_repeats(squares, channels)
    for c in range(channels):
        t, q = wide(total[c]), wide(squares[c])
        mean, spread = wide(shift[c]) + t / count, q - t * t / count
        if not trusted(t, q, count, eps):
            mean, spread = column_wide(x, c, channels, wide(shift[c]))
        part[c, 0] = mean
        part[c, 1] = spread


@inline
def channel_lines(n, channels, gamma, beta, shift, rest, scale, per_sample, groups, line):
    """Rows 0 to 4 of line: s, d, a = gamma * scale, b and scale of each channel of sample n, over and over."""
    width = channels // groups
    for g in range(groups):
        r = g + (n * groups if per_sample else 0)
        for c in range(g * width, g * width + width):
            line[0, c] = shift[r]
            line[1, c] = rest[r]
            line[2, c] = scale[r] * parameter(gamma, c, 1)
            line[3, c] = parameter(beta, c, 0)
            line[4, c] = scale[r]
    for j in range(5):
        repeat(line[j, :channels], line[j])


@inline
def bounds(rows, chunks, k):
    step = (rows + chunks - 1) // chunks
    return min(rows, k * step), min(rows, k * step + step)


@inline
def normalize_part(x, y, n, first, last, ahead, line, e):
    """Rows first to last of sample n; around the caches where y is large, and then with `ahead` asking for the next
    sample's."""
    s, d, a, b = line[0], line[1], line[2], line[3]
    width = x.shape[2]
    if not leaves_cache(y) or width > STREAM_BLOCK:
        for i in range(first, last):
            normalize_row(x[n, i], y[n, i], s, d, a, b, e)
        return
    block, step = stack_block(y), STREAM_BLOCK // width
    for i in range(first, last, step):
        count = min(step, last - i)
        if ahead:
            prefetch_lines(x, ((n + 1) * x.shape[1] + i) * width, count * width)
        for k in range(count):
            normalize_row(x[n, i + k], window(block, k * width, k * width + width), s, d, a, b, e)
        stream_run(y, (n * x.shape[1] + i) * width, block, count * width)


@cpu
def statistics_lines(x, part, lines, per_sample, groups, eps, shift, rest, scale, bend):
    """x (N, R, W); part (N, K, C, 2) float64, lines (N, K, 7, W): scratch."""
    batch, rows, width = x.shape
    chunks, channels = part.shape[1], part.shape[2]
    floor = eps * eps if bend.size > 0 else eps
    for j in prange(batch * chunks):
        n = j // chunks
        k = j - n * chunks
        lo, hi = bounds(rows, chunks, k)
        if lo < hi:
            chunk_statistics(x[n, lo:hi], part[n, k], lines[n, k], floor)
    for r in prange(shift.size):
        merge_row(r, part, rows, width // channels, per_sample, groups, eps, shift, rest, scale, bend)


@cpu
def normalize_lines(x, y, channels, gamma, beta, lines, per_sample, groups, shift, rest, scale, e):
    batch, rows, _ = x.shape
    chunks = lines.shape[1]
    for j in prange(batch * chunks):
        n = j // chunks
        k = j - n * chunks
        line = lines[n, k]
        channel_lines(n, channels, gamma, beta, shift, rest, scale, per_sample, groups, line)
        lo, hi = bounds(rows, chunks, k)
        normalize_part(x, y, n, lo, hi, False, line, e)


@cpu
def forward_lines(x, y, gamma, beta, part, lines, groups, eps, shift, rest, scale, bend, e):
    """All passes over a sample in turn; statistics belong to a sample."""
    batch, rows, width = x.shape
    chunks, channels = part.shape[1], part.shape[2]
    floor = eps * eps if bend.size > 0 else eps
    ahead = rows * width <= NEXT
    for n in prange(batch):
        line = lines[n, 0]
        for k in range(chunks):
            lo, hi = bounds(rows, chunks, k)
            if lo < hi:
                chunk_statistics(x[n, lo:hi], part[n, k], line, floor)
        for g in range(groups):
            merge_row(
                n * groups + g, part, rows, width // channels, True, groups, eps, shift, rest, scale, bend
            )
        channel_lines(n, channels, gamma, beta, shift, rest, scale, True, groups, line)
        for k in range(chunks):
            lo, hi = bounds(rows, chunks, chunks - 1 - k)  # what was read last is still in the cache
            normalize_part(x, y, n, lo, hi, ahead, line, e)


@inline(force=True)
def line_input_gradient(x, dy, dx, shift, rest, a, b, inverse, mean_h, slope, e):
    """mean_h carries the factor 1 / sigma already."""
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a[i] * g - inverse[i] * (mean_h[i] + centered(x[i], shift[i], rest[i]) * slope[i])


@inline
def chunk_gradient_sums(x, dy, part, line, e):
    """part (C, 2): the sums of g and g * xhat of each channel."""
    total, along = unaliased(line[5]), unaliased(line[6])
    clear(total)
    clear(along)
    for s in range(x.shape[0]):
        one_gradient_sums(x[s], dy[s], line[0], line[1], line[2], line[3], total, along, e)
    channels = part.shape[0]
    fold_repeats(total, channels)
    fold_repeats(along, channels)
    for c in range(channels):
        part[c, 0] = wide(total[c])
        part[c, 1] = wide(along[c]) * wide(line[4, c])


@inline
def mean_lines(n, part, count, per_sample, groups, gamma, scale, bend, fixed, line):
    """Rows 5 and 6 of line: mean(h) and the slope of each channel of sample n, over and over."""
    channels = part.shape[2]
    width = channels // groups
    for g in range(groups):
        r = g + (n * groups if per_sample else 0)
        mean_h, slope = row_means(r, part, count, per_sample, groups, gamma, scale, bend)
        for c in range(g * width, g * width + width):
            line[5, c] = real(0) if fixed else mean_h
            line[6, c] = real(0) if fixed else slope
    repeat(line[5, :channels], line[5])
    repeat(line[6, :channels], line[6])


@inline
def chunk_gradient(x, dy, dx, n, first, last, line, e):
    """Rows first to last of sample n; around the caches where dx is large."""
    s, d, a, b, inverse, mean_h, slope = line[0], line[1], line[2], line[3], line[4], line[5], line[6]
    width = x.shape[2]
    if not leaves_cache(dx) or width > STREAM_BLOCK:
        for i in range(first, last):
            line_input_gradient(x[n, i], dy[n, i], dx[n, i], s, d, a, b, inverse, mean_h, slope, e)
        return
    block, step = stack_block(dx), STREAM_BLOCK // width
    for i in range(first, last, step):
        count = min(step, last - i)
        for k in range(count):
            part = window(block, k * width, k * width + width)
            line_input_gradient(x[n, i + k], dy[n, i + k], part, s, d, a, b, inverse, mean_h, slope, e)
        stream_run(dx, (n * x.shape[1] + i) * width, block, count * width)


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
    batch, rows, width = x.shape
    chunks, channels = part.shape[1], part.shape[2]
    positions = wide(rows * (width // channels))
    if per_sample and batch >= LEAST:
        for n in prange(batch):
            line = lines[n, 0]
            channel_lines(n, channels, gamma, beta, shift, rest, scale, True, groups, line)
            for k in range(chunks):
                lo, hi = bounds(rows, chunks, k)
                chunk_gradient_sums(x[n, lo:hi], dy[n, lo:hi], part[n, k], line, e)
            if wanted:
                mean_lines(n, part, positions, True, groups, gamma, scale, bend, fixed, line)
                for k in range(chunks):
                    lo, hi = bounds(rows, chunks, chunks - 1 - k)
                    chunk_gradient(x, dy, dx, n, lo, hi, line, e)
    else:
        for j in prange(batch * chunks):
            n = j // chunks
            k = j - n * chunks
            lo, hi = bounds(rows, chunks, k)
            channel_lines(n, channels, gamma, beta, shift, rest, scale, per_sample, groups, lines[n, k])
            chunk_gradient_sums(x[n, lo:hi], dy[n, lo:hi], part[n, k], lines[n, k], e)
        if wanted:
            for j in prange(batch * chunks):
                n = j // chunks
                k = j - n * chunks
                lo, hi = bounds(rows, chunks, k)
                line = lines[n, k]
                mean_lines(n, part, positions, per_sample, groups, gamma, scale, bend, fixed, line)
                chunk_gradient(x, dy, dx, n, lo, hi, line, e)
    parameter_sums(part, dgamma, dbeta)
