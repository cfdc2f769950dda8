"""Pooling on the CPU, channels last: for each target position gather its terms, then reduce all channels at once.

Forward, targets are outputs and sources inputs; backward, the other way round. Links (links.py) says for each
dimension which sources a target has. Arrays are flat; a map is (depth, height, width) positions of C channels.
A task owns rows of targets, or some channels of them where there are few rows, and writes each target once.
"""

import math

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.gather import (
    pick_largest,
    pick_smallest,
    sum_divided,
    sum_matching,
    sum_scaled,
    sum_shared,
    sum_squares,
    sum_weighted,
)
from normcore.kernels.prefetch import NEXT, prefetch_lines
from normcore.kernels.streaming import leaves_cache
from normcore_pooling.links import runs

TASKS = 64  # more than any desktop has threads
ROWS = 32  # of targets: with fewer, channels are cut into blocks as well
CHANNELS = 32  # of a block at least: a few vectors

# What a kernel does with the terms of a target; OPERATION is a constant of each compiled kernel.
LARGEST, SMALLEST, MATCH, SHARE, SCALED, AVERAGE, SPREAD, SQUARES = range(8)
OPERATION = LARGEST
NO_FACTORS = np.ones(1)
NO_ARG = np.zeros(1, np.uint8)


# tables holds all links and the runs one after the other, because each array more costs compile time: links of
# dimension k start at at[3 * k] (first), at[3 * k + 1] (sources) and at[3 * k + 2] (taps). own (4, terms) is a
# task's scratch: where rows of sources start, their taps, where terms start, their taps.


@inline(typed=True)
def row_terms(d, h, height, width, tables, at, own):
    """The rows of sources of row (d, h) of targets: how many; own[0], own[1]."""
    count = 0
    for i in range(tables[at[0] + d], tables[at[0] + d + 1]):
        for j in range(tables[at[3] + h], tables[at[3] + h + 1]):
            own[0, count] = (tables[at[1] + i] * height + tables[at[4] + j]) * width
            own[1, count] = tables[at[2] + i] + tables[at[5] + j]
            count += 1
    return count


@inline(typed=True)
def position_terms(w, rows, origin, channels, tables, at, own):
    """The terms of target w in its row: how many; own[2], own[3]."""
    count = 0
    low, high = tables[at[6] + w], tables[at[6] + w + 1]
    for r in range(rows):
        for k in range(low, high):
            own[2, count] = origin + (own[0, r] + tables[at[7] + k]) * channels
            own[3, count] = own[1, r] + tables[at[8] + k]
            count += 1
    return count


@inline(typed=True)
def factor_of(d, h, w, size, factors):
    """factors: of the three dimensions, one after the other."""
    return wide(factors[d]) * wide(factors[size[0] + h]) * wide(factors[size[0] + size[1] + w])


@inline(typed=True)
def term_weights(d, h, w, source, tables, at, factors, weights):
    """The factor of each source of this target, in the order of its terms."""
    count = 0
    for i in range(tables[at[0] + d], tables[at[0] + d + 1]):
        for j in range(tables[at[3] + h], tables[at[3] + h + 1]):
            for k in range(tables[at[6] + w], tables[at[6] + w + 1]):
                from_d, from_h, from_w = tables[at[1] + i], tables[at[4] + j], tables[at[7] + k]
                weights[count] = real(factor_of(from_d, from_h, from_w, source, factors))
                count += 1


@inline(typed=True)
def reduce_terms(x, y, arg, at, places, taps, weights, terms, channels, run, y_step, x_step, tap_step):
    if OPERATION == LARGEST:
        pick_largest(y, arg, at, x, places, taps, terms, channels, run, y_step, x_step, tap_step)
    elif OPERATION == SMALLEST:
        pick_smallest(y, arg, at, x, places, taps, terms, channels, run, y_step, x_step, tap_step)
    elif OPERATION == MATCH:
        sum_matching(y, at, x, arg, places, taps, terms, channels, run, y_step, x_step, tap_step)
    elif OPERATION == SHARE:
        sum_shared(y, at, x, arg, places, taps, weights, terms, channels, run, y_step, x_step, tap_step)
    elif OPERATION == SCALED:  # arg: what each target is multiplied by
        sum_scaled(y, at, x, places, arg, terms, channels, run, y_step, x_step)
    elif OPERATION == AVERAGE:
        sum_divided(y, at, x, places, weights, terms, channels, run, y_step, x_step)
    elif OPERATION == SQUARES:
        sum_squares(y, at, x, places, weights, terms, channels, run, y_step, x_step)
    else:
        sum_weighted(y, at, x, places, weights, terms, channels, run, y_step, x_step)


