"""Statistics of groups of channels on the CPU, channels last; the formulas are in group_planes.

A group's elements lie apart, so lines of all channels are summed at once: x (N, R, W) is a map of R * W / C positions,
W / C of them to a row, so that few channels make long vectors too. What belongs to a channel is repeated W / C times
in `line` (7, W). Chunks of a few hundred positions, cut by shape alone, are summed in the kernel's own precision,
relative to one shift for each group, and added in float64: what is left for each channel and chunk is two additions.
Where there are samples enough, each is taken through all passes by one thread and stays in the cache.
"""

from normcore.kernels import cpu, epilogue_gradient, inline, prange, real, wide
from normcore.kernels.prefetch import asks_for_next, prefetch_lines
from normcore.kernels.streaming import either_way, leaves_cache
from normcore_normalization.channel_lines import fold, repeat
from normcore_normalization.channel_rows import normalize_rows, sum_gradient_rows
from normcore_normalization.channel_scalars import affine, centered, parameter
from normcore_normalization.group_line_sums import add_sums, clear_sums, group_shifts, keep_group, keep_sample
from normcore_normalization.group_planes import parameter_sums, row_means

LEAST = 8  # samples, for one to be a task


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


@cpu
def statistics_lines(x, part, lines, per_sample, groups, eps, shift, rest, scale, bend):
    """x (N, R, W); part (N, K, 2, C) float64, lines (N, K, 7, W): scratch."""
    batch, rows, _ = x.shape
    chunks, channels = part.shape[1], part.shape[3]
    for j in prange(batch * chunks):
        n = j // chunks
        k = j - n * chunks
        lo, hi = bounds(rows, chunks, k)
        clear_sums(part[n, k], lines[n, k])
        group_shifts(x[n if per_sample else 0, 0], groups, channels, lines[n, k, 2])
        add_sums(x[n, lo:hi], part[n, k], lines[n, k])
    width = channels // groups
    for r in prange(shift.size):
        first = r // groups if per_sample else 0
        last = first + 1 if per_sample else batch
        c0 = r % groups * width
        s = lines[first, 0, 2, c0]
        keep_group(r, x[first:last], part[first:last], c0, width, s, eps, shift, rest, scale, bend)


@cpu
def normalize_lines(x, y, channels, gamma, beta, lines, per_sample, groups, shift, rest, scale, e):
    batch, rows, width = x.shape
    chunks = lines.shape[1]
    for j in prange(batch * chunks):
        n = j // chunks
        k = j - n * chunks
        line = lines[n, k]
        channel_lines(n, channels, gamma, beta, shift, rest, scale, per_sample, groups, line)
        lo, hi = bounds(rows, chunks, k)
        s, d, a, b = line[0], line[1], line[2], line[3]
        normalize_rows(x[n], y[n], lo, hi, 0, width, s, d, a, b, leaves_cache(y), e)


@cpu
def forward_lines(x, y, gamma, beta, part, lines, groups, eps, shift, rest, scale, bend, e):
    """All passes over a sample in turn; statistics belong to a sample."""
    batch, rows, sides = x.shape
    chunks, channels = part.shape[1], part.shape[3]
    ahead = asks_for_next(x.size, rows * sides)
    for n in prange(batch):
        line = lines[n, 0]
        clear_sums(part[n, 0], line)
        group_shifts(x[n, 0], groups, channels, line[2])
        for k in range(chunks):
            lo, hi = bounds(rows, chunks, k)
            add_sums(x[n, lo:hi], part[n, 0], line)
        keep_sample(n, x[n : n + 1], part[n, 0], groups, x[n, 0], eps, shift, rest, scale, bend)
        channel_lines(n, channels, gamma, beta, shift, rest, scale, True, groups, line)
        for k in range(chunks):
            lo, hi = bounds(rows, chunks, chunks - 1 - k)  # what was read last is still in the cache
            s, d, a, b = line[0], line[1], line[2], line[3]
            for r in range(lo, hi):
                if ahead:
                    prefetch_lines(x, ((n + 1) * rows + r) * sides, sides)
                normalize_rows(x[n], y[n], r, r + 1, 0, sides, s, d, a, b, leaves_cache(y), e)


