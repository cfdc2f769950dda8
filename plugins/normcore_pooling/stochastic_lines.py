"""Stochastic pooling on the CPU: lines of windows side by side, a tap at a time.

The rules are those of stochastic_pool.py. A line is as many windows as lie side by side in memory: channels last all
channels of a position. Channels first windows of any rows and planes: their taps are first copied, each tap's into a
line of its own. A pass over the taps adds up the weights, a second one adds again: the tap drawn is the number of those
after which the sum is not yet above u * S, and y the last value that was looked at before.
"""

import math
from dataclasses import dataclass

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.draws import GROUP, LINE, ROOM, groups_of, lanes_of, lines_out, part_of
from normcore.kernels.every import copy_every
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import AHEAD, prefetch_lines
from normcore.kernels.select import select
from normcore.kernels.unaliased import nothing_overlaps, unaliased
from normcore.kernels.window import window
from normcore.random import philox, unit_32
from normcore_pooling.max_planes import clear
from normcore_pooling.max_rows import TAP, better
from normcore_pooling.stochastic_windows import weight

LANES = 16  # channels that are drawn for at once; of a kernel made by with_constants(LANES=lanes_of(dtype))
LENGTH = 512  # windows of a line at most
COPIES = 1 << 14  # elements of all taps' lines, channels first: they stay in the second-level cache
BLOCKS = (
    8  # of LANES channels, in a line channels last: memory is read in long rows, what is drawn fits the cache
)
SHORTEST = 4  # outputs of a row, channels first: of fewer, copies cost more than they save
TASKS = 16  # that share the work, each with its own scratch


# -- lines -------------------------------------------------------------------------------------------------


@inline
def add_weights(x, total):
    nothing_overlaps()
    for i in range(total.size):
        total[i] += weight(x[i])
        line_by_line()


@inline
def scale_of(total, count, scale, least):
    """What a tap's weight is a share of, and the least weight: where nothing is positive, all weigh 1."""
    for i in range(total.size):
        none = total[i] == real(0)
        scale[i] = count if none else total[i]
        least[i] = real(1) if none else real(0)


@inline
def multiply(u, scale):
    for i in range(scale.size):
        scale[i] *= u[i]


@inline
def draw(x, running, limit, least, y, taps):
    """One tap of the windows of a line; taps counts those that the number drawn has passed."""
    nothing_overlaps()
    for i in range(y.size):
        v, before, best, most, passed = x[i], running[i], y[i], limit[i], taps[i]
        y[i] = select(before <= most, v, best)
        after = before + max(v, least[i])
        running[i] = after
        taps[i] = select(after <= most, passed + real(1), passed)
        line_by_line()


@inline
def number_taps(taps, arg, last):
    for i in range(arg.size):
        arg[i] = TAP(min(taps[i], last))


@inline
def add_expected(x, total, least, y):
    """One tap's share of the mean. v * v alone may overflow."""
    nothing_overlaps()
    for i in range(y.size):
        v, mean = x[i], y[i]
        w = max(v, least[i])
        more = mean + v * (w / total[i])
        y[i] = select(w > real(0), more, mean)
        line_by_line()


@inline
def count_infinite(total):
    count = np.int32(0)
    for i in range(total.size):
        count += np.int32(0) if total[i] < real(math.inf) else np.int32(1)
    return count


@inline
def take_largest(x, at, places, y, arg, sums):
    """Of the windows of a line with no finite sum."""
    for i in range(y.size):
        if not sums[i] < real(math.inf):
            best, tap = x[at + i], 0
            for t in range(places.size):
                v = x[at + i + places[t]]
                if better(v, best):
                    best, tap = v, t
            y[i], arg[i] = best, TAP(tap)


