"""Max pooling on the CPU, channels first, with as many planes side by side as a vector has lanes.

Rows of a map are too short for vectors, and windows with a stride pick every other element of them. So LANES planes are
turned into LANES channels of one map channels last, a band of rows at a time, pooled as such, and turned back.
"""

from dataclasses import dataclass

from normcore import Array
from normcore.kernels import cpu, inline, prange
from normcore.kernels.gather import pick_largest, pick_smallest
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.tile import lanes
from normcore.kernels.transpose import turn, turn_integers
from normcore_pooling.max_rows import MAXIMUM, whole_windows

LANES = 16  # elements of a vector
BAND = 2048  # positions of a map that are pooled at once: 128 KB in all lanes, for the L2 cache
TASKS = 64  # that share the work, each with its own scratch; more than any desktop has threads


@inline
def inside(start, kernel, dilation, size):
    """(first, end) of the taps of a window that lie in 0 <= start + k * dilation < size."""
    first = max(0, (-start + dilation - 1) // dilation)
    return first, min(kernel, (size - start + dilation - 1) // dilation)


@inline
def pool_run(s, values, taps, to, terms, at, tap, planes, rows, columns, steps, kernel, run, x_step):
    """`run` windows of planes x rows x columns taps, x_step positions apart, the first from position `at` and tap `tap`
    on. steps: positions between neighbouring planes, rows and columns of taps."""
    count = 0
    for d in range(planes):
        for h in range(rows):
            for w in range(columns):
                terms[0, count] = (at + d * steps[0] + h * steps[1] + w * steps[2]) * LANES
                terms[1, count] = tap + (d * kernel[1] + h) * kernel[2] + w
                count += 1
    if MAXIMUM:
        pick_largest(values, taps, to, s, terms[0], terms[1], count, LANES, run, LANES, x_step * LANES, 0)
    else:
        pick_smallest(values, taps, to, s, terms[0], terms[1], count, LANES, run, LANES, x_step * LANES, 0)


@inline
def ask_for(x, at, first, last, size, run):
    """Prefetches `run` elements from `at` on of every depth of planes first to last - 1."""
    for i in range(first, last):
        for d in range(size[0]):
            prefetch_lines(x, at + (i * size[0] + d) * size[1] * size[2], run)


@inline
def band(
    x, coming, coming_run, s, values, taps, terms, size, out, kernel, stride, before, dilation, first_row, rows, top,
    height,
):  # fmt: skip
    """Output rows first_row .. first_row + rows - 1 of every plane's depth, s holding input rows top .. top +
    height. Meanwhile asks for the `coming_run` elements from `coming` on, of every plane, that the next band reads:
    else memory would wait while windows are compared."""
    low, high = whole_windows(size[2], out[2], kernel[2], stride[2], before[2], dilation[2])
    steps = (dilation[0] * height * size[2], dilation[1] * size[2], dilation[2])
    lines = out[0] * rows
    for line in range(lines):
        ask_for(x, coming, LANES * line // lines, LANES * (line + 1) // lines, size, coming_run)
        od = line // rows
        oh = first_row + line - od * rows
        d0 = od * stride[0] - before[0]
        d, d_end = inside(d0, kernel[0], dilation[0], size[0])
        h0 = oh * stride[1] - before[1]
        h, h_end = inside(h0, kernel[1], dilation[1], size[1])
        row = ((d0 + d * dilation[0]) * height + h0 + h * dilation[1] - top) * size[2] - before[2]
        tap = (d * kernel[1] + h) * kernel[2]
        ow = 0
        while ow < out[2]:
            w, w_end, run = 0, kernel[2], high - low
            if ow < low or ow >= high:
                w, w_end = inside(ow * stride[2] - before[2], kernel[2], dilation[2], size[2])
                run = 1
            at = row + ow * stride[2] + w * dilation[2]
            pool_run(
                s, values, taps, (line * out[2] + ow) * LANES, terms, at, tap + w, d_end - d, h_end - h, w_end - w,
                steps, kernel, run, stride[2],
            )  # fmt: skip
            ow += run


@inline
def part_of(unit, planes, size, out, kernel, stride, before, dilation, rows):
    """The first plane of a unit, its planes, first output row, output rows, first input row and input rows."""
    bands = (out[1] + rows - 1) // rows
    plane = unit // bands * LANES
    first = unit % bands * rows
    high = min(rows, out[1] - first)
    top = max(0, first * stride[1] - before[1])
    bottom = (first + high - 1) * stride[1] - before[1] + (kernel[1] - 1) * dilation[1] + 1
    return plane, min(LANES, planes - plane), first, high, top, min(size[1], bottom) - top


@cpu
def forward_lanes(
    x, y, arg, s, values, taps, terms, planes, size, out, kernel, stride, before, dilation, rows
):
    """x, y, arg flat, channels first. Scratch (tasks, ...): s for the input rows of a band of `rows` output rows,
    values and taps for its outputs, terms (tasks, 2, taps of a window)."""
    tasks = s.shape[0]
    units = (planes + LANES - 1) // LANES * ((out[1] + rows - 1) // rows)
    map_size = size[0] * size[1] * size[2]
    out_size = out[0] * out[1] * out[2]
    for task in prange(tasks):
        for unit in range(units * task // tasks, units * (task + 1) // tasks):
            plane, _, _, _, top, height = part_of(
                unit + 1, planes, size, out, kernel, stride, before, dilation, rows
            )
            coming, coming_run = plane * map_size + top * size[2], height * size[2]
            plane, count, first, high, top, height = part_of(
                unit, planes, size, out, kernel, stride, before, dilation, rows
            )
            run = height * size[2]
            for d in range(size[0]):
                at = plane * map_size + (d * size[1] + top) * size[2]
                turn(x, at, map_size, s[task], d * run * LANES, LANES, count, run)
            band(
                x, coming, coming_run, s[task], values[task], taps[task], terms[task], size, out, kernel, stride,
                before, dilation, first, high, top, height,
            )  # fmt: skip
            run = high * out[2]
            for od in range(out[0]):
                skipped = od * run * LANES
                at = plane * out_size + (od * out[1] + first) * out[2]
                turn(values[task], skipped, LANES, y, at, out_size, run, count)
                turn_integers(taps[task], skipped, LANES, arg, at, out_size, run, count, y)


@dataclass(frozen=True)
class Bands:
    """How maps are cut for forward_lanes: rows of outputs a band; elements of input and output of one band."""

    lanes: int
    rows: int
    tasks: int
    inputs: int
    outputs: int
    window: int

    def scratch(self, tap):
        """Of a layer's workspace; tap: the type of a tap's number."""
        outputs = self.tasks * self.outputs
        return {
            "band": Array((self.tasks * self.inputs,)),
            "best": Array((outputs,)),
            "taps": Array((outputs,), tap),
            "places": Array((self.tasks * 2 * self.window,), "int64"),
        }

    def arrays(self, t):
        """That scratch, a part for each task."""
        parts = (a.reshape(self.tasks, -1) for a in (t.band, t.best, t.taps))
        return *parts, t.places.reshape(self.tasks, 2, self.window)


def bands_of(found, planes, itemsize):
    """None where there are too few planes, or where a band's least input is far beyond the cache."""
    d, h, w = found
    n = lanes(itemsize)
    line = d.size * w.size
    rows = max(1, min(h.out, (BAND // line - h.span) // h.stride + 1))
    inputs = line * min(h.size, (rows - 1) * h.stride + h.span)
    if planes < n or inputs > 4 * BAND:
        return None
    units = -(-planes // n) * -(-h.out // rows)
    outputs = d.out * rows * w.out
    return Bands(n, rows, min(TASKS, units), inputs * n, outputs * n, d.kernel * h.kernel * w.kernel)
