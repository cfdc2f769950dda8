"""Weights into panels for gather_gemm, and the gradient to the weights.

A panel holds the weights of tile_columns output columns, a line of them for each element of a window in the
order (tap, channel), after a first line that sums start from (the bias, or zeros):
    panels[group, panel, 1 + (tap, inner), tile_columns]
It is packed anew at every call, from the weights as they are now.

The gradient is summed over fixed chunks of output pixels into `partial` and merged in chunk order, then turned
from (tap, channel, output channel) into the weights' own order.
"""

import numpy as np

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.conv_packing import block_extent, pack_lines, row_table, segment_table
from normcore.kernels.gemm import DIRECT, TAPS, window_numbers
from normcore.kernels.prefetch import NEXT, prefetch_lines
from normcore.kernels.tile import tile_columns_1, tile_columns_2, tile_rows_1, tile_rows_2
from normcore.kernels.vector_moves import clear_run, copy_run, copy_strided, transpose_block

PIECE = 16  # inner channels of one job: lines that are read together


@inline
def turn(target, target_at, target_stride, source, source_at, source_stride, rows, columns, width):
    """target[j, i] = source[i, j] for i < rows, j < columns, in blocks of width x width."""
    whole_rows, whole_columns = rows // width * width, columns // width * width
    for i in range(0, whole_rows, width):
        for j in range(0, whole_columns, width):
            to, of = target_at + j * target_stride + i, source_at + i * source_stride + j
            transpose_block(target, to, target_stride, source, of, source_stride)
    for i in range(rows):
        done = whole_columns if i < whole_rows else 0
        to, of = target_at + done * target_stride + i, source_at + i * source_stride + done
        copy_strided(target, to, target_stride, source, of, 1, columns - done)


@inline
def pack_piece(job, weight, bias, panels, numbers):
    """PIECE inner channels of one panel."""
    columns, inner, nr, width = numbers[1], numbers[2], numbers[3], numbers[4]
    taps = (numbers[5], numbers[6], numbers[7])
    first = (numbers[8], numbers[9], numbers[10])
    step = (numbers[11], numbers[12], numbers[13])
    kernel = (numbers[14], numbers[15], numbers[16])
    stride_group, stride_column, stride_inner = numbers[17], numbers[18], numbers[19]
    per_group = (columns + nr - 1) // nr
    depth = taps[0] * taps[1] * taps[2] * inner
    pieces = (inner + PIECE - 1) // PIECE
    piece = job % pieces
    panel = job // pieces
    group = panel // per_group
    column = panel % per_group * nr
    valid = min(nr, columns - column)
    out = panel * (depth + 1) * nr
    if piece == 0:
        clear_run(panels, out, nr)
        if bias.size > 0:
            copy_run(panels, out, bias, group * columns + column, valid)
    low, high = piece * PIECE, min(piece * PIECE + PIECE, inner)
    base = group * stride_group + column * stride_column
    tap = 0
    for d in range(taps[0]):
        for h in range(taps[1]):
            for w in range(taps[2]):
                k = (first[0] + d * step[0]) * kernel[1] + first[1] + h * step[1]
                src = base + k * kernel[2] + first[2] + w * step[2] + low * stride_inner
                to = out + (1 + tap * inner + low) * nr
                if stride_inner == 1:
                    turn(panels, to, nr, weight, src, stride_column, valid, high - low, width)
                for _ in range(low, high):
                    if stride_column == 1:
                        copy_run(panels, to, weight, src, valid)
                    elif stride_inner != 1:
                        copy_strided(panels, to, 1, weight, src, stride_column, valid)
                    if valid < nr:
                        clear_run(panels, to + valid, nr - valid)
                    src += stride_inner
                    to += nr
                tap += 1


@cpu
def pack_weights(weight, bias, panels, numbers):
    """All panels; bias is empty where sums start from zero. numbers from PackPlan."""
    for job in prange(numbers[20]):
        pack_piece(np.int64(job), weight, bias, panels, numbers)


@inline
def pack_gradient(b, at, dy, stored, column, columns, row, rows, nr, panel_size):
    """Rows of the output's gradient as panels b[panel, row, nr], zeros past the last column."""
    for low in range(0, columns, nr):
        count = min(nr, columns - low)
        for r in range(rows):
            copy_run(b, at + r * nr, dy, (row + r) * stored + column + low, count)
            if count < nr:
                clear_run(b, at + r * nr + count, nr - count)
        at += panel_size


@inline
def add_rows(total, dy, stored, column, row, rows):
    """total += the sum of some rows; each row's columns are added side by side."""
    for r in range(rows):
        line = dy[(row + r) * stored + column : (row + r) * stored + column + total.size]
        for j in range(total.size):
            total[j] += line[j]


@inline
def ask_share(a, at, table, rows_at, count, width, share, shares):
    """Ask for a share of `width` elements from each of some rows: who asks for many lines at once waits for most."""
    low, high = count * width * share // shares, count * width * (share + 1) // shares
    while low < high:
        r = low // width
        inside = low - r * width
        run = min(width - inside, high - low)
        prefetch_lines(a, at + table[rows_at + r] + inside, run)
        low += run


