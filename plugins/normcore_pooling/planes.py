"""Pooling on the CPU, channels first: every target of a plane from its terms, one at a time.

The same operations on the same tables as positions.py, with planes (P, positions) in place of channels.
"""

import numpy as np

from normcore.kernels import cpu, inline, prange, real, wide
from normcore_pooling.positions import (
    AVERAGE,
    BLOCK,
    LARGEST,
    MATCH,
    OPERATION,
    SMALLEST,
    SPREAD,
    row_terms,
)

TAP = np.uint8  # the type of arg


@inline
def takes_over(value, best):
    if OPERATION == LARGEST:
        return (value > best) | (value != value)
    return (value < best) | (value != value)


@inline(typed=True)
def pick_one(x, y, arg, at, w, rows, links_w, bases, row_taps):
    best, tap, fresh = x[0], 0, True
    for r in range(rows):
        for k in range(links_w[0][w], links_w[0][w + 1]):
            value = x[bases[r] + links_w[1][k]]
            if fresh or takes_over(value, best):
                best, tap = value, row_taps[r] + links_w[2][k]
            fresh = False
    y[at] = best
    arg[at] = TAP(tap)


@inline
def match_one(x, y, arg, at, w, rows, links_w, bases, row_taps):
    total = real(0)
    for r in range(rows):
        for k in range(links_w[0][w], links_w[0][w + 1]):
            place = bases[r] + links_w[1][k]
            if np.int64(arg[place]) == row_taps[r] + links_w[2][k]:
                total += x[place]
    y[at] = total


@inline
def add_one(x, y, at, w, rows, links_w, bases, shares, factors):
    total, block, count = real(0), real(0), 0
    for r in range(rows):
        for k in range(links_w[0][w], links_w[0][w + 1]):
            place = bases[r] + links_w[1][k]
            if OPERATION == SPREAD:
                block += x[place] * real(wide(shares[r]) * wide(factors[2][links_w[1][k]]))
            else:
                block += x[place]
            count += 1
            if count == BLOCK:
                total += block
                block, count = real(0), 0
    total += block
    y[at] = total / real(wide(shares[0]) * wide(factors[2][w])) if OPERATION == AVERAGE else total


@cpu
def reduce_planes(x, y, arg, factors, source, target, scratch, shares, links_d, links_h, links_w):
    """x, y, arg (P, positions), of the operation's source and target. scratch (tasks, 2, rows of terms), shares
    (tasks, rows) float64; see reduce_positions."""
    planes = y.shape[0]
    tasks = scratch.shape[0]
    step = (planes + tasks - 1) // tasks
    for task in prange(tasks):
        bases, row_taps, share = scratch[task, 0], scratch[task, 1], shares[task]
        for d in range(target[0]):
            for h in range(target[1]):
                rows = row_terms(d, h, source[1], source[2], links_d, links_h, bases, row_taps)
                if OPERATION == AVERAGE:
                    share[0] = wide(factors[0][d]) * wide(factors[1][h])
                elif OPERATION == SPREAD:
                    count = 0
                    for i in range(links_d[0][d], links_d[0][d + 1]):
                        for j in range(links_h[0][h], links_h[0][h + 1]):
                            share[count] = wide(factors[0][links_d[1][i]]) * wide(factors[1][links_h[1][j]])
                            count += 1
                for p in range(task * step, min(planes, task * step + step)):
                    for w in range(target[2]):
                        at = (d * target[1] + h) * target[2] + w
                        if OPERATION in (LARGEST, SMALLEST):
                            pick_one(x[p], y[p], arg[p], at, w, rows, links_w, bases, row_taps)
                        elif OPERATION == MATCH:
                            match_one(x[p], y[p], arg[p], at, w, rows, links_w, bases, row_taps)
                        else:
                            add_one(x[p], y[p], at, w, rows, links_w, bases, share, factors)
