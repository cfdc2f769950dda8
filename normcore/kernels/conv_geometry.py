"""How a convolution's matrix products are cut into blocks and tasks, from shapes alone.

Everything is three-dimensional here, (D, H, W) with leading ones. A Gather says which windows of a channels-last
image meet which rows of an output; GatherPlan, GradientPlan, PackPlan and MergePlan turn it into the numbers that
the kernels in gemm.py and conv_weights.py read and the sizes of the buffers that they need. The number of tasks
never depends on the number of threads.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from normcore.kernels.gemm import DIRECT, LINES, TAPS
from normcore.kernels.tile import TILE_ROWS, lanes, tile_columns

Three = tuple[int, int, int]
Four = tuple[int, int, int, int]

CHUNK = 512  # depth of one product: a panel's chunk (64 KB) and the windows' lines stay in L2
BUFFER_BYTES = 1 << 18  # input lines of one block
ROWS = 512  # output pixels of one block
DIRECT_ROWS = 192
STRIP = 128  # pixels of one rank-STRIP update of the weights' gradient: a panel of them (16 KB) stays in L1
TASKS = 32


def ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def round_up(a: int, b: int) -> int:
    return ceil_div(a, b) * b


@dataclass(frozen=True)
class Gather:
    """Output pixel o of a group meets input pixel o * step + first + tap * hop, for each of `taps`.

    image: D, H, W and channels of the input. grid: N and the output's D, H, W.
    """

    image: Four
    groups: int
    grid: Four
    taps: Three
    step: Three
    first: Three
    hop: Three

    @property
    def channels(self) -> int:
        return self.image[3] // self.groups

    @property
    def depth(self) -> int:
        return math.prod(self.taps) * self.channels

    @property
    def rows(self) -> int:
        return math.prod(self.grid)

    @property
    def is_pointwise(self) -> bool:
        """Windows are single pixels, side by side."""
        simple = self.taps == self.step == (1, 1, 1) and self.first == (0, 0, 0) and self.groups == 1
        return simple and self.image[:3] == self.grid[1:]

    @property
    def is_matrix(self) -> bool:
        """Row r of the windows is row r of the input: pointwise, one column of pixels (see as_matrix)."""
        return self.is_pointwise and self.grid[0] == self.grid[1] == self.grid[3] == 1

    def layout(self, lines: int) -> tuple[int, int, int, int, int, int]:
        """slots_h, slots_w, line_step, line_hop, pixel_step, pixel_hop of pack_lines' buffer."""

        def slots(axis: int, count: int) -> Three:
            span = (self.taps[axis] - 1) * self.hop[axis] + 1
            if self.step[axis] > span:  # windows apart: copy only what they cover
                return count * self.taps[axis], self.taps[axis], 1
            return (count - 1) * self.step[axis] + span, self.step[axis], self.hop[axis]

        (h, line_step, line_hop), (w, pixel_step, pixel_hop) = slots(1, lines), slots(2, self.grid[3])
        return h, w, line_step, line_hop, pixel_step, 1 if self.taps[2] < 2 else pixel_hop

    def numbers(self, lines: int) -> tuple[int, ...]:
        window = (*self.image, self.groups, *self.grid, *self.taps, *self.step, *self.first, *self.hop)
        return (*window, *self.layout(lines))

    def segment(self, lines: int) -> tuple[int, int]:
        """(number, length) of the runs of neighbouring elements that a window consists of."""
        merged = self.layout(lines)[5] == 1
        length = self.channels * (self.taps[2] if merged else 1)
        return math.prod(self.taps[:2]) * (1 if merged else self.taps[2]), length

    def buffer(self, planes: int, lines: int) -> int:
        """Elements of pack_lines' buffer for one block."""
        h, w, *_ = self.layout(lines)
        return max(0, planes * self.taps[0] * h * w * self.channels)

    def block(self, itemsize: int, most_rows: int) -> tuple[int, int]:
        """(planes, lines) of a block: few rows wasted in partial tiles and borders, blocks that share out evenly."""
        planes_all, height, width = self.grid[0] * self.grid[1], self.grid[2], self.grid[3]
        options = [(1, lines) for lines in sorted({ceil_div(height, n) for n in range(1, height + 1)})]
        options += [(planes, height) for planes in range(2, min(64, planes_all) + 1)]
        best, found = math.inf, (1, 1)
        for planes, lines in options:
            rows = planes * lines * width
            too_big = rows > most_rows or self.buffer(planes, lines) * itemsize > BUFFER_BYTES
            if too_big and best < math.inf:
                continue
            blocks = ceil_div(planes_all, planes) * ceil_div(height, lines)
            waste = round_up(rows, TILE_ROWS) * blocks / max(1, planes_all * height * width)
            border = self.buffer(planes, lines) / max(1, rows * self.channels)
            uneven = round_up(blocks, 8) / max(1, blocks) if blocks < 64 else 1
            cost = (waste + 0.03 * border) * uneven * (1 + TILE_ROWS / max(1, rows))
            if cost < best:
                best, found = cost, (planes, lines)
        return found