@cpu
def reduce_positions(
    x, y, arg, factors, channels, source, target, units, blocks, tables, at, runs, scratch, weights
):  # fmt: skip
    """Every target of y from its terms in x, all arrays flat.

    LARGEST, SMALLEST: arg gets the tap. MATCH: the sum of the sources whose arg is the target's tap. SHARE: of
    those times factors[0] and of the others times factors[1]. AVERAGE: the sum divided by the product of the
    target's factors along the dimensions; SQUARES: of squares. SPREAD: each source times such a product, of its own
    place. SCALED: the sum times arg, which is as large as y. A unit is a row of targets, or one of its `blocks` of
    channels. runs: how many runs of positions that are alike a row has, see links.py; from at[9] on there are five
    numbers for each. scratch (tasks, 4, terms), weights (tasks, terms).
    """
    tasks = scratch.shape[0]
    block = (channels + blocks - 1) // blocks
    # A row's sources lie apart, which the processor does not foresee. Around the caches it is busy enough with y.
    asked = x.size > 2 * NEXT and blocks == 1 and not leaves_cache(y)
    for task in prange(tasks):
        own, weight = scratch[task], weights[task]
        places, taps = own[2], own[3]
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            row = unit // blocks
            c = (unit - row * blocks) * block
            h = row % target[1]
            d = row // target[1] % target[0]
            n = row // target[1] // target[0]
            rows = row_terms(d, h, source[1], source[2], tables, at, own)
            origin = n * source[0] * source[1] * source[2] * channels + c
            if asked and rows * source[2] * channels <= NEXT // 2:
                for r in range(rows):
                    prefetch_lines(x, origin + own[0, r] * channels, source[2] * channels)
            for k in range(at[9], at[9] + 5 * runs, 5):
                w = tables[k]
                terms = position_terms(w, rows, origin, channels, tables, at, own)
                if OPERATION != SPREAD and OPERATION >= AVERAGE:
                    weight[0] = real(factor_of(d, h, w, target, factors))
                elif OPERATION == SHARE:
                    weight[0], weight[1] = real(factors[0]), real(factors[1])
                elif OPERATION == SPREAD:
                    term_weights(d, h, w, source, tables, at, factors, weight)
                to = (row * target[2] + w) * channels + c
                length, y_step, x_step = tables[k + 1], tables[k + 2] * channels, tables[k + 3] * channels
                count = min(block, channels - c)
                reduce_terms(
                    x, y, arg, to, places, taps, weight, terms, count, length, y_step, x_step, tables[k + 4]
                )  # fmt: skip


# -- what a layer binds ------------------------------------------------------------------------------------


def scratch_arrays(both):
    """The workspace that `arguments` cuts up: terms of one position for each task."""
    terms = max(1, math.prod(b.forward.most for b in both), math.prod(b.backward.most for b in both))
    tasks = TASKS if terms <= 1024 else 8  # few large bins
    return {"terms": Array((tasks * 4 * terms,), "int64"), "weights": Array((tasks * max(2, terms),))}


def arguments(both, batch, channels, way, terms, weights, factors=None):
    """What reduce_positions takes after `factors` for this way, "forward" or "backward"; the last two are workspace."""
    links = tuple(getattr(b, way) for b in both)
    inputs, outputs = tuple(b.size for b in both), tuple(b.out for b in both)
    source, target = (inputs, outputs) if way == "forward" else (outputs, inputs)
    most = max(1, math.prod(one.most for one in links))
    rows = batch * target[0] * target[1]
    blocks = 1 if rows >= ROWS else max(1, min(channels // CHANNELS, -(-ROWS // max(1, rows))))
    width = max(2, most)  # SHARE takes two weights
    tasks = max(1, min(TASKS, rows * blocks, weights.size // width))
    alike = runs(both[2], way, None if factors is None else factors[2])
    parts = [table for one in links for table in (one.first, one.sources, one.taps)] + [alike.reshape(-1)]
    at = tuple(int(n) for n in np.cumsum([0] + [part.size for part in parts[:-1]]))
    scratch, weights = (
        terms[: tasks * 4 * most].reshape(tasks, 4, most),
        weights[: tasks * width].reshape(tasks, width),
    )
    return (
        channels,
        source,
        target,
        rows * blocks,
        blocks,
        np.concatenate(parts),
        at,
        len(alike),
        scratch,
        weights,
    )
