"""Channel statistics on the CPU, channels last: lines of some rows are summed for all channels at once, then merged
in order.

x (M, C) comes as lines (R, W) of W / C rows each, so that few channels make long vectors too, and a tail shorter
than a line; what belongs to a channel is repeated W / C times in `line` (6, W).
"""

from normcore.kernels import cpu, epilogue, epilogue_gradient, inline, prange, real, wide
from normcore_normalization.channel_planes import (
    keep_statistics,
    move_running,
)
from normcore_normalization.channel_scalars import (
    affine,
    centered,
    parameter,
    trusted,
)

LINES = 128  # the same for channels last, where a line adds one value to each sum


@inline
def four_line_sums(p, q, r, s, shift, total, squares):
    for i in range(total.size):
        t = p[i] - shift[i]
        u = q[i] - shift[i]
        v = r[i] - shift[i]
        w = s[i] - shift[i]
        total[i] += (t + u) + (v + w)
        squares[i] += (t * t + u * u) + (v * v + w * w)


@inline
def line_sums(p, shift, total, squares):
    for i in range(p.size):
        u = p[i] - shift[i]
        total[i] += u
        squares[i] += u * u


@inline
def line_at(x, tail, r):
    """Line r, or the tail behind the last one."""
    return x[r] if r < x.shape[0] else tail


@inline
def sum_lines(x, tail, first, last, shift, total, squares):
    whole = first + max(0, min(last, x.shape[0]) - first) // 4 * 4
    for r in range(first, whole, 4):
        four_line_sums(x[r], x[r + 1], x[r + 2], x[r + 3], shift, total, squares)
    for r in range(whole, last):
        line_sums(line_at(x, tail, r), shift, total, squares)


@inline
def set_zero(target):
    for i in range(target.size):
        target[i] = wide(0)


@inline
def add_wide(source, target):
    for c in range(source.size):
        target[c] += wide(source[c])


@inline
def clear_sums(partial, sums):
    set_zero(sums[0])
    set_zero(sums[1])
    set_zero(partial[0])
    set_zero(partial[1])


@inline
def fold(line, target):
    """Add the repetitions of each channel in a line (W,) to target (C,) float64, and clear the line."""
    for lo in range(0, line.size, target.size):
        add_wide(line[lo : lo + target.size], target)
    set_zero(line)


@inline
def repeat(source, line):
    for lo in range(0, line.size, source.size):
        part = line[lo : lo + source.size]
        for c in range(part.size):
            part[c] = source[c]


@inline
def merge(sums):
    for k in range(1, sums.shape[0]):
        add_wide(sums[k, 0], sums[0, 0])
        add_wide(sums[k, 1], sums[0, 1])


@inline
def value_at(x, tail, i):
    """Element i of the flat array that x and tail make up."""
    r = i // x.shape[1]
    return x[r, i - r * x.shape[1]] if r < x.shape[0] else tail[i - x.size]


