"""Drawing a number for each element, channels last: elements lie in another order than they are numbered in.

A block of the generator (normcore.random) serves neighbours in the logical order (N, C, *spatial). So a part of the
array, LANES channels of some positions, is turned into lines of positions, worked on in whole groups as arrays channels
first are, and turned back:

    for unit in range(units_of(shape)):
        at, lines, first, stride, length, count = part_of(unit, shape)
        lines_in(x, at, shape[2], line, stride, length, count)
        for k in range(lines):
            to, group, end = groups_of(first, k, shape[1], stride, length, count)
            # groups `group` to `end - 1`, of GROUP elements each, the first of them from line[to] on
        lines_out(line, stride, y, at, shape[2], length, count)

shape: (samples, positions, channels). A whole small map's channels follow one another as they are numbered, and are one
line. What groups hold beyond the ends of a line is scratch.
"""

# mypy: allow-untyped-defs
import math

import numpy as np

from normcore.kernels import inline
from normcore.kernels.tile import lanes
from normcore.kernels.transpose import turn, turn_integers
from normcore.op import Array

GROUP = 128  # elements that share 32 blocks of the generator
LINE = 1024  # positions of a part at most
ROOM = LINE + 2 * GROUP  # between lines, which whole groups overlap at both ends
LANES = 16  # channels of a part; of a kernel made by with_constants(LANES=lanes_of(dtype))
TASKS = 16  # that share the work, each with its own scratch


def lanes_of(dtype):
    return lanes(np.dtype(dtype).itemsize)


def workspace(x, arrays):
    """Scratch of an op that draws for every element of x (N, C, *spatial): lines of so many arrays for each task.

    Nothing where there are no positions, for then both orders are one.
    """
    if len(x.shape) < 3:
        return {}
    width = lanes_of(x.dtype)
    units = x.shape[0] * -(-x.shape[1] // width) * -(-math.prod(x.shape[2:]) // LINE)
    return {"lines": Array((max(1, min(TASKS, units)), arrays, width * ROOM))}


@inline
def units_of(shape):
    """Parts of an array."""
    return shape[0] * ((shape[1] + LINE - 1) // LINE) * ((shape[2] + LANES - 1) // LANES)


@inline
def part_of(unit, shape):
    """Where part `unit` begins in memory, its lines, the number of its first element, what lies between channels in
    lines, its positions and channels. Channels change fastest, so that neighbours read the same lines of memory."""
    _, positions, channels = shape
    blocks = (channels + LANES - 1) // LANES
    pieces = (positions + LINE - 1) // LINE
    row = unit // blocks
    c = (unit - row * blocks) * LANES
    n = row // pieces
    s = (row - n * pieces) * LINE
    length, count = min(LINE, positions - s), min(LANES, channels - c)
    whole = length == positions
    at = (n * positions + s) * channels + c
    first = (n * channels + c) * positions + s
    return at, 1 if whole else count, first, positions if whole else ROOM, length, count


@inline
def groups_of(first, k, positions, stride, length, count):
    """Of line k: where its first group lies, the group's number, and the number after that of the last."""
    begin = first + k * positions
    end = begin + (count * length if stride == positions else length)
    return GROUP + k * ROOM - begin % GROUP, begin // GROUP, (end + GROUP - 1) // GROUP


@inline
def lines_in(x, at, channels, line, stride, length, count):
    """line[GROUP + c * stride + j] = x[at + j * channels + c] for c < count, j < length."""
    turn(x, at, channels, line, GROUP, stride, length, count)


@inline
def lines_out(line, stride, y, at, channels, length, count):
    """The way back."""
    turn(line, GROUP, stride, y, at, channels, count, length)


@inline
def integers_out(line, stride, y, at, channels, length, count, beside):
    """lines_out of integers. beside: the array of floating-point numbers that they belong to."""
    turn_integers(line, GROUP, stride, y, at, channels, count, length, beside)