@inline(force=True)
def line_input_gradient(x, dy, dx, shift, rest, a, b, inverse, mean_h, slope, e):
    """mean_h carries the factor 1 / sigma already."""
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a[i] * g - inverse[i] * (mean_h[i] + centered(x[i], shift[i], rest[i]) * slope[i])


@inline
def add_gradient_sums(x, dy, part, line, e):
    """Add to part (2, C) the sums of g and g * (x - mean) of each channel."""
    s, d, a, b, total, along = line[0], line[1], line[2], line[3], line[5], line[6]
    sum_gradient_rows(x, dy, 0, x.shape[0], 0, x.shape[1], s, d, a, b, total, along, e)
    fold(total, part[0])
    fold(along, part[1])


@inline
def scale_sums(part, line):
    """Sums of g * (x - mean) become those of g * xhat; part (2, C)."""
    for c in range(part.shape[1]):
        part[1, c] *= wide(line[4, c])


@inline
def mean_lines(n, part, count, per_sample, groups, gamma, scale, bend, fixed, line):
    """Rows 5 and 6 of line: mean(h) and the slope of each channel of sample n, over and over."""
    channels = part.shape[3]
    width = channels // groups
    for g in range(groups):
        r = g + (n * groups if per_sample else 0)
        mean_h, slope = row_means(r, part, count, per_sample, groups, gamma, scale, bend)
        for c in range(g * width, g * width + width):
            line[5, c] = real(0) if fixed else mean_h
            line[6, c] = real(0) if fixed else slope
    repeat(line[5, :channels], line[5])
    repeat(line[6, :channels], line[6])


gradient_either_way = either_way(
    line_input_gradient,
    read=["x", "dy", "shift", "rest", "a", "b", "inverse", "mean_h", "slope"],
    written=["dx"],
    asked=["x", "dy"],
)


@inline
def chunk_gradient(x, dy, dx, first, last, line, far, e):
    """Rows first to last of a sample's x, dy and dx (R, W); far: around the caches."""
    s, d, a, b, inverse, mean_h, slope = line[0], line[1], line[2], line[3], line[4], line[5], line[6]
    for i in range(first, last):
        gradient_either_way(x[i], dy[i], dx[i], s, d, a, b, inverse, mean_h, slope, e, far)


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
    batch, rows, sides = x.shape
    chunks, channels = part.shape[1], part.shape[3]
    positions = wide(rows * (sides // channels))
    if per_sample and batch >= LEAST:
        sums = part[:, :1]
        for n in prange(batch):
            line = lines[n, 0]
            channel_lines(n, channels, gamma, beta, shift, rest, scale, True, groups, line)
            clear_sums(part[n, 0], line[5:])
            for k in range(chunks):
                lo, hi = bounds(rows, chunks, k)
                add_gradient_sums(x[n, lo:hi], dy[n, lo:hi], part[n, 0], line, e)
            scale_sums(part[n, 0], line)
            if wanted:
                mean_lines(n, sums, positions, True, groups, gamma, scale, bend, fixed, line)
                for k in range(chunks):
                    lo, hi = bounds(rows, chunks, chunks - 1 - k)
                    chunk_gradient(x[n], dy[n], dx[n], lo, hi, line, leaves_cache(dx), e)
        parameter_sums(sums, dgamma, dbeta)
    else:
        for j in prange(batch * chunks):
            n = j // chunks
            k = j - n * chunks
            lo, hi = bounds(rows, chunks, k)
            line = lines[n, k]
            channel_lines(n, channels, gamma, beta, shift, rest, scale, per_sample, groups, line)
            clear_sums(part[n, k], line[5:])
            add_gradient_sums(x[n, lo:hi], dy[n, lo:hi], part[n, k], line, e)
            scale_sums(part[n, k], line)
        if wanted:
            for j in prange(batch * chunks):
                n = j // chunks
                k = j - n * chunks
                lo, hi = bounds(rows, chunks, k)
                line = lines[n, k]
                mean_lines(n, part, positions, per_sample, groups, gamma, scale, bend, fixed, line)
                chunk_gradient(x[n], dy[n], dx[n], lo, hi, line, leaves_cache(dx), e)
        parameter_sums(part, dgamma, dbeta)