@inline
def column_statistics_wide(x, tail, c, channels):
    """The statistics of one channel once more, in float64."""
    size = x.size + tail.size
    count = wide(size // channels)
    first = wide(value_at(x, tail, c))
    total = wide(0)
    for i in range(c, size, channels):
        total += wide(value_at(x, tail, i)) - first
    mean = first + total / count
    squares = wide(0)
    for i in range(c, size, channels):
        u = wide(value_at(x, tail, i)) - mean
        squares += u * u
    return mean, squares / count


@inline
def first_shift(x, tail, shift, line, partial, sums):
    """A shift for each channel: the mean of its first few values."""
    lines = min(4, x.shape[0]) if x.shape[0] > 0 else 1
    for c in range(shift.size):
        shift[c] = line_at(x, tail, 0)[c]
    repeat(shift, line[0])
    clear_sums(partial[0], sums[0])
    sum_lines(x, tail, 0, lines, line[0], partial[0, 0], partial[0, 1])
    fold(partial[0, 0], sums[0, 0])
    count = lines * line_at(x, tail, 0).size // shift.size
    for c in range(shift.size):
        shift[c] += real(sums[0, 0, c] / wide(count))
    repeat(shift, line[0])


@inline
def repeat_parameters(gamma, beta, shift, rest, scale, line):
    """Rows 0 to 3 of line: s, d, a and b of each channel, over and over."""
    repeat(shift, line[0])
    repeat(rest, line[1])
    for c in range(scale.size):
        line[2, c] = scale[c] * parameter(gamma, c, 1)
        line[3, c] = parameter(beta, c, 0)
    repeat(line[2, : scale.size], line[2])
    repeat(line[3, : scale.size], line[3])


@inline
def normalize_line(x, y, shift, rest, a, b, e):
    for i in range(x.size):
        y[i] = epilogue(affine(x[i], shift[i], rest[i], a[i], b[i]), e)


@cpu
def forward_lines(
    x,
    tail,
    y,
    y_tail,
    gamma,
    beta,
    running_mean,
    running_var,
    shift,
    rest,
    scale,
    line,
    partial,
    sums,
    eps,
    momentum,
    e,
):
    """partial (chunks, 2, W) and sums (chunks, 2, C) float64 are scratch. A chunk is some lines, the last
    has the tail too."""
    channels = shift.size
    chunks = sums.shape[0]
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    first_shift(x, tail, shift, line, partial, sums)
    for k in prange(chunks):
        clear_sums(partial[k], sums[k])
        last = min(lines, k * step + step)
        for lo in range(k * step, last, LINES):
            sum_lines(x, tail, lo, min(last, lo + LINES), line[0], partial[k, 0], partial[k, 1])
            fold(partial[k, 0], sums[k, 0])
            fold(partial[k, 1], sums[k, 1])
    merge(sums)
    count = wide((x.size + tail.size) // channels)
    for c in range(channels):
        total, squares = sums[0, 0, c], sums[0, 1, c]
        mean = wide(shift[c]) + total / count
        var = (squares - total * total / count) / count
        if not trusted(total, squares, count, eps):
            mean, var = column_statistics_wide(x, tail, c, channels)
        keep_statistics(c, mean, var, eps, shift, rest, scale)
        move_running(c, mean, var, count, momentum, running_mean, running_var)
    repeat_parameters(gamma, beta, shift, rest, scale, line)
    for k in prange(chunks):
        j = chunks - 1 - k  # what was read last is still in the cache
        for r in range(j * step, min(lines, j * step + step)):
            source, target = line_at(x, tail, r), line_at(y, y_tail, r)
            normalize_line(source, target, line[0], line[1], line[2], line[3], e)


@cpu
def infer_lines(
    x, tail, y, y_tail, gamma, beta, running_mean, running_var, shift, rest, scale, line, chunks, eps, e
):
    for c in range(shift.size):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)
    repeat_parameters(gamma, beta, shift, rest, scale, line)
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    for k in prange(chunks):
        for r in range(k * step, min(lines, k * step + step)):
            source, target = line_at(x, tail, r), line_at(y, y_tail, r)
            normalize_line(source, target, line[0], line[1], line[2], line[3], e)


@inline
def line_gradient_sums(x, dy, shift, rest, a, b, total, along, e):
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        total[i] += g
        along[i] += g * centered(x[i], shift[i], rest[i])


@inline
def line_input_gradient(x, dy, dx, shift, rest, a, b, mean_g, slope, e):
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a[i] * (g - mean_g[i] - centered(x[i], shift[i], rest[i]) * slope[i])


@cpu
def backward_lines(
    x,
    tail,
    dy,
    dy_tail,
    dx,
    dx_tail,
    gamma,
    beta,
    dgamma,
    dbeta,
    shift,
    rest,
    scale,
    line,
    partial,
    sums,
    share,
    wanted,
    e,
):
    channels = shift.size
    chunks = sums.shape[0]
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    repeat_parameters(gamma, beta, shift, rest, scale, line)
    for k in prange(chunks):
        clear_sums(partial[k], sums[k])
        last = min(lines, k * step + step)
        for lo in range(k * step, last, LINES):
            for r in range(lo, min(last, lo + LINES)):
                p, g = line_at(x, tail, r), line_at(dy, dy_tail, r)
                line_gradient_sums(p, g, line[0], line[1], line[2], line[3], partial[k, 0], partial[k, 1], e)
            fold(partial[k, 0], sums[k, 0])
            fold(partial[k, 1], sums[k, 1])
    merge(sums)
    for c in range(channels):
        total, along = sums[0, 0, c], sums[0, 1, c] * wide(scale[c])
        if dgamma.size > 0:
            dgamma[c] = real(along)
            dbeta[c] = real(total)
        line[4, c] = real(total * share)
        line[5, c] = real(along * share * wide(scale[c]))
    if wanted:
        repeat(line[4, :channels], line[4])
        repeat(line[5, :channels], line[5])
        for k in prange(chunks):
            j = chunks - 1 - k
            for r in range(j * step, min(lines, j * step + step)):
                p, g, d = line_at(x, tail, r), line_at(dy, dy_tail, r), line_at(dx, dx_tail, r)
                line_input_gradient(p, g, d, line[0], line[1], line[2], line[3], line[4], line[5], e)
