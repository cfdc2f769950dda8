"""How the kernels of channel statistics see arrays, and how work is cut into tasks: by shapes alone."""

import math

from normcore.kernels.streaming import STREAM_STEP

CHUNK = 65536  # values of a channels-last task, about: 256 KB, so that merging the tasks' sums costs little
# Rows up to which a task takes columns instead, if there are at least 256 of those: they fit the L2 cache.
COLUMNS = 1024
WIDTH = 512  # values of a line, about: 2 KB, so that vectors are long and all a line needs fits the L1 cache


def as_channels(x, y, format):
    """x and y as (M, C) when a row holds all channels, else as (N, C, L); and which of the two."""
    if format == "channels_last" or x.ndim == 2:
        shape = (math.prod(x.shape[:-1]), x.shape[-1])
        return x.reshape(shape), y.reshape(shape), True
    shape = (x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    return x.reshape(shape), y.reshape(shape), False


def by_columns(x):
    return 0 < x.shape[0] <= COLUMNS and x.shape[1] >= 256


def task_columns(x):
    """Columns of a task: 256 KB of x, in whole cache lines."""
    return max(64, min(256, CHUNK // x.shape[0] // 64 * 64))


def line_width(channels, rows):
    """Values of a line of whole rows: about WIDTH, and where that can be, a number of whole stretches to write at once."""
    counts = range(1, max(1, min(rows, WIDTH // max(1, channels))) + 1)
    return channels * max(counts, key=lambda k: (k * channels % STREAM_STEP == 0, k))


def as_lines(x, line):
    """A channels-last array as whole lines (R, W) and the shorter tail."""
    flat = x.reshape(-1)
    width = line.shape[1]
    whole = flat.size // width
    return flat[: whole * width].reshape(whole, width), flat[whole * width :]
