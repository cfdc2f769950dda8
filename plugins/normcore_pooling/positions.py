"""Pooling on the CPU, channels last: for each target position gather its terms, then reduce all channels at once.

Forward, targets are outputs and sources inputs; backward, the other way round. Links (links.py) says for each
dimension which sources a target has. Arrays are flat; a map is (depth, height, width) positions of C channels.
A task owns rows of targets, or some channels of them where there are few rows, and writes each target once.
"""

import math

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.gather import pick_largest, pick_smallest, sum_divided, sum_matching, sum_weighted
from normcore_pooling.links import runs

TASKS = 64  # more than any desktop has threads
ROWS = 32  # of targets: with fewer, channels are cut into blocks as well
CHANNELS = 32  # of a block at least: a few vectors

# What a kernel does with the terms of a target; OPERATION is a constant of each compiled kernel.
LARGEST, SMALLEST, MATCH, AVERAGE, SPREAD = range(5)
OPERATION = LARGEST
NO_FACTORS = (np.ones(1),) * 3
NO_ARG = np.zeros(1, np.uint8)


@inline(typed=True)
def row_terms(d, h, height, width, links_d, links_h, bases, row_taps):
    """The rows of sources of row (d, h) of targets: how many, where they start, and their taps."""
    count = 0
    for i in range(links_d[0][d], links_d[0][d + 1]):
        for j in range(links_h[0][h], links_h[0][h + 1]):
            bases[count] = (links_d[1][i] * height + links_h[1][j]) * width
            row_taps[count] = links_d[2][i] + links_h[2][j]
            count += 1
    return count


@inline(typed=True)
def position_terms(w, rows, origin, channels, links_w, bases, row_taps, places, taps):
    """The terms of target w in its row: how many; their first channels in places, their taps in taps."""
    count = 0
    low, high = links_w[0][w], links_w[0][w + 1]
    for r in range(rows):
        for k in range(low, high):
            places[count] = origin + (bases[r] + links_w[1][k]) * channels
            taps[count] = row_taps[r] + links_w[2][k]
            count += 1
    return count


@inline(typed=True)
def term_weights(d, h, w, links_d, links_h, links_w, factors, weights):
    """The product of the factors of each source of this target, in the order of its terms."""
    count = 0
    for i in range(links_d[0][d], links_d[0][d + 1]):
        for j in range(links_h[0][h], links_h[0][h + 1]):
            for k in range(links_w[0][w], links_w[0][w + 1]):
                factor = wide(factors[0][links_d[1][i]]) * wide(factors[1][links_h[1][j]])
                factor *= wide(factors[2][links_w[1][k]])
                weights[count] = real(factor)
                count += 1


@inline(typed=True)
def reduce_terms(x, y, arg, at, places, taps, weights, terms, channels, run, y_step, x_step):
    if OPERATION == LARGEST:
        pick_largest(y, arg, at, x, places, taps, terms, channels, run, y_step, x_step)
    elif OPERATION == SMALLEST:
        pick_smallest(y, arg, at, x, places, taps, terms, channels, run, y_step, x_step)
    elif OPERATION == MATCH:
        sum_matching(y, at, x, arg, places, taps, terms, channels, run, y_step, x_step)
    elif OPERATION == AVERAGE:
        sum_divided(y, at, x, places, weights, terms, channels, run, y_step, x_step)
    else:
        sum_weighted(y, at, x, places, weights, terms, channels, run, y_step, x_step)


@cpu
def reduce_positions(
    x,
    y,
    arg,
    factors,
    batch,
    channels,
    source,
    target,
    blocks,
    runs,
    scratch,
    weights,
    links_d,
    links_h,
    links_w,
):
    """Every target of y from its terms in x, all arrays flat.

    LARGEST, SMALLEST: arg gets the tap. MATCH: the sum of the sources whose arg is the target's tap. AVERAGE: the
    sum divided by factors[0][d] * factors[1][h] * factors[2][w]. SPREAD: each source times such a product, of its
    own place. runs (count, 4): positions of a row that are alike, see links.py. scratch (tasks, 4, terms), weights
    (tasks, terms).
    """
    units = batch * target[0] * target[1] * blocks
    tasks = scratch.shape[0]
    share = (units + tasks - 1) // tasks
    block = (channels + blocks - 1) // blocks
    for task in prange(tasks):
        bases, row_taps = scratch[task, 0], scratch[task, 1]
        places, taps, weight = scratch[task, 2], scratch[task, 3], weights[task]
        for unit in range(task * share, min(units, task * share + share)):
            row = unit // blocks
            c = (unit - row * blocks) * block
            h = row % target[1]
            d = row // target[1] % target[0]
            n = row // target[1] // target[0]
            rows = row_terms(d, h, source[1], source[2], links_d, links_h, bases, row_taps)
            origin = n * source[0] * source[1] * source[2] * channels + c
            for k in range(runs.shape[0]):
                w = runs[k, 0]
                terms = position_terms(w, rows, origin, channels, links_w, bases, row_taps, places, taps)
                if OPERATION == AVERAGE:
                    weight[0] = real(wide(factors[0][d]) * wide(factors[1][h]) * wide(factors[2][w]))
                elif OPERATION == SPREAD:
                    term_weights(d, h, w, links_d, links_h, links_w, factors, weight)
                at = (row * target[2] + w) * channels + c
                length, y_step, x_step = runs[k, 1], runs[k, 2] * channels, runs[k, 3] * channels
                count = min(block, channels - c)
                reduce_terms(x, y, arg, at, places, taps, weight, terms, count, length, y_step, x_step)


# -- what a layer binds ------------------------------------------------------------------------------------


def scratch_arrays(both):
    """The workspace that `arguments` cuts up: terms of one position for each task."""
    terms = max(1, math.prod(b.forward.most for b in both), math.prod(b.backward.most for b in both))
    tasks = TASKS if terms <= 1024 else 8  # few large bins
    return {"terms": Array((tasks * 4 * terms,), "int64"), "weights": Array((tasks * terms,))}


def arguments(both, batch, channels, way, terms, weights, factors=None):
    """What reduce_positions takes after `factors` for this way, "forward" or "backward"; the last two are workspace."""
    links = tuple(getattr(b, way) for b in both)
    tables = tuple((one.first, one.sources, one.taps) for one in links)
    inputs, outputs = tuple(b.size for b in both), tuple(b.out for b in both)
    source, target = (inputs, outputs) if way == "forward" else (outputs, inputs)
    most = max(1, math.prod(one.most for one in links))
    rows = max(1, batch * target[0] * target[1])
    blocks = 1 if rows >= ROWS else max(1, min(channels // CHANNELS, -(-ROWS // rows)))
    tasks = max(1, min(TASKS, rows * blocks, weights.size // most))
    scratch = terms[: tasks * 4 * most].reshape(tasks, 4, most)
    alike = runs(both[2], way, None if factors is None else factors[2])
    weights = weights[: tasks * most].reshape(tasks, most)
    return batch, channels, source, target, blocks, alike, scratch, weights, *tables
