"""Statistics of groups of channels on the CPU, channels last: sums of lines, and what is kept of them.

x (N, R, W) is a map of R * W / C positions, W / C of them to a row. Channels are summed in the kernel's own precision,
relative to one shift for each group, and added in float64 after some hundred positions; where the outcome cannot be
trusted (values near 1e30, a first value unlike the rest) a group is summed once more in float64.
"""

import math

from normcore.kernels import inline, real, wide
from normcore_normalization.channel_lines import fold, repeat
from normcore_normalization.channel_rows import moments, set_zero, sum_rows
from normcore_normalization.channel_scalars import trusted
from normcore_normalization.row_statistics import keep_row


@inline
def clear(line):
    for i in range(line.size):
        line[i] = real(0)


@inline
def group_shifts(first, groups, channels, line):
    """A shift for each group: its first value of `first` (W,). Over and over in line (W,)."""
    width = channels // groups
    for g in range(groups):
        for c in range(g * width, g * width + width):
            line[c] = first[g * width]
    repeat(line[:channels], line)


@inline
def add_sums(x, part, line):
    """Add to part (2, C), of each channel of x (rows, W), the sums of u and u^2 for u = x - line[2]."""
    sum_rows(x, 0, x.shape[0], 0, x.shape[1], line[2], line[0], line[1], False)
    fold(line[0], part[0])
    fold(line[1], part[1])


@inline
def clear_sums(part, line):
    """For add_sums, and with the lines that it uses for add_gradient_sums."""
    set_zero(part[0])
    set_zero(part[1])
    clear(line[0])
    clear(line[1])


@inline
def floor_of(eps, bend):
    """What is added to the variance."""
    return eps * eps if bend.size > 0 else eps


@inline
def moments_wide(x, c0, width, channels):
    """Mean and biased variance of channels c0 to c0 + width of x (N, R, W), in float64."""
    origin = wide(x[0, 0, c0])
    total = wide(0)
    for n in range(x.shape[0]):
        for s in range(x.shape[1]):
            for lo in range(c0, x.shape[2], channels):
                for k in range(lo, lo + width):
                    total += wide(x[n, s, k]) - origin
    m = wide(x.size // channels * width)
    mean = origin + total / m
    squares = wide(0)
    for n in range(x.shape[0]):
        for s in range(x.shape[1]):
            for lo in range(c0, x.shape[2], channels):
                for k in range(lo, lo + width):
                    u = wide(x[n, s, k]) - mean
                    squares += u * u
    return mean, squares / m


@inline
def keep_group(r, x, part, c0, width, s, eps, shift, rest, scale, bend):
    """Row r of what is kept, from part (N, K, 2, C): sums relative to s over the samples x (N, R, W)."""
    channels = part.shape[3]
    total = wide(0)
    squares = wide(0)
    for n in range(part.shape[0]):
        for k in range(part.shape[1]):
            for c in range(c0, c0 + width):
                total += part[n, k, 0, c]
                squares += part[n, k, 1, c]
    m = wide(x.size // channels * width)
    mean, var = wide(s) + total / m, (squares - total * total / m) / m
    if not trusted(total, squares, m, floor_of(eps, bend)):
        mean, var = moments_wide(x, c0, width, channels)
    keep_row(r, mean, var, eps, shift, rest, scale, bend)


@inline
def add_up_groups(sums, groups):
    """The sums (C,) of channels become those of groups, in the first places."""
    width = sums.size // groups
    for g in range(groups):
        total = wide(0)
        for c in range(g * width, g * width + width):
            total += sums[c]
        sums[g] = total


@inline(force=True)
def keep_rows(mean, var, eps, shift, rest, scale, bend):
    for r in range(mean.size):
        keep_row(r, mean[r], var[r], eps, shift, rest, scale, bend)


@inline
def keep_sample(n, x, sums, groups, first, eps, shift, rest, scale, bend):
    """keep_group for all groups of sample n at once, in vectors. sums (2, C) are relative to `first` (W,), see group_shifts."""
    channels, lo = sums.shape[1], n * groups
    width, hi = channels // groups, n * groups + groups
    total, squares, s = sums[0, :groups], sums[1, :groups], shift[lo:hi]
    add_up_groups(sums[0], groups)
    add_up_groups(sums[1], groups)
    for g in range(groups):
        s[g] = first[g * width]
    m = wide(x.size // channels * width)
    if moments(total, squares, s, m, floor_of(eps, bend)) > 0:
        for g in range(groups):
            if math.isnan(squares[g]):
                total[g], squares[g] = moments_wide(x, g * width, width, channels)
    own = bend[lo:hi] if bend.size > 0 else bend
    keep_rows(total, squares, eps, s, rest[lo:hi], scale[lo:hi], own)
