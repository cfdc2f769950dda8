"""Pooling a whole map into one output on the CPU, channels last: x (N, positions, C), flat, y (N, C).

Sums are taken of parts of a map, so that even few maps of few channels make many tasks, and added in the order of the
parts. Rows of channels are taken one after the other, as memory has them: the sums, or the extremes and where they are,
stay in the first-level cache. The gradient of a maximum is zeros and one value for each channel.
"""

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import AHEAD, prefetch_once
from normcore.kernels.select import select
from normcore.kernels.streaming import STREAM_BLOCK, stack_block
from normcore.kernels.window import window
from normcore_pooling.max_planes import clear

PART = 1024  # positions of a task
TASKS = 32  # with fewer, channels are cut into blocks as well
CHANNELS = 32  # of a block at least: a few vectors
ROW = STREAM_BLOCK // 2  # sums side by side: they and what is added to them stay in the first-level cache
BLOCK = 128  # rows added before their sum joins the total

SQUARED = False  # constants of kernels: what is summed, what is looked for, the integers of arg
MAXIMUM = True
TAP = np.uint8


def parts_of(positions):
    return -(-positions // PART)


def blocks_of(tasks, channels):
    return 1 if tasks >= TASKS else max(1, min(channels // CHANNELS, -(-TASKS // max(1, tasks))))


def scratch_arrays(batch, channels, positions):
    return {"partial": Array((max(1, batch * parts_of(positions) * channels),))}


@inline(force=True)
def add_row(x, total):
    for i in range(total.size):
        v = x[i]
        total[i] += v * v if SQUARED else v
        line_by_line()


@inline
def add_line(line, sums):
    for i in range(sums.size):
        sums[i] += line[i]


@inline(typed=True)
def sum_rows(x, at, pitch, rows, line, sums):
    """Add x[at + r * pitch + i] for r < rows to sums[i], in blocks so that the rounding error does not grow with rows."""
    for first in range(0, rows, BLOCK):
        clear(line)
        for r in range(first, min(rows, first + BLOCK)):
            of = at + r * pitch
            prefetch_once(x, of + AHEAD, line.size)
            add_row(window(x, of, of + line.size), line)
        add_line(line, sums)


@inline(typed=True)
def sum_part(x, at, channels, count, some, y, y_at, divisor, scratch):
    """y[y_at + c] for c < some: the sum over `count` positions from x[at + c] on, divided.

    Several positions of few channels, which follow one another in memory, make a row.
    """
    for lo in range(0, some, ROW):
        width = min(ROW, some - lo)
        beside = ROW // width if width == channels else 1
        line, sums = window(scratch, 0, beside * width), window(scratch, ROW, ROW + beside * width)
        clear(sums)
        rows = count // beside
        sum_rows(x, at + lo, beside * channels, rows, line, sums)
        one = window(scratch, 0, width)
        sum_rows(x, at + lo + rows * beside * channels, channels, count - rows * beside, one, sums[:width])
        for c in range(width):
            total = sums[c]
            for k in range(1, beside):
                total += sums[k * width + c]
            y[y_at + lo + c] = total / divisor


@cpu
def sum_maps(x, y, divisor, partial, batch, positions, channels, parts, blocks):
    """y: the sums of x, or of its squares, over the positions, divided by divisor[0]; divisor[1] is 1."""
    block = (channels + blocks - 1) // blocks
    for task in prange(batch * parts * blocks):
        j = np.int64(task) // blocks
        c = (np.int64(task) - j * blocks) * block
        n = j // parts
        low = (j - n * parts) * PART
        count, some = min(PART, positions - low), min(block, channels - c)
        at, scratch = (n * positions + low) * channels + c, stack_block(y)
        if parts == 1:
            sum_part(x, at, channels, count, some, y, j * channels + c, divisor[0], scratch)
        else:
            sum_part(x, at, channels, count, some, partial, j * channels + c, divisor[1], scratch)
    if parts > 1:
        for n in prange(batch):
            for c in range(channels):
                total = wide(0)
                for k in range(parts):
                    total += wide(partial[(n * parts + k) * channels + c])
                y[n * channels + c] = real(total / wide(divisor[0]))


@inline(force=True)
def take_row(x, p, best, tap):
    """Where x is beyond `best`, or NaN, it takes that place, and p that of `tap`."""
    for c in range(best.size):
        v = x[c]
        beyond = (v > best[c] if MAXIMUM else v < best[c]) | (v != v)
        tap[c] = select(beyond, p, tap[c])
        best[c] = select(beyond, v, best[c])
        line_by_line()


@inline
def extremes_of_map(x, at, positions, channels, y, arg):
    """Of x[at + p * channels + c], p < positions, for c < y.size."""
    for c in range(y.size):
        y[c] = x[at + c]
        arg[c] = TAP(0)
    for p in range(1, positions):
        lo = at + p * channels
        prefetch_once(x, lo + AHEAD, y.size)
        take_row(window(x, lo, lo + y.size), TAP(p), y, arg)


@cpu
def extremes_of_maps(x, y, arg, positions, channels, blocks):
    """y: the largest (MAXIMUM, else the smallest) of each channel's map; arg: the first position that holds it."""
    block = (channels + blocks - 1) // blocks
    for task in prange(y.size // channels * blocks):
        n = np.int64(task) // blocks
        c = (np.int64(task) - n * blocks) * block
        lo, hi = n * channels + c, n * channels + min(channels, c + block)
        extremes_of_map(
            x, n * positions * channels + c, positions, channels, window(y, lo, hi), window(arg, lo, hi)
        )


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