def as_matrix(gather: Gather) -> Gather:
    """The same rows as one column of pixels, if windows are single pixels side by side; else the gather itself."""
    if not gather.is_pointwise:
        return gather
    rows, one, zero = gather.rows, (1, 1, 1), (0, 0, 0)
    return Gather((1, rows, 1, gather.image[3]), 1, (1, 1, rows, 1), one, one, zero, one)


def _numbers(*parts: int) -> np.ndarray:
    found = np.array(parts, np.int64)
    found.flags.writeable = False
    return found


@dataclass(frozen=True)
class GatherPlan:
    """Buffers and numbers of one gather_gemm. place: the output's D, H, W, channels; rows land place_step apart."""

    gather: Gather
    place: Four
    place_step: Three
    place_first: Three
    itemsize: int

    @property
    def panels_size(self) -> int:
        columns = self.place[3] // self.gather.groups
        nr = tile_columns(self.itemsize)
        return self.gather.groups * ceil_div(columns, nr) * (self.gather.depth + 1) * nr

    @cached_property
    def _cut(self) -> tuple[int, ...]:
        """planes, lines, row tasks, column tasks, padded rows, mode."""
        g = self.gather
        panels = ceil_div(self.place[3] // g.groups, tile_columns(self.itemsize))
        if g.is_matrix:
            mode = DIRECT
            tiles = ceil_div(g.rows, TILE_ROWS)
            blocks = max(ceil_div(g.rows, DIRECT_ROWS), min(ceil_div(8, panels), tiles))
            planes, lines = 1, max(1, ceil_div(tiles, max(1, blocks))) * TILE_ROWS
        else:
            mode = LINES
            planes, lines = g.block(self.itemsize, ROWS)
        blocks = ceil_div(g.grid[0] * g.grid[1], planes) * ceil_div(g.grid[2], lines)
        row_tasks = min(TASKS, blocks)
        column_tasks = min(panels, ceil_div(16, max(1, row_tasks))) if row_tasks < 8 else 1
        return planes, lines, row_tasks, column_tasks, round_up(planes * lines * g.grid[3], TILE_ROWS), mode

    @cached_property
    def _per_task(self) -> tuple[int, int]:
        """Elements of scratch, entries of the table."""
        g = self.gather
        planes, lines, _, _, padded, mode = self._cut
        own = g.buffer(planes, lines) if mode == LINES else 0
        if math.prod(self.place_step) != 1:
            own += padded * round_up(self.place[3] // g.groups, tile_columns(self.itemsize))
        return round_up(own + TILE_ROWS, 16), padded + math.prod(g.taps)

    @property
    def tasks(self) -> int:
        return self._cut[2] * self._cut[3]

    @property
    def scratch_size(self) -> int:
        return self.tasks * self._per_task[0]

    @property
    def table_size(self) -> int:
        return self.tasks * self._per_task[1]

    def numbers(self, fused: int) -> np.ndarray:
        """fused: NO_EPILOGUE, IN_PLACE or APART of gemm.py."""
        return self._all_numbers[fused]

    @cached_property
    def _all_numbers(self) -> tuple[np.ndarray, ...]:
        planes, lines, row_tasks, column_tasks, _, mode = self._cut
        per_task, table = self._per_task
        window = (*self.gather.numbers(lines), *self.place, *self.place_step, *self.place_first)
        tile = (TILE_ROWS, tile_columns(self.itemsize), planes, lines)
        cut = (row_tasks, column_tasks, per_task, table, mode, CHUNK)
        return tuple(_numbers(*window, *tile, *cut, fused) for fused in range(3))


SUMS = 1 << 19  # bytes of a weight gradient's partial sums that are merged in no time


@dataclass(frozen=True)
class GradientPlan:
    """Buffers and numbers of weight_gradient and merge_gradient. stored: channels of the output."""

    gather: Gather
    stored: int
    itemsize: int

    @cached_property
    def _cut(self) -> dict[str, int]:
        g, nr = self.gather, tile_columns(self.itemsize)
        columns = self.stored // g.groups
        if g.is_matrix:  # a partial tile reads past its row's end, which only a copy allows
            mode = LINES if g.channels % TILE_ROWS else DIRECT
            planes, lines = 1, max(1, min(256, g.rows))
        else:
            mode = TAPS if g.channels == g.step[2] == 1 < g.taps[2] else LINES
            planes, lines = g.block(self.itemsize, ROWS)
        segments, length = (1, g.depth) if mode == TAPS else g.segment(lines)
        padded_segment = round_up(length, TILE_ROWS)
        tiles = segments * padded_segment // TILE_ROWS
        tile_tasks = 1 if mode == TAPS else ceil_div(tiles, 24)
        blocks = ceil_div(g.grid[0] * g.grid[1], planes) * ceil_div(g.grid[2], lines)
        padded = round_up(planes * lines * g.grid[3], TILE_ROWS)
        ldc = round_up(columns, nr)
        least = g.rows // 1024
        if g.is_matrix:  # few rows are cut further where the chunks' sums are small
            least = max(least, min(g.rows // 256, SUMS // (segments * padded_segment * ldc * self.itemsize)))
        chunks = max(1, min(ceil_div(16, tile_tasks * g.groups), least, blocks))
        if g.is_matrix:  # then to copy the gradient twice is little
            tile_tasks = max(tile_tasks, min(ceil_div(4, chunks * g.groups), tiles // 4))
        # whole vectors of the gradient are read where they lie, unless its lines are so long that they collide in L1
        fits = columns % nr in (0, nr // 2) and self.stored * self.itemsize <= 512
        in_place = int(mode != DIRECT and fits)
        own = 0 if mode == DIRECT else g.buffer(planes, lines)
        per_task = round_up(own + TILE_ROWS + (0 if in_place else padded * ldc) + ldc, 16)
        table = padded + (padded_segment + 1 if mode == TAPS else math.prod(g.taps))
        total = g.groups * segments * padded_segment * ldc
        return dict(
            mode=mode, planes=planes, lines=lines, length=length, padded_segment=padded_segment, tile_tasks=tile_tasks,
            chunks=chunks, in_place=in_place, per_task=per_task, table=table, total=total,
        )  # fmt: skip

    @property
    def tasks(self) -> int:
        return self._cut["chunks"] * self._cut["tile_tasks"] * self.gather.groups

    @property
    def scratch_size(self) -> int:
        return self.tasks * self._cut["per_task"]

    @property
    def table_size(self) -> int:
        return self.tasks * self._cut["table"]

    @property
    def partial_size(self) -> int:
        return self._cut["chunks"] * self._cut["total"]

    @property
    def bias_size(self) -> int:
        return self._cut["chunks"] * self.stored

    @cached_property
    def numbers(self) -> np.ndarray:
        c = self._cut
        tile = (self.stored, TILE_ROWS, tile_columns(self.itemsize), c["planes"], c["lines"])
        tasks = (c["chunks"], c["tile_tasks"], c["per_task"], c["table"])
        rest = (c["mode"], c["padded_segment"], STRIP, c["in_place"])
        return _numbers(*self.gather.numbers(c["lines"]), *tile, *tasks, *rest)

    @cached_property
    def merge_numbers(self) -> np.ndarray:
        c, g, nr = self._cut, self.gather, tile_columns(self.itemsize)
        columns = self.stored // g.groups
        jobs = g.groups * ceil_div(columns, nr) * ceil_div(g.channels, 16)
        taps, width = math.prod(g.taps), lanes(self.itemsize)
        chunks = (c["chunks"], c["length"], c["padded_segment"], c["total"])
        return _numbers(g.groups, columns, g.channels, taps, nr, width, *chunks, jobs)


@dataclass(frozen=True)
class PackPlan:
    """Numbers of pack_weights. Element (group, column, inner, tap) of the panels is the weight at
    group * strides[0] + column * strides[1] + inner * strides[2] + (tap_first + tap * tap_step in the kernel)."""

    groups: int
    columns: int
    inner: int
    taps: Three
    tap_first: Three
    tap_step: Three
    kernel: Three
    strides: Three
    itemsize: int

    @cached_property
    def numbers(self) -> np.ndarray:
        nr = tile_columns(self.itemsize)
        jobs = self.groups * ceil_div(self.columns, nr) * ceil_div(self.inner, 16)
        sizes = (self.groups, self.columns, self.inner, nr, lanes(self.itemsize))
        return _numbers(
            *sizes, *self.taps, *self.tap_first, *self.tap_step, *self.kernel, *self.strides, jobs
        )