@inline
def gradient_of_windows(
    a, a_at, table, rows_at, segments_at, per_segment, low, high, b, b_at, b_stride, panel_size,
    zeros, zeros_at, c, c_at, ldc, rows, columns, fresh, mr, nr, sub, ahead,
):  # fmt: skip
    """c[k, j] (+)= sum over rows of windows[row, k] * b[row, j] for the tiles low..high of k.

    ahead, unless it is 0: from a row of `a` to what the next part has in its place, to ask for: a tile reads less than a
    line of each row.
    """
    shares = (columns + nr - 1) // nr * (high - low)
    for row in range(0, rows, sub):
        count = min(sub, rows - row)
        share = 0
        for j in range(0, columns, nr):
            line = b_at + j // nr * panel_size + row * b_stride
            for i in range(low, high):
                if ahead:
                    ask_share(a, a_at + ahead, table, rows_at + row, count, (high - low) * mr, share, shares)
                    share += 1
                at = a_at + table[segments_at + i // per_segment] + i % per_segment * mr
                to = c_at + i * mr * ldc + j
                if (columns - j) * 2 > nr:
                    tile_columns_2(
                        a, at, table, rows_at + row, count, b, line, b_stride, zeros, zeros_at, c, to, ldc,
                        fresh and row == 0, mr, nr,
                    )  # fmt: skip
                else:
                    tile_columns_1(
                        a, at, table, rows_at + row, count, b, line, b_stride, zeros, zeros_at, c, to, ldc,
                        fresh and row == 0, mr, nr,
                    )  # fmt: skip


@inline
def gradient_of_taps(
    a, a_at, table, rows_at, taps_at, zero_at, depth, b, b_at, b_stride, panel_size, zeros, zeros_at, c, c_at, ldc,
    lines, width, columns, fresh, mr, nr,
):  # fmt: skip
    """The same for one channel: a tap's pixels lie side by side, so the sum runs along the lines."""
    for j in range(0, columns, nr):
        for line in range(lines):
            at, of = a_at + table[rows_at + line * width], b_at + line * width * b_stride
            for i in range(0, depth, mr):
                if (columns - j) * 2 > nr:
                    tile_rows_2(
                        a, at, table, taps_at + i, zero_at, 1, width, b, of, b_stride, zeros, zeros_at,
                        c, c_at + i * ldc + j, ldc, fresh and line == 0, mr, nr,
                    )  # fmt: skip
                else:
                    tile_rows_1(
                        a, at, table, taps_at + i, zero_at, 1, width, b, of, b_stride, zeros, zeros_at,
                        c, c_at + i * ldc + j, ldc, fresh and line == 0, mr, nr,
                    )  # fmt: skip
        b_at += panel_size


@inline
def gradient_task(task, source, dy, partial, bias_partial, scratch, table, numbers):
    """One task of weight_gradient: a chunk of blocks, one group, some tiles of the window."""
    image, groups, grid, taps, step, first, hop, layout = window_numbers(numbers)
    stored, mr, nr, planes, lines = numbers[27], numbers[28], numbers[29], numbers[30], numbers[31]
    chunks, tile_tasks, per_task, table_size = numbers[32], numbers[33], numbers[34], numbers[35]
    mode, padded_segment, sub, in_place = numbers[36], numbers[37], numbers[38], numbers[39]
    channels = image[3] // groups
    columns = stored // groups
    ldc = (columns + nr - 1) // nr * nr
    planes_all = grid[0] * grid[1]
    blocks = (planes_all + planes - 1) // planes * ((grid[2] + lines - 1) // lines)
    taps_w = 1 if layout[5] == 1 else taps[2]
    depth = taps[0] * taps[1] * taps[2] * channels
    segments = 1 if mode == TAPS else taps[0] * taps[1] * taps_w
    padded = (planes * lines * grid[3] + mr - 1) // mr * mr
    per_segment = padded_segment // mr
    tiles = segments * per_segment
    part = task % tile_tasks
    group = task // tile_tasks % groups
    chunk = task // (tile_tasks * groups)
    rows_at = task * table_size
    segments_at = rows_at + padded
    own_at = task * per_task
    sums_at = own_at + per_task - ldc
    b_at = sums_at - (0 if in_place else ldc * padded)
    row_table(table, rows_at, channels, grid, taps, layout, planes, lines)
    segment_table(table, segments_at, channels, taps, layout, taps[2] if mode == TAPS else taps_w)
    zero_at = segments_at + padded_segment
    if mode == TAPS:
        for k in range(depth, padded_segment + 1):
            table[segments_at + k] = 0
    c_at = (chunk * groups + group) * segments * padded_segment * ldc
    low, high = tiles * part // tile_tasks, tiles * (part + 1) // tile_tasks
    begin = blocks * chunk // chunks
    for block in range(begin, blocks * (chunk + 1) // chunks):
        fresh = block == begin
        plane, n_planes, line, n_lines = block_extent(block, planes_all, grid, planes, lines)
        row = (plane * grid[2] + line) * grid[3]
        n_rows = n_planes * n_lines * grid[3]
        dy_at = row * stored + group * columns
        if part == 0 and bias_partial.size > 0:
            clear_run(scratch, sums_at, columns)
            sums = scratch[sums_at : sums_at + columns]
            add_rows(sums, dy, stored, group * columns, row, n_rows)
            total = bias_partial[chunk * stored + group * columns : chunk * stored + (group + 1) * columns]
            for j in range(total.size):
                total[j] = sums[j] + (real(0) if fresh else total[j])
        clear_run(scratch, sums_at, ldc)
        if in_place == 0:
            pack_gradient(scratch, b_at, dy, stored, group * columns, columns, row, n_rows, nr, padded * nr)
        if mode == DIRECT:
            gradient_of_windows(
                source, row * channels, table, rows_at, segments_at, per_segment, low, high,
                scratch, b_at, nr, padded * nr, scratch, sums_at, partial, c_at, ldc, n_rows, columns, fresh, mr, nr, sub,
                sub * channels + low * mr if source.size > 2 * NEXT else 0,
            )  # fmt: skip
            continue
        pack_lines(
            scratch, own_at, source, image, channels, group, grid, taps, step, first, hop, layout,
            plane, n_planes, line, n_lines,
        )  # fmt: skip
        if mode == TAPS and in_place != 0:
            gradient_of_taps(
                scratch, own_at, table, rows_at, segments_at, zero_at, depth, dy, dy_at, stored, nr,
                scratch, sums_at, partial, c_at, ldc, n_planes * n_lines, grid[3], columns, fresh, mr, nr,
            )  # fmt: skip
        elif mode == TAPS:
            gradient_of_taps(
                scratch, own_at, table, rows_at, segments_at, zero_at, depth, scratch, b_at, nr, padded * nr,
                scratch, sums_at, partial, c_at, ldc, n_planes * n_lines, grid[3], columns, fresh, mr, nr,
            )  # fmt: skip
        elif in_place != 0:
            gradient_of_windows(
                scratch, own_at, table, rows_at, segments_at, per_segment, low, high,
                dy, dy_at, stored, nr, scratch, sums_at, partial, c_at, ldc, n_rows, columns, fresh, mr, nr, sub, 0,
            )  # fmt: skip
        else:
            gradient_of_windows(
                scratch, own_at, table, rows_at, segments_at, per_segment, low, high,
                scratch, b_at, nr, padded * nr, scratch, sums_at, partial, c_at, ldc, n_rows, columns, fresh, mr, nr, sub, 0,
            )  # fmt: skip


@cpu
def weight_gradient(source, dy, partial, bias_partial, scratch, table, numbers):
    """partial[chunk, group, segment, padded_segment, columns] from the layer's input and its output's gradient.

    bias_partial[chunk, output channel], or empty: no bias. numbers from GradientPlan.
    """
    for task in prange(numbers[32] * numbers[33] * numbers[4]):
        gradient_task(np.int64(task), source, dy, partial, bias_partial, scratch, table, numbers)


@inline
def merge_piece(job, partial, bias_partial, dweight, dbias, numbers):
    """PIECE channels of one panel's columns."""
    groups, columns, channels, taps, nr, width = (
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
        numbers[4],
        numbers[5],
    )
    chunks, length, padded_segment, total = numbers[6], numbers[7], numbers[8], numbers[9]
    if job == 0:
        for chunk in range(chunks if dbias.size > 0 else 0):
            line = bias_partial[chunk * dbias.size : (chunk + 1) * dbias.size]
            for j in range(dbias.size):
                dbias[j] = line[j] + (real(0) if chunk == 0 else dbias[j])
    panel_count = (columns + nr - 1) // nr
    ldc = panel_count * nr
    pieces = (channels + PIECE - 1) // PIECE
    low = job % pieces * PIECE
    high = min(low + PIECE, channels)
    group = job // pieces // panel_count
    column = job // pieces % panel_count * nr
    valid = min(nr, columns - column)
    to = (group * columns + column) * channels * taps
    for tap in range(taps):
        for c in range(low, high):
            k = tap * channels + c
            at = group * (total // groups) + (k // length * padded_segment + k % length) * ldc + column
            line = partial[at : at + valid]
            for chunk in range(1, chunks):
                other = partial[at + chunk * total : at + chunk * total + valid]
                for j in range(line.size):
                    line[j] += other[j]
            if taps != 1:
                copy_strided(dweight, to + c * taps + tap, channels * taps, partial, at, 1, valid)
    if taps == 1:
        at = group * (total // groups) + low * ldc + column
        turn(dweight, to + low, channels, partial, at, ldc, high - low, valid, width)


@cpu
def merge_gradient(partial, bias_partial, dweight, dbias, numbers):
    """dweight (groups * columns, channels, taps) and dbias from the chunks' partial sums. numbers from MergePlan."""
    for job in prange(numbers[10]):
        merge_piece(np.int64(job), partial, bias_partial, dweight, dbias, numbers)
