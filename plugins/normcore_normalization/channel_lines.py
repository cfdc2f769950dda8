"""Channel statistics on the CPU, channels last: lines of some rows are summed for all channels at once, then merged
in order.

x (M, C) comes as lines (R, W) of W / C rows each, so that few channels make long vectors too, and a tail shorter
than a line; what belongs to a channel is repeated W / C times in `line` (6, W).
"""

import math

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.streaming import leaves_cache
from normcore_normalization.channel_planes import keep_statistics
from normcore_normalization.channel_rows import (
    add_wide,
    gradient_rows,
    keep_all,
    moments,
    move_all,
    move_wide,
    normalize_row,
    normalize_rows,
    one_gradient_sums,
    one_sums,
    row_gradient,
    set_zero,
    sum_gradient_rows,
    sum_rows,
)
from normcore_normalization.channel_scalars import (
    keep_change,
    weight_gradient,
    weights,
)

LINES = (
    128  # rows summed in the kernel's own precision before float64 takes over: a line adds one value to a sum
)


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
        move_wide(line[lo : lo + target.size], target)


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
    lines = min(4, x.shape[0])
    first = x[0] if lines > 0 else tail
    for c in range(shift.size):
        shift[c] = first[c]
    repeat(shift, line[0])
    clear_sums(partial[0], sums[0])
    if lines > 0:
        sum_rows(x, 0, lines, 0, x.shape[1], line[0], partial[0, 0], partial[0, 1], True)
    else:
        one_sums(tail, line[0], partial[0, 0], partial[0, 1])
    fold(partial[0, 0], sums[0, 0])
    count = max(1, lines) * first.size // shift.size
    for c in range(shift.size):
        shift[c] += real(sums[0, 0, c] / wide(count))
    repeat(shift, line[0])


@inline
def finish_channels(
    x,
    tail,
    lo,
    hi,
    total,
    squares,
    eps,
    momentum,
    running_mean,
    running_var,
    shift,
    rest,
    scale,
    change,
):
    """From the sums of channels lo to hi, relative to shift, to what normalizing needs."""
    channels = shift.size
    count = wide((x.size + tail.size) // channels)
    if moments(total, squares, shift[lo:hi], count, eps) > 0:
        for c in range(lo, hi):
            if math.isnan(squares[c - lo]):
                total[c - lo], squares[c - lo] = column_statistics_wide(x, tail, c, channels)
    keep_all(total, squares, eps, shift[lo:hi], rest[lo:hi], scale[lo:hi])
    if change.size > 0:
        for c in range(lo, hi):
            keep_change(c, total[c - lo], squares[c - lo], eps, running_mean, running_var, change)
    if running_mean.size > 0:
        move_all(total, squares, count, momentum, running_mean[lo:hi], running_var[lo:hi])


@inline
def repeat_parameters(gamma, beta, shift, rest, scale, change, line):
    """Rows 0 to 3 of line: s, d, a and b of each channel, over and over."""
    repeat(shift, line[0])
    repeat(rest, line[1])
    for c in range(scale.size):
        line[2, c], line[3, c] = weights(c, gamma, beta, scale, change)
    repeat(line[2, : scale.size], line[2])
    repeat(line[3, : scale.size], line[3])


@inline
def normalize_lines(x, tail, y, y_tail, first, last, line, e):
    whole = min(last, x.shape[0])
    normalize_rows(x, y, first, whole, 0, x.shape[1], line[0], line[1], line[2], line[3], leaves_cache(y), e)
    if whole < last:
        normalize_row(tail, y_tail, line[0], line[1], line[2], line[3], e)


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
    change,
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
            whole = min(last, lo + LINES, x.shape[0])
            sum_rows(x, lo, whole, 0, x.shape[1], line[0], partial[k, 0], partial[k, 1], True)
            if whole < min(last, lo + LINES):
                one_sums(tail, line[0], partial[k, 0], partial[k, 1])
            fold(partial[k, 0], sums[k, 0])
            fold(partial[k, 1], sums[k, 1])
    merge(sums)
    total, squares = sums[0, 0], sums[0, 1]
    moving = (momentum, running_mean, running_var)
    finish_channels(x, tail, 0, channels, total, squares, eps, *moving, shift, rest, scale, change)
    repeat_parameters(gamma, beta, shift, rest, scale, change, line)
    for k in prange(chunks):
        j = chunks - 1 - k  # what was read last is still in the cache
        normalize_lines(x, tail, y, y_tail, j * step, min(lines, j * step + step), line, e)


@cpu
def infer_lines(
    x, tail, y, y_tail, gamma, beta, running_mean, running_var, shift, rest, scale, line, chunks, eps, e
):
    for c in range(shift.size):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)
    repeat_parameters(gamma, beta, shift, rest, scale, scale[:0], line)
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    for k in prange(chunks):
        normalize_lines(x, tail, y, y_tail, k * step, min(lines, k * step + step), line, e)


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
    change,
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
    repeat_parameters(gamma, beta, shift, rest, scale, change, line)
    for k in prange(chunks):
        clear_sums(partial[k], sums[k])
        last = min(lines, k * step + step)
        for lo in range(k * step, last, LINES):
            whole = min(last, lo + LINES, x.shape[0])
            s, d, a, b, total, along = line[0], line[1], line[2], line[3], partial[k, 0], partial[k, 1]
            sum_gradient_rows(x, dy, lo, whole, 0, x.shape[1], s, d, a, b, total, along, e)
            if whole < min(last, lo + LINES):
                one_gradient_sums(tail, dy_tail, s, d, a, b, total, along, e)
            fold(partial[k, 0], sums[k, 0])
            fold(partial[k, 1], sums[k, 1])
    merge(sums)
    for c in range(channels):
        total, along = sums[0, 0, c], sums[0, 1, c] * wide(scale[c])
        if dgamma.size > 0:
            dgamma[c] = real(weight_gradient(c, total, along, change))
            dbeta[c] = real(total)
        line[4, c] = real(total * share)
        line[5, c] = real(along * share * wide(scale[c]))
    if wanted:
        repeat(line[4, :channels], line[4])
        repeat(line[5, :channels], line[5])
        for k in prange(chunks):
            j = chunks - 1 - k
            last = min(lines, j * step + step)
            whole = min(last, x.shape[0])
            s, d, a, b, mean_g, slope = line[0], line[1], line[2], line[3], line[4], line[5]
            gradient_rows(x, dy, dx, j * step, whole, 0, x.shape[1], s, d, a, b, mean_g, slope, e)
            if whole < last:
                row_gradient(tail, dy_tail, dx_tail, s, d, a, b, mean_g, slope, e)