@inline(force=True)  # else LLVM does not know that nothing overlaps
def pool_line(x, at, places, u, y, arg, sums, own, training):
    """y.size windows side by side, the first from x[at] on; places: of the taps, from there on.

    own: scratch (4, y.size or more).
    """
    n = y.size
    scale, least = window(own[0], 0, n), window(own[1], 0, n)
    running, passed = window(own[2], 0, n), window(own[3], 0, n)
    clear(sums)
    for t in range(places.size):
        add_weights(window(x, at + places[t], at + places[t] + n), sums)
    scale_of(sums, real(places.size), scale, least)
    clear(passed)
    if training:
        multiply(u, scale)
        clear(running)
        for t in range(places.size):
            draw(window(x, at + places[t], at + places[t] + n), running, scale, least, y, passed)
    else:
        clear(y)
        for t in range(places.size):
            add_expected(window(x, at + places[t], at + places[t] + n), scale, least, y)
    number_taps(passed, arg, real(places.size - 1))
    if count_infinite(sums):
        take_largest(x, at, places, y, arg, sums)


@inline
def draw_group(u, key, group, call):
    """A block of the generator serves four elements, a quarter of the group apart."""
    for j in range(32):
        w0, w1, w2, w3 = philox(key, group * 32 + j, call, 0)
        u[j] = real(unit_32(w0))
        u[j + 32] = real(unit_32(w1))
        u[j + 64] = real(unit_32(w2))
        u[j + 96] = real(unit_32(w3))


# -- channels first ----------------------------------------------------------------------------------------


@inline
def copy_windows(x, first, q, count, places, size, out, stride):
    """Windows first .. first + count - 1 of all: tap t of the i-th into q[places[1, t] + i]."""
    i = 0
    while i < count:
        row = (first + i) // out[2]
        layer = row // out[1]
        plane = layer // out[0]
        ow, oh, od = first + i - row * out[2], row - layer * out[1], layer - plane * out[0]
        at = ((plane * size[0] + od * stride[0]) * size[1] + oh * stride[1]) * size[2] + ow * stride[2]
        some = min(out[2] - ow, count - i)
        prefetch_lines(x, at + AHEAD, stride[1] * size[2])
        for t in range(places.shape[1]):
            copy_every(q, places[1, t] + i, x, at + places[0, t], stride[2], some)
        i += some


