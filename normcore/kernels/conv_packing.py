"""Copies that a convolution makes of its input, a block of output pixels at a time, into a buffer that stays in cache.

The input is channels last, (N, D, H, W, stored); outputs are (N, grid[1:], ...), and output pixel o meets
input pixel o * step + first + tap * hop in each dimension. A block is `planes` output planes (image and depth)
times `lines` output lines.

pack_lines copies every input line that the block reads once, padded with zeros, one group's channels only:
    a[plane, tap_d, slot_h, slot_w, channels]; row_table and segment_table say where a pixel's window lies in it.
Slots are input pixels where windows overlap, else (line, tap) pairs, so that a stride leaves no gaps.

layout: slots_h, slots_w, line_step, line_hop, pixel_step, pixel_hop, in slots.
"""

from normcore.kernels.kernel import inline
from normcore.kernels.vector_moves import clear_run, copy_run


@inline
def pack_lines(
    a, at, source, image, channels, group, grid, taps, step, first, hop, layout, plane, planes, line, lines
):  # fmt: skip
    """The input lines of output lines line..line+lines of planes plane..plane+planes."""
    depth_in, height_in, width_in, stored = image
    slots_h, slots_w, line_step, line_hop, pixel_step, pixel_hop = layout
    shared_h = line_step == step[1] and line_hop == hop[1]
    shared_w = pixel_step == step[2] and pixel_hop == hop[2]
    used = (lines - 1) * line_step + (taps[1] - 1) * line_hop + 1
    before = min(max(-first[2], 0), slots_w)
    inside = max(min(width_in - first[2], slots_w) - before, 0)
    for p in range(planes):
        n = (plane + p) // grid[1]
        d = (plane + p) % grid[1]
        for tap_d in range(taps[0]):
            src_d = d * step[0] + first[0] + tap_d * hop[0]
            for slot in range(used):
                if shared_h:
                    src_h = line * step[1] + first[1] + slot
                else:
                    src_h = (line + slot // taps[1]) * step[1] + first[1] + slot % taps[1] * hop[1]
                to = at + ((p * taps[0] + tap_d) * slots_h + slot) * slots_w * channels
                if src_d < 0 or src_d >= depth_in or src_h < 0 or src_h >= height_in:
                    clear_run(a, to, slots_w * channels)
                    continue
                src = ((n * depth_in + src_d) * height_in + src_h) * width_in * stored + group * channels
                if shared_w:
                    clear_run(a, to, before * channels)
                    run = inside if channels == stored else 1
                    for w in range(before, before + inside, max(run, 1)):
                        copy_run(a, to + w * channels, source, src + (first[2] + w) * stored, run * channels)
                    clear_run(a, to + (before + inside) * channels, (slots_w - before - inside) * channels)
                else:
                    for w in range(slots_w):
                        src_w = w // taps[2] * step[2] + first[2] + w % taps[2] * hop[2]
                        if src_w < 0 or src_w >= width_in:
                            clear_run(a, to + w * channels, channels)
                        else:
                            copy_run(a, to + w * channels, source, src + src_w * stored, channels)


@inline
def row_table(table, at, channels, grid, taps, layout, planes, lines):
    """table[at + r]: where row r of a block starts in pack_lines' buffer."""
    slots_h, slots_w, line_step, _, pixel_step, _ = layout
    r = at
    for p in range(planes):
        for line in range(lines):
            start = (p * taps[0] * slots_h + line * line_step) * slots_w * channels
            for w in range(grid[3]):
                table[r + w] = start + w * pixel_step * channels
            r += grid[3]


@inline
def segment_table(table, at, channels, taps, layout, taps_w):
    """table[at + s]: where the s-th run of neighbouring elements of a window starts, relative to its row."""
    slots_h, slots_w, _, line_hop, _, pixel_hop = layout
    s = at
    for d in range(taps[0]):
        for h in range(taps[1]):
            for w in range(taps_w):
                table[s] = ((d * slots_h + h * line_hop) * slots_w + w * pixel_hop) * channels
                s += 1


@inline
def block_extent(block, planes_all, grid, planes, lines):
    """First plane, planes, first line, lines of a block; blocks hold whole planes or lines of one plane."""
    per_plane = (grid[2] + lines - 1) // lines
    if per_plane == 1:
        plane = block * planes
        return plane, min(planes, planes_all - plane), 0, min(lines, grid[2])
    line = block % per_plane * lines
    return block // per_plane, 1, line, min(lines, grid[2] - line)
