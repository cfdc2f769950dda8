"""Max pooling on the CPU, channels first, with as many planes side by side as a vector has lanes.

Rows of a map are too short for vectors, and windows with a stride pick every other element of them. So LANES planes are
transposed, a band of rows at a time: then a position of all of them is one vector, each window is a few of those, and
the outputs are transposed back.
"""

from dataclasses import dataclass

from normcore import Array
from normcore.kernels import cpu, inline, prange
from normcore.kernels.extremes import extreme_of_window
from normcore.kernels.tile import lanes
from normcore.kernels.vector_moves import transpose_block
from normcore_pooling.max_rows import MAXIMUM, TAP

LANES = 16  # elements of a vector
BAND = 2048  # positions of a map that are pooled at once: 128 KB in all lanes, for the L2 cache
TASKS = 64  # that share the work, each with its own scratch; more than any desktop has threads


@inline
def lanes_in(x, at, apart, count, length, s, s_at):
    """s[s_at + j * LANES + i] = x[at + i * apart + j] for planes i < count and positions j < length."""
    if count == LANES and length >= LANES:
        for j in range(0, length, LANES):
            k = min(j, length - LANES)
            transpose_block(s, s_at + k * LANES, LANES, x, at + k, apart)
    else:
        for j in range(length):
            for i in range(count):
                s[s_at + j * LANES + i] = x[at + i * apart + j]


@inline
def lanes_out(s, y, at, apart, count, length):
    """The way back, s from its beginning."""
    if count == LANES and length >= LANES:
        for j in range(0, length, LANES):
            k = min(j, length - LANES)
            transpose_block(y, at + k, apart, s, k * LANES, LANES)
    else:
        for j in range(length):
            for i in range(count):
                y[at + i * apart + j] = s[j * LANES + i]


@inline
def taps_out(wide, arg):
    for o in range(arg.size):
        arg[o] = TAP(wide[o])


@inline
def inside(start, kernel, dilation, size):
    """(first, end) of the taps of a window that lie in 0 <= start + k * dilation < size."""
    first = max(0, (-start + dilation - 1) // dilation)
    return first, min(kernel, (size - start + dilation - 1) // dilation)


@inline
def band(s, values, taps, size, out, kernel, stride, before, dilation, first_row, rows, top, height):
    """Output rows first_row .. first_row + rows - 1 of every plane's depth, s holding input rows top .. top +
    height."""
    to = 0
    for od in range(out[0]):
        d0 = od * stride[0] - before[0]
        d, d_end = inside(d0, kernel[0], dilation[0], size[0])
        for oh in range(first_row, first_row + rows):
            h0 = oh * stride[1] - before[1]
            h, h_end = inside(h0, kernel[1], dilation[1], size[1])
            row = ((d0 + d * dilation[0]) * height + h0 + h * dilation[1] - top) * size[2]
            tap = (d * kernel[1] + h) * kernel[2]
            for ow in range(out[2]):
                w0 = ow * stride[2] - before[2]
                w, w_end = inside(w0, kernel[2], dilation[2], size[2])
                extreme_of_window(
                    s,
                    (row + w0 + w * dilation[2]) * LANES,
                    values,
                    taps,
                    to,
                    d_end - d,
                    h_end - h,
                    w_end - w,
                    dilation[0] * height * size[2] * LANES,
                    dilation[1] * size[2] * LANES,
                    dilation[2] * LANES,
                    tap + w,
                    kernel[1] * kernel[2],
                    kernel[2],
                    MAXIMUM,
                )
                to += LANES


@cpu
def forward_lanes(
    x, y, arg, s, values, taps, turned, planes, size, out, kernel, stride, before, dilation, rows
):
    """x, y, arg flat, channels first. Scratch (tasks, ...): s for the input rows of a band of `rows` output rows,
    values, taps and turned for its outputs."""
    tasks = s.shape[0]
    groups = (planes + LANES - 1) // LANES
    bands = (out[1] + rows - 1) // rows
    step = (groups * bands + tasks - 1) // tasks
    map_size = size[0] * size[1] * size[2]
    out_size = out[0] * out[1] * out[2]
    for task in prange(tasks):
        for unit in range(task * step, min(groups * bands, task * step + step)):
            plane = unit // bands * LANES
            count = min(LANES, planes - plane)
            first = unit % bands * rows
            high = min(rows, out[1] - first)
            top = max(0, first * stride[1] - before[1])
            bottom = (first + high - 1) * stride[1] - before[1] + (kernel[1] - 1) * dilation[1] + 1
            height = min(size[1], bottom) - top
            run = height * size[2]
            for d in range(size[0]):
                at = plane * map_size + (d * size[1] + top) * size[2]
                lanes_in(x, at, map_size, count, run, s[task], d * run * LANES)
            band(
                s[task],
                values[task],
                taps[task],
                size,
                out,
                kernel,
                stride,
                before,
                dilation,
                first,
                high,
                top,
                height,
            )
            run = high * out[2]
            for od in range(out[0]):
                skipped = od * run * LANES
                at = plane * out_size + (od * out[1] + first) * out[2]
                lanes_out(values[task, skipped:], y, at, out_size, count, run)
                lanes_out(taps[task, skipped:], turned[task], 0, run, count, run)
                for i in range(count):
                    taps_out(
                        turned[task, i * run : i * run + run],
                        arg[at + i * out_size : at + i * out_size + run],
                    )


@dataclass(frozen=True)
class Bands:
    """How maps are cut for forward_lanes: rows of outputs a band; elements of input and output of one band."""

    lanes: int
    rows: int
    tasks: int
    inputs: int
    outputs: int
    wide: str

    def scratch(self):
        """Of a layer's workspace."""
        outputs = self.tasks * self.outputs
        return {
            "band": Array((self.tasks * self.inputs,)),
            "best": Array((outputs,)),
            "taps": Array((outputs,), self.wide),
            "turned": Array((outputs,), self.wide),
        }


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
    return Bands(n, rows, min(TASKS, units), inputs * n, outputs * n, f"int{8 * itemsize}")