@cpu
def forward_first(x, y, arg, sums, scratch, lines, key, call, training, length, places, size, out, stride):
    """x, y, arg, sums flat, channels first; scratch, lines: Cut.arrays. places (2, taps): of a window in x, and
    of copies. A unit is `length` windows."""
    tasks = scratch.shape[0]
    units = (y.size + length - 1) // length
    drawn = length + 2 * GROUP
    for j in prange(tasks):
        task = np.int64(j)
        own = unaliased(lines[task])
        u, q = window(scratch[task], 0, drawn), window(scratch[task], drawn, scratch.shape[1])
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            lo = unit * length
            hi = min(y.size, lo + length)
            group = lo // GROUP
            begin = lo - group * GROUP
            if training:
                for k in range((hi + GROUP - 1) // GROUP - group):
                    draw_group(window(u, k * GROUP, k * GROUP + GROUP), key, group + k, call)
            copy_windows(x, lo, q, hi - lo, places, size, out, stride)
            pool_line(
                q, 0, places[1], window(u, begin, begin + hi - lo), window(y, lo, hi), window(arg, lo, hi),
                window(sums, lo, hi), own, training,
            )  # fmt: skip


# -- channels last -----------------------------------------------------------------------------------------


@inline
def draw_part(part, some, width, line, u, shape, key, call):
    """u (positions, width): what is drawn for parts part .. part + some - 1 (normcore.kernels.draws), which share their
    positions. line: scratch."""
    for k in range(some):
        _, count_of_lines, first, stride, length, count = part_of(part + k, shape)
        for i in range(count_of_lines):
            to, group, end = groups_of(first, i, shape[1], stride, length, count)
            while group < end:
                draw_group(window(line, to, to + GROUP), key, group, call)
                group += 1
                to += GROUP
        lines_out(line, stride, u, k * LANES, width, length, count)


@cpu
def forward_last(
    x, y, arg, sums, scratch, lines, key, call, training, some, places, samples, size, out, stride
):  # fmt: skip
    """x, y, arg, sums flat, of shape (N, positions, channels); size (D, H, W). scratch, lines, places: as channels first.

    A unit is up to LINE windows by some * LANES channels.
    """
    tasks = scratch.shape[0]
    channels = x.size // (samples * size[0] * size[1] * size[2])
    shape = (samples, out[0] * out[1] * out[2], channels)
    blocks = (channels + LANES - 1) // LANES
    across = (blocks + some - 1) // some
    pieces = (shape[1] + LINE - 1) // LINE
    units = shape[0] * pieces * across
    for j in prange(tasks):
        task = np.int64(j)
        own = unaliased(lines[task])
        line = window(scratch[task], 0, LANES * ROOM)
        u = window(scratch[task], LANES * ROOM, scratch.shape[1])
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            piece = unit // across
            block = (unit - piece * across) * some
            c = block * LANES
            width = min(some * LANES, channels - c)
            if training:
                draw_part(
                    piece * blocks + block, min(some, blocks - block), width, line, u, shape, key, call
                )  # fmt: skip
            n = piece // pieces
            first = (piece - n * pieces) * LINE
            for place in range(first, min(shape[1], first + LINE)):
                row = place // out[2]
                od = row // out[1]
                oh, ow = row - od * out[1], place - row * out[2]
                at = (n * size[0] + od * stride[0]) * size[1] + oh * stride[1]
                at = (at * size[2] + ow * stride[2]) * channels + c
                lo, k = (n * shape[1] + place) * channels + c, (place - first) * width
                pool_line(
                    x, at, places[0], window(u, k, k + width), window(y, lo, lo + width),
                    window(arg, lo, lo + width), window(sums, lo, lo + width), own, training,
                )  # fmt: skip


# -- what a layer binds ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """How outputs are cut, and a task's scratch. length: windows of a line, channels first; some: times LANES are the
    channels of a line, channels last; elements, width: of the scratch and of a line's sums."""

    length: int
    some: int
    tasks: int
    elements: int
    width: int

    def scratch(self):
        """Of a layer's workspace."""
        return {
            "scratch": Array((self.tasks * self.elements,)),
            "lines": Array((self.tasks * 4 * self.width,)),
        }

    def arrays(self, t):
        """That scratch, a part for each task."""
        return t.scratch.reshape(self.tasks, -1), t.lines.reshape(self.tasks, 4, -1)

    def places(self, size, kernel, inner):
        """Of the taps of a window: in x, whose neighbours are `inner` elements apart, and in copies."""
        d, h, w = (np.arange(k) for k in kernel)
        taps = ((d[:, None, None] * size[1] + h[:, None]) * size[2] + w).reshape(-1)
        return np.stack([taps * inner, np.arange(taps.size) * self.length])


def cut_of(samples, channels, found, dtype):
    """found: the Windows of all dimensions. The same for both memory formats."""
    lanes = lanes_of(dtype)
    taps, positions = math.prod(w.kernel for w in found), math.prod(w.out for w in found)
    length = max(lanes, min(LENGTH, COPIES // taps))
    first = length + 2 * GROUP + taps * length if found[-1].out >= SHORTEST else 0
    blocks = -(-channels // lanes)
    parts = samples * -(-positions // LINE) * blocks
    some = max(1, min(BLOCKS, blocks, parts // TASKS))
    width = min(some * lanes, channels)
    last = lanes * ROOM + min(positions, LINE) * width
    tasks = max(1, min(TASKS, max(-(-samples * channels * positions // length), parts // some)))
    return Cut(length, some, tasks, max(first, last), max(length, width))
