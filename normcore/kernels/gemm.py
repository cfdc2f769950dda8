"""Matrix products for convolution and dense: a gathered matrix times packed weights, and its gradient.

    forward, and the gradient to the input:   output[pixel, j] = start[j] + sum_k window[pixel, k] * panels[k, j]
    the gradient to the weights:              partial[k, j] = sum_pixel window[pixel, k] * gradient[pixel, j]

The gathered matrix never exists: its rows are windows of a channels-last input, and the register tile reads them
through a table of offsets from a small padded copy of a few input lines (conv_packing.py), or from the input
itself where a row is a row (dense, 1 x 1). Work is cut by shape alone (conv_geometry.py) and every sum has one
order, so the result has the same bits for any number of threads. Nothing is allocated: buffers come from the
caller, each task has its own piece of `scratch` and `table`.

The kernels take their geometry as one int64 array `numbers`, in the order that `_window` and they read it.
The method of packed panels and register tiles: Goto and van de Geijn 2008, "Anatomy of high-performance matrix
multiplication"; reading windows through a table of offsets: Dukhan 2019, arXiv:1907.02129.
"""

import numpy as np

from normcore.kernels import cpu, epilogue, inline, prange
from normcore.kernels.conv_packing import block_extent, pack_lines, row_table, segment_table
from normcore.kernels.prefetch import NEXT, prefetch_lines
from normcore.kernels.tile import tile_rows_1, tile_rows_2
from normcore.kernels.vector_moves import copy_run

LINES, TAPS, DIRECT = (
    0,
    1,
    2,
)  # windows from pack_lines, the same tap by tap (gradient only), rows of the input


# Where the fused epilogue writes: nowhere, over what it reads, to another array.
NO_EPILOGUE, IN_PLACE, APART = 0, 1, 2


@inline
def window_numbers(n):
    """image (D, H, W, stored), groups, grid (N, D, H, W), taps, step, first, hop, layout."""
    return (
        (n[0], n[1], n[2], n[3]),
        n[4],
        (n[5], n[6], n[7], n[8]),
        (n[9], n[10], n[11]),
        (n[12], n[13], n[14]),
        (n[15], n[16], n[17]),
        (n[18], n[19], n[20]),
        (n[21], n[22], n[23], n[24], n[25], n[26]),
    )


