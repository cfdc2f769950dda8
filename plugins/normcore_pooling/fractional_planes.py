"""Fractional max pooling on the CPU, channels first: x (P, D, H, W), P planes whose windows start at places of their own.

Kept is the flat position of each maximum in its map. A row of outputs is the maximum down the rows that it covers,
then across; between equal values the first position in the map wins, between NaN the last, as in a walk over the window.
"""

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange
from normcore.kernels.unaliased import unaliased
from normcore_pooling.interval_windows import start_of
from normcore_pooling.max_planes import clear
from normcore_pooling.max_rows import down_more, down_one, down_three, down_two

TASKS = 64  # more than any desktop has threads


def scratch_arrays(size, out):
    """What forward_planes needs; both of three dimensions."""
    return {
        "starts": Array((TASKS * sum(out),), "uint64"),
        "columns": Array((TASKS * size[2],)),
        "rows": Array((TASKS * size[2],), "uint32"),
        "found": Array((TASKS * out[2],), "uint32"),
    }


def scratch_of(t, planes, size, out):
    """The same, cut for as many tasks as there are planes."""
    tasks = max(1, min(TASKS, planes))
    widths = (("starts", sum(out)), ("columns", size[2]), ("rows", size[2]), ("found", out[2]))
    return tuple(getattr(t, name)[: tasks * width].reshape(tasks, width) for name, width in widths)


@inline
def all_starts(starts, offsets, size, out, kernel):
    """Where the windows of a plane start along each dimension, one after the other; offsets (3,)."""
    at = 0
    for axis in range(3):
        for o in range(out[axis]):
            starts[at + o] = np.uint64(start_of(o, size[axis], out[axis], kernel[axis], 1, offsets[axis]))
        at += out[axis]


@inline
def down(x, v, vi, d0, h0, kernel):
    """The maxima of the rows x (D, H, W) that a window starting at d0, h0 covers, and where their rows start."""
    width = x.shape[2]
    for kd in range(kernel[0]):
        d = d0 + kd
        tap = (d * x.shape[1] + h0) * width
        k = 0
        if kd == 0:
            if kernel[1] >= 3:
                down_three(x[d, h0], x[d, h0 + 1], x[d, h0 + 2], v, vi, tap, width)
                k = 3
            elif kernel[1] == 2:
                down_two(x[d, h0], x[d, h0 + 1], v, vi, tap, tap + width)
                k = 2
            else:
                down_one(x[d, h0], v, vi, tap)
                k = 1
        while k < kernel[1]:
            down_more(x[d, h0 + k], v, vi, tap + k * width)
            k += 1


@inline
def across_one(v, vi, starts, y, found):
    """Unsigned indices, here and below: for signed ones Numba tests the sign, which stops vectorization."""
    for o in range(y.size):
        w = starts[o]
        y[o] = v[w]
        found[o] = vi[w] + np.uint32(w)


@inline
def across_more(v, vi, starts, y, found, k):
    for o in range(y.size):
        w = starts[o] + np.uint64(k)
        value, best = v[w], y[o]
        place, kept = np.uint32(vi[w] + np.uint32(w)), found[o]
        t = (value > best) | ((value == best) & (place < kept))
        t |= (value != value) & ((best == best) | (place > kept))
        y[o] = value if t else best
        found[o] = place if t else kept


@inline
def keep(found, arg):
    for o in range(arg.size):
        arg[o] = found[o]


@cpu
def forward_planes(x, y, arg, offsets, starts, columns, rows, found, size, out, kernel):
    """y, arg (P, OD, OH, OW), offsets (P, 3); starts, columns, rows, found: scratch, a line for each task."""
    tasks = starts.shape[0]
    planes = x.shape[0]
    for task in prange(tasks):
        own, v = unaliased(starts[task]), unaliased(columns[task])
        vi, places = unaliased(rows[task]), unaliased(found[task])
        for p in range(planes * task // tasks, planes * (task + 1) // tasks):
            all_starts(own, offsets[p], size, out, kernel)
            across = own[out[0] + out[1] :]
            for od in range(out[0]):
                for oh in range(out[1]):
                    down(x[p], v, vi, np.int64(own[od]), np.int64(own[out[0] + oh]), kernel)
                    line = y[p, od, oh]
                    across_one(v, vi, across, line, places)
                    for k in range(1, kernel[2]):
                        across_more(v, vi, across, line, places, k)
                    keep(places, arg[p, od, oh])


@inline
def scatter(dy, arg, dx):
    for o in range(dy.size):
        dx[np.uint64(arg[o])] += dy[o]


@cpu
def backward_planes(dy, arg, dx):
    """dy, arg (P, outputs), dx (P, places): a plane has one owner, who adds in the order of the windows."""
    for p in prange(dx.shape[0]):
        clear(dx[p])
        scatter(dy[p], arg[p], dx[p])
