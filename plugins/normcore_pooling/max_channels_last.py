"""Max pooling on the CPU, channels last: x (N, D, H, W, C), all channels of a position at once."""

import numpy as np

from normcore.kernels import cpu, inline, prange, real
from normcore_pooling.max_rows import (
    TAP,
    best_more,
    best_one,
    best_three,
    best_two,
    better,
    down,
    whole_windows,
)


@inline
def best_four(p, q, r, s, y, arg):
    """A window of 2 x 2 in one pass, taps in order."""
    for c in range(y.size):
        t = better(q[c], p[c])
        m = q[c] if t else p[c]
        a = TAP(1) if t else TAP(0)
        t = better(r[c], m)
        m = r[c] if t else m
        a = TAP(2) if t else a
        t = better(s[c], m)
        y[c] = s[c] if t else m
        arg[c] = TAP(3) if t else a


@inline
def across_positions(v, vi, y, arg, kernel, stride, before, dilation):
    """y, arg (OW, C) from v, vi (W, C)."""
    lo, hi = whole_windows(v.shape[0], y.shape[0], kernel, stride, before, dilation)
    for o in range(y.shape[0]):
        w = o * stride - before
        u = w + dilation
        if kernel == 3 and lo <= o < hi:
            z = u + dilation
            best_three(v[w], v[u], v[z], vi[w], vi[u], vi[z], y[o], arg[o])
        elif kernel == 2 and lo <= o < hi:
            best_two(v[w], v[u], vi[w], vi[u], y[o], arg[o])
        else:
            fresh = True
            for k in range(kernel):
                u = w + k * dilation
                if 0 <= u < v.shape[0]:
                    if fresh:
                        best_one(v[u], vi[u], k, y[o], arg[o])
                    else:
                        best_more(v[u], vi[u], k, y[o], arg[o])
                    fresh = False


@cpu
def forward_positions(x, x_rows, y, arg, v, vi, v_rows, vi_rows, kernel, stride, before, dilation):
    """x (N, D, H, W, C), v, vi (tasks, W, C) scratch; the same as rows, W * C together."""
    batch, depth, height, _, _ = y.shape
    rows = batch * depth * height
    tasks = v.shape[0]
    step = (rows + tasks - 1) // tasks
    lo, hi = whole_windows(x.shape[3], y.shape[3], kernel[2], stride[2], before[2], dilation[2])
    square = kernel[0] == 1 and kernel[1] == 2 and kernel[2] == 2 and lo == 0 and hi == y.shape[3]
    for task in prange(tasks):
        for j in range(task * step, min(rows, task * step + step)):
            oh = j % height
            od = j // height % depth
            n = j // height // depth
            d0 = od * stride[0] - before[0]
            h0 = oh * stride[1] - before[1]
            h1 = h0 + dilation[1]
            if square and h0 >= 0 and h1 < x.shape[2]:
                for o in range(y.shape[3]):
                    w = o * stride[2]
                    z = w + dilation[2]
                    p, q = x[n, d0, h0], x[n, d0, h1]
                    best_four(p[w], p[z], q[w], q[z], y[n, od, oh, o], arg[n, od, oh, o])
                continue
            down(x_rows[n], v_rows[task], vi_rows[task], d0, h0, kernel, dilation)
            across_positions(
                v[task], vi[task], y[n, od, oh], arg[n, od, oh], kernel[2], stride[2], before[2], dilation[2]
            )


@inline
def clear_rows(dx, first, last, lo, count):
    """`count` channels from lo on of the positions first to last of dx (positions, C)."""
    for i in range(first, last):
        row = dx[i]
        for k in range(count):
            row[lo + np.uint64(k)] = real(0)


@inline
def scatter_position(dy, arg, dx, start, reach, lo, count):
    """`count` channels from lo on of dy, arg (C,); start: of the window in dx, flat; reach adds the tap."""
    for k in range(count):
        c = lo + np.uint64(k)
        dx[start + reach[arg[c]] + c] += dy[c]


@cpu
def backward_positions(
    dy, arg, dx, dx_flat, starts, reach, height, width, parts, kernel, stride, before, dilation
):
    """dy, arg (N, OD, OH, OW, C), dx (N, positions, C) and flat. A task owns some channels of a sample.

    Positions are set to zero just before the first window that reaches them, while they are in the cache.
    """
    channels = dx.shape[2]
    out_width = dy.shape[3]
    step = (channels + parts - 1) // parts
    for task in prange(dx.shape[0] * parts):
        n = task // parts
        first = min(channels, (task - n * parts) * step)
        lo, count = np.uint64(first), min(channels - first, step)
        done = 0
        for od in range(dy.shape[1]):
            d = od * stride[0] - before[0] + (kernel[0] - 1) * dilation[0]
            d = min(d, dx.shape[1] // (height * width) - 1)
            for oh in range(dy.shape[2]):
                h = min(oh * stride[1] - before[1] + (kernel[1] - 1) * dilation[1], height - 1)
                reached = max(done, (d * height + h + 1) * width)
                clear_rows(dx[n], done, reached, lo, count)
                done = reached
                row = (od * dy.shape[2] + oh) * out_width
                for ow in range(out_width):
                    scatter_position(
                        dy[n, od, oh, ow], arg[n, od, oh, ow], dx_flat[n], starts[row + ow], reach, lo, count
                    )
        clear_rows(dx[n], done, dx.shape[1], lo, count)


@inline
def window_at(i, k, out, stride, before, dilation):
    """The window in which element i is tap k, or -1."""
    start = i + before - k * dilation
    o = start // stride
    return o if start >= 0 and o * stride == start and o < out else -1


@inline
def flat_index(tap, d0, h0, w0, height, width, kernel, dilation):
    kw = tap % kernel[2]
    kh = tap // kernel[2] % kernel[1]
    kd = tap // kernel[2] // kernel[1]
    d = d0 + kd * dilation[0]
    h = h0 + kh * dilation[1]
    return (d * height + h) * width + w0 + kw * dilation[2]


@cpu
def flat_indices(arg, indices, height, width, kernel, stride, before, dilation):
    """arg and indices (A, OD, OH, OW, B), where B is 1 or the channels."""
    for n in prange(arg.shape[0]):
        for od in range(arg.shape[1]):
            for oh in range(arg.shape[2]):
                for ow in range(arg.shape[3]):
                    d0 = od * stride[0] - before[0]
                    h0 = oh * stride[1] - before[1]
                    w0 = ow * stride[2] - before[2]
                    for c in range(arg.shape[4]):
                        tap = np.int64(arg[n, od, oh, ow, c])
                        indices[n, od, oh, ow, c] = flat_index(
                            tap, d0, h0, w0, height, width, kernel, dilation
                        )
