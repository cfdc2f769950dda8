"""Pooling a whole map into one output on the CPU, channels last: x (N, positions, C), flat, y (N, C).

Sums are taken of parts of a map, so that even few maps of few channels make many tasks, and added in the order of the
parts. The gradient of a maximum is zeros and one value for each channel.
"""

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.gather import sum_divided, sum_squares
from normcore.kernels.prefetch import NEXT, prefetch_lines
from normcore_pooling.max_planes import clear

PART = 1024  # positions of a task
TASKS = 32  # with fewer, channels are cut into blocks as well
CHANNELS = 32  # of a block at least: a few vectors

SQUARED = False  # of a kernel made by with_constants(SQUARED=...)


def parts_of(positions):
    return -(-positions // PART)


def blocks_of(tasks, channels):
    return 1 if tasks >= TASKS else max(1, min(channels // CHANNELS, -(-TASKS // max(1, tasks))))


def scratch_arrays(batch, channels, positions):
    return {"partial": Array((max(1, batch * parts_of(positions) * channels),))}


def places_of(positions, channels):
    """Where the positions of a part start."""
    return np.arange(min(PART, positions)) * channels


@inline(typed=True)
def sum_part(x, y, y_at, places, weight, count, channels):
    if SQUARED:
        sum_squares(y, y_at, x, places, weight, count, channels, 1, channels, channels)
    else:
        sum_divided(y, y_at, x, places, weight, count, channels, 1, channels, channels)


@cpu
def sum_maps(x, y, places, divisor, partial, batch, positions, channels, parts, blocks):
    """y: the sums of x, or of its squares, over the positions, divided by divisor[0]; divisor[1] is 1."""
    block = (channels + blocks - 1) // blocks
    for task in prange(batch * parts * blocks):
        j = np.int64(task) // blocks
        c = (np.int64(task) - j * blocks) * block
        n = j // parts
        low = (j - n * parts) * PART
        count, some = min(PART, positions - low), min(block, channels - c)
        if x.size > 2 * NEXT and blocks == 1:  # positions are far apart: the processor does not foresee them
            prefetch_lines(x, (n * positions + low) * channels, count * channels)
        part = x[(n * positions + low) * channels + c :]
        if parts == 1:
            sum_part(part, y, j * channels + c, places, divisor, count, some)
        else:
            sum_part(part, partial, j * channels + c, places, divisor[1:], count, some)
    if parts > 1:
        for n in prange(batch):
            for c in range(channels):
                total = wide(0)
                for k in range(parts):
                    total += wide(partial[(n * parts + k) * channels + c])
                y[n * channels + c] = real(total / wide(divisor[0]))


@inline
def place(dy, arg, dx, low, high, channels):
    for c in range(dy.size):
        p = np.int64(arg[c])
        if low <= p < high:
            dx[p * channels + c] += dy[c]


@cpu
def place_maxima(dy, arg, dx, parts):
    """dx (N, positions * C): dy (N, C) at the position arg (N, C) of its channel, 0 elsewhere."""
    channels = dy.shape[1]
    positions = dx.shape[1] // channels
    for task in prange(dx.shape[0] * parts):
        n = np.int64(task) // parts
        low = (np.int64(task) - n * parts) * PART
        high = min(positions, low + PART)
        clear(dx[n, low * channels : high * channels])
        place(dy[n], arg[n], dx[n], low, high, channels)
