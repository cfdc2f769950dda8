"""What the losses over classes need of a row of logits."""

import math

from normcore.kernels import inline, real


@inline(reassociate=True)
def largest(row):
    """The largest value; NaN when there is one."""
    top = row[0]
    for k in range(row.size):
        top = row[k] if (row[k] > top) | (row[k] != row[k]) else top
    return top


@inline
def first_best(row):
    """The place of the largest value, the first of equal ones."""
    best = 0
    for k in range(row.size):
        best = k if row[k] > row[best] else best
    return best


@inline(reassociate=True)
def exponentials(row, top, out):
    """out = exp(row - top); returns the sum."""
    total = real(0)
    for k in range(row.size):
        power = math.exp(row[k] - top)
        out[k] = power
        total += power
    return total


@inline(reassociate=True)
def row_sum(row):
    total = real(0)
    for k in range(row.size):
        total += row[k]
    return total