@inline
def multiply_rows(
    a, a_at, table, rows_at, segments_at, segments, length, panels, at, panel_size, c, c_at, ldc, rows, columns, mr, nr, chunk,
    ahead,
):  # fmt: skip
    """c = start + windows @ panels for all tiles of a block: panel by panel, at most `chunk` of the depth at a time.

    ahead, unless it is 0: a row's distance in `a` from the one that the next block has in its place.
    """
    depth = segments * length
    panel_count = (columns + nr - 1) // nr
    for left in range(columns, 0, -nr):
        panel = panel_count - (left + nr - 1) // nr
        k = 0
        while k == 0 or k < depth:
            # whole segments, or a part of one that is longer than a chunk
            s = k // max(length, 1)
            inside = k - s * length
            run = min(length, chunk, length - inside)
            count = min(max(chunk // max(length, 1), 1), segments - s)
            b_at = at + nr + k * nr
            for r in range(0, rows, mr):
                if ahead and k == 0:
                    # A tile reads a line of each of its rows in turn, which the processor does not foresee. Each panel
                    # asks for its share of them: who asks for many lines at once waits for most of them.
                    lines = min(mr, rows - r)
                    low, high = (
                        lines * length * panel // panel_count,
                        lines * length * (panel + 1) // panel_count,
                    )
                    prefetch_lines(a, a_at + table[rows_at + r] + ahead + low, high - low)
                    if ldc > length:  # and what it writes is read before, if that is more
                        for i in range(rows + r, rows + r + lines):
                            prefetch_lines(c, c_at + i * ldc, min(nr, left))
                if left * 2 > nr:
                    tile_rows_2(
                        a, a_at + inside, table, rows_at + r, segments_at + s, count, run, panels, b_at, nr,
                        panels, at, c, c_at + r * ldc, ldc, k == 0, rows - r, left,
                    )  # fmt: skip
                else:
                    tile_rows_1(
                        a, a_at + inside, table, rows_at + r, segments_at + s, count, run, panels, b_at, nr,
                        panels, at, c, c_at + r * ldc, ldc, k == 0, rows - r, left,
                    )  # fmt: skip
            k += max(count * run, 1)
        at += panel_size
        c_at += nr


@inline
def finish(c, y, fused, at, ldc, rows, columns, e):
    """The fused epilogue on rows that are still in cache: y = epilogue(c).

    Two loops, for where a loop's arrays are one (IN_PLACE) LLVM's comparison of addresses leads to scalar code.
    """
    if columns == ldc:  # one line, so that less is left over beside whole vectors
        columns *= rows
        rows = min(rows, 1)
    for row in range(rows):
        low = at + row * ldc
        line = y[low : low + columns]
        if fused == IN_PLACE:
            for j in range(line.size):
                line[j] = epilogue(line[j], e)
        else:
            before = c[low : low + columns]
            for j in range(line.size):
                line[j] = epilogue(before[j], e)


@inline
def scatter_rows(output, source, at, width, row, rows, column, grid, place, place_step, place_first):
    """Rows of a block to pixels place_step apart (one phase of a strided convolution's gradient)."""
    for r in range(rows):
        line = (row + r) // grid[3]
        plane = line // grid[2]
        d = plane // grid[1] * place[0] + plane % grid[1] * place_step[0] + place_first[0]
        h = d * place[1] + line % grid[2] * place_step[1] + place_first[1]
        w = h * place[2] + (row + r) % grid[3] * place_step[2] + place_first[2]
        copy_run(output, w * place[3] + column, source, at + r * width, width)


@inline
def gather_task(task, source, panels, output, y, scratch, table, numbers, e):
    """One task of gather_gemm: some blocks of rows, all groups, some panels."""
    image, groups, grid, taps, step, first, hop, layout = window_numbers(numbers)
    place = (numbers[27], numbers[28], numbers[29], numbers[30])
    place_step = (numbers[31], numbers[32], numbers[33])
    place_first = (numbers[34], numbers[35], numbers[36])
    mr, nr, planes, lines = numbers[37], numbers[38], numbers[39], numbers[40]
    row_tasks, column_tasks, per_task, table_size = numbers[41], numbers[42], numbers[43], numbers[44]
    mode, chunk, fused = numbers[45], numbers[46], numbers[47]
    channels = image[3] // groups
    columns = place[3] // groups
    depth = taps[0] * taps[1] * taps[2] * channels
    panel_count = (columns + nr - 1) // nr
    panel_size = (depth + 1) * nr
    planes_all = grid[0] * grid[1]
    blocks = (planes_all + planes - 1) // planes * ((grid[2] + lines - 1) // lines)
    taps_w = 1 if layout[5] == 1 else taps[2]
    length = channels * taps[2] // max(taps_w, 1)
    segments = taps[0] * taps[1] * taps_w
    padded = (planes * lines * grid[3] + mr - 1) // mr * mr
    part = task % column_tasks
    row_task = task // column_tasks
    rows_at = task * table_size
    segments_at = rows_at + padded
    own_at = task * per_task
    staged_at = own_at + per_task - padded * panel_count * nr
    row_table(table, rows_at, channels, grid, taps, layout, planes, lines)
    segment_table(table, segments_at, channels, taps, layout, taps_w)
    panel_low = panel_count * part // column_tasks
    panel_high = panel_count * (part + 1) // column_tasks
    width = min(panel_high * nr, columns) - panel_low * nr
    far = source.size > 2 * NEXT
    for block in range(blocks * row_task // row_tasks, blocks * (row_task + 1) // row_tasks):
        plane, n_planes, line, n_lines = block_extent(block, planes_all, grid, planes, lines)
        row = (plane * grid[2] + line) * grid[3]
        n_rows = n_planes * n_lines * grid[3]
        for group in range(groups):
            column = group * columns + panel_low * nr
            c_at = row * place[3] + column
            at = (group * panel_count + panel_low) * panel_size
            if mode == DIRECT:
                multiply_rows(
                    source, row * channels, table, rows_at, segments_at, segments, length, panels, at, panel_size,
                    output, c_at, place[3], n_rows, width, mr, nr, chunk, n_rows * channels if far else 0,
                )  # fmt: skip
            else:
                pack_lines(
                    scratch, own_at, source, image, channels, group, grid, taps, step, first, hop, layout,
                    plane, n_planes, line, n_lines,
                )  # fmt: skip
                if place_step[0] * place_step[1] * place_step[2] == 1:
                    multiply_rows(
                        scratch, own_at, table, rows_at, segments_at, segments, length, panels, at, panel_size,
                        output, c_at, place[3], n_rows, width, mr, nr, chunk, 0,
                    )  # fmt: skip
                else:
                    multiply_rows(
                        scratch, own_at, table, rows_at, segments_at, segments, length, panels, at, panel_size,
                        scratch, staged_at, width, n_rows, width, mr, nr, chunk, 0,
                    )  # fmt: skip
                    scatter_rows(
                        output, scratch, staged_at, width, row, n_rows, column, grid, place, place_step, place_first
                    )  # fmt: skip
            if fused != NO_EPILOGUE:
                finish(output, y, fused, c_at, place[3], n_rows, width, e)


@cpu
def gather_gemm(source, panels, output, y, scratch, table, numbers, e):
    """output = start + windows of source @ panels and y = epilogue(output), all arrays flat; numbers from GatherPlan.

    They say how the epilogue is fused: NO_EPILOGUE leaves y alone, IN_PLACE takes output as y, APART another array.
    """
    for task in prange(numbers[41] * numbers[42]):
        gather_task(np.int64(task), source, panels, output, y, scratch, table, numbers, e)
