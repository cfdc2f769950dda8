"""Max pooling on the CPU, channels first, of windows that lie side by side in a row and reach over no edge.

Maxima are taken down the rows that a window covers first, in vectors however short the rows are: a vector that reaches
into the next row is overwritten by that. What is left of a band of rows lies together, and so do its outputs: across,
they are one loop.
"""

from dataclasses import dataclass

import numpy as np

from normcore import Array
from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import AHEAD, prefetch_lines
from normcore.kernels.streaming import STREAM_BLOCK, leaves_cache, stack_block, stream_run
from normcore.kernels.unaliased import unaliased
from normcore.kernels.window import window
from normcore_pooling.max_rows import TAP, better, first_of

# A window's, constants of each compiled kernel: so a vector's maxima stay in registers.
WIDTH = 2
HEIGHT = 2
ROWS = 2  # height times depth
WIDEST = 4  # wider ones leave little to do across
MOST_ROWS = 9
VECTOR = 16  # elements that are compared down at once
BAND = 2048  # elements of a row's maxima in scratch: 16 KB with their taps, for the first-level cache
LONG, FEW = 32, 8  # elements of a row that is asked for alone, and how many shorter ones are together
TASKS = 64  # that share the work, each with its own scratch; more than any desktop has threads


@inline
def down_block(x, plane, row, q, taps):
    """q: maxima of x[i + j * plane + k * row] over j and k < HEIGHT; taps: which, as numbers of x's type, which are as
    wide as values. Unsigned indices: for signed ones Numba tests the sign."""
    for i in range(q.size):
        best, tap = x[i], real(0)
        for k in range(1, ROWS):
            value = x[np.uint64(k // HEIGHT * plane + k % HEIGHT * row) + np.uint64(i)]
            t = better(value, best)
            best = value if t else best
            tap = real(k * WIDTH) if t else tap
        q[i] = best
        taps[i] = tap
        line_by_line()


@inline(force=True)  # else LLVM does not see that nothing overlaps q and taps
def down(x, at, plane, row, count, q, taps, to):
    """Maxima down the window whose first row is x[at : at + count], into q[to : to + count]."""
    if count < VECTOR and at + (ROWS // HEIGHT - 1) * plane + (HEIGHT - 1) * row + VECTOR > x.size:
        # Behind x's last row there is nothing to read.
        down_block(window(x, at, x.size), plane, row, window(q, to, to + count), window(taps, to, to + count))
        return
    for i in range(0, count, VECTOR):
        c = max(0, min(i, count - VECTOR))
        v, k = window(q, to + c, to + c + VECTOR), window(taps, to + c, to + c + VECTOR)
        down_block(window(x, at + c, x.size), plane, row, v, k)


@inline(force=True)
def across(q, taps, y, arg):
    """y, arg (n,): the maxima of WIDTH neighbours in q (n * WIDTH,) each, and their taps."""
    for i in range(y.size):
        best, tap = q[WIDTH * i], taps[WIDTH * i]
        for k in range(1, WIDTH):
            value, next_tap = q[WIDTH * i + k], taps[WIDTH * i + k] + real(k)
            t = first_of(value, next_tap, best, tap)
            best = value if t else best
            tap = next_tap if t else tap
        y[i] = best
        arg[i] = TAP(tap)


@cpu
def forward_tiles(x, y, arg, scratch, size, out, stride, rows):
    """x, y, arg flat, channels first; scratch (tasks, 2, n). A unit is `rows` rows of outputs, of whatever planes."""
    tasks = scratch.shape[0]
    lines = y.size // out[2]
    units = (lines + rows - 1) // rows
    count = out[2] * WIDTH
    plane = size[1] * size[2]
    wide = stride[1] * size[2] * (ROWS // HEIGHT)
    group = 1 if size[2] >= LONG else FEW
    far = leaves_cache(y) and rows * out[2] <= STREAM_BLOCK
    for task in prange(tasks):
        q, taps = unaliased(scratch[task, 0]), unaliased(scratch[task, 1])
        block = stack_block(y)
        begin, end = units * task // tasks, units * (task + 1) // tasks
        line = begin * rows
        layer = line // out[1]
        first = layer // out[0]
        od, oh = layer - first * out[0], line - layer * out[1]
        while line < min(lines, end * rows):
            some = min(rows, lines - line)
            for i in range(some):
                at = (first * size[0] + od * stride[0]) * plane + oh * stride[1] * size[2]
                if i & (group - 1) == 0:
                    prefetch_lines(x, at + AHEAD, group * wide)
                down(x, at, plane, size[2], count, q, taps, i * count)
                oh += 1
                if oh == out[1]:
                    oh = 0
                    od += 1
                    if od == out[0]:
                        od = 0
                        first += 1
            lo, hi = line * out[2], (line + some) * out[2]
            v, k = window(q, 0, some * count), window(taps, 0, some * count)
            if far:
                across(v, k, window(block, 0, hi - lo), window(arg, lo, hi))
                stream_run(y, lo, block, hi - lo)
            else:
                across(v, k, window(y, lo, hi), window(arg, lo, hi))
            line += some


@dataclass(frozen=True)
class Tiles:
    """How outputs are cut for forward_tiles: rows of a unit; elements of a task's scratch; the kernel's constants."""

    rows: int
    tasks: int
    elements: int
    constants: dict[str, int]

    def scratch(self):
        """Of a layer's workspace."""
        return {"band": Array((self.tasks * 2 * self.elements,))}

    def array(self, t):
        """That scratch, a part for each task."""
        return t.band.reshape(self.tasks, 2, self.elements)


def tiles_of(found, planes):
    """None where windows overlap in a row or reach over an edge, or hold no row but one."""
    d, h, w = found
    inside = all(
        f.before == 0 and f.dilation == 1 and (f.out - 1) * f.stride + f.kernel <= f.size for f in found
    )
    count = w.out * w.kernel
    if (
        not inside
        or not w.stride == w.kernel <= WIDEST
        or not 1 < d.kernel * h.kernel <= MOST_ROWS
        or count > BAND
    ):
        return None
    rows = max(1, BAND // max(1, count))
    units = -(-planes * d.out * h.out // rows)
    constants = {"WIDTH": w.kernel, "HEIGHT": h.kernel, "ROWS": d.kernel * h.kernel}
    return Tiles(rows, max(1, min(TASKS, units)), rows * count + VECTOR, constants)
