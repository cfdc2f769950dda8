"""Max pooling on the CPU, channels first: x (P, D, H, W), P planes of one sample's channel each."""

import numpy as np

from normcore.kernels import cpu, inline, prange, real
from normcore_pooling.max_rows import (
    TAP,
    best_more,
    best_one,
    best_three,
    best_two,
    down,
    down_more,
    down_one,
    down_three,
    down_two,
    first_of,
    whole_windows,
)


@inline
def across_row(v, vi, y, arg, kernel, stride, before, dilation):
    """y, arg (OW,) from v, vi (W,)."""
    lo, hi = whole_windows(v.size, y.size, kernel, stride, before, dilation)
    across_edge(v, vi, y, arg, 0, lo, kernel, stride, before, dilation)
    across_edge(v, vi, y, arg, hi, y.size, kernel, stride, before, dilation)
    start = lo * stride - before
    across_one(v, vi, y, arg, start, lo, hi - lo, stride)
    for k in range(1, kernel):
        across_more(v, vi, y, arg, k, start + k * dilation, lo, hi - lo, stride)


@inline
def across_edge(v, vi, y, arg, first, last, kernel, stride, before, dilation):
    for o in range(first, last):
        fresh = True
        for k in range(kernel):
            w = o * stride - before + k * dilation
            if 0 <= w < v.size:
                tap = TAP(vi[w] + TAP(k))
                if fresh or first_of(v[w], tap, y[o], arg[o]):
                    y[o] = v[w]
                    arg[o] = tap
                fresh = False


@inline
def across_one(v, vi, y, arg, start, lo, count, stride):
    """Unsigned indices, here and below: for signed ones Numba tests the sign, which stops vectorization."""
    s, o = np.uint64(start), np.uint64(lo)
    if stride == 1:
        for i in range(count):
            y[o + np.uint64(i)] = v[s + np.uint64(i)]
            arg[o + np.uint64(i)] = vi[s + np.uint64(i)]
    else:
        for i in range(count):
            y[o + np.uint64(i)] = v[s + np.uint64(i) * np.uint64(stride)]
            arg[o + np.uint64(i)] = vi[s + np.uint64(i) * np.uint64(stride)]


@inline
def across_step(v, vi, y, arg, k, at, o):
    value, tap = v[at], TAP(vi[at] + k)
    t = first_of(value, tap, y[o], arg[o])
    y[o] = value if t else y[o]
    arg[o] = tap if t else arg[o]


@inline
def across_more(v, vi, y, arg, tap, start, lo, count, stride):
    k, s, o = TAP(tap), np.uint64(start), np.uint64(lo)
    if stride == 1:
        for i in range(count):
            across_step(v, vi, y, arg, k, s + np.uint64(i), o + np.uint64(i))
    elif stride == 2:
        for i in range(count):
            across_step(v, vi, y, arg, k, s + np.uint64(i) * np.uint64(2), o + np.uint64(i))
    else:
        for i in range(count):
            across_step(v, vi, y, arg, k, s + np.uint64(i) * np.uint64(stride), o + np.uint64(i))


@cpu
def forward_planes(x, y, arg, v, vi, kernel, stride, before, dilation):
    """v, vi (tasks, W) scratch. A task takes some rows of outputs."""
    planes, depth, height, _ = y.shape
    rows = planes * depth * height
    tasks = v.shape[0]
    step = (rows + tasks - 1) // tasks
    for task in prange(tasks):
        for j in range(task * step, min(rows, task * step + step)):
            oh = j % height
            od = j // height % depth
            p = j // height // depth
            d0 = od * stride[0] - before[0]
            h0 = oh * stride[1] - before[1]
            down(x[p], v[task], vi[task], d0, h0, kernel, dilation)
            across_row(
                v[task], vi[task], y[p, od, oh], arg[p, od, oh], kernel[2], stride[2], before[2], dilation[2]
            )


@inline
def down_flat(x, v, vi, count, apart, step):
    """Maxima of x[i], x[i + apart], ... (`count` of them, taps `step` apart) for every i; x, v, vi flat."""
    k = 1
    if count >= 3:
        down_three(x, x[apart:], x[2 * apart :], v, vi, 0, step)
        k = 3
    elif count == 2:
        down_two(x, x[apart:], v, vi, 0, step)
        k = 2
    else:
        down_one(x, v, vi, 0)
    while k < count:
        down_more(x[k * apart :], v, vi, k * step)
        k += 1


@inline
def across_flat(v, vi, u, ui, count, apart):
    """The same across, from v, vi."""
    k = 1
    if count >= 3 and apart == 1:
        best_three(v, v[1:], v[2:], vi, vi[1:], vi[2:], u, ui)
        k = 3
    elif count == 2:
        best_two(v, v[apart:], vi, vi[apart:], u, ui)
        k = 2
    else:
        best_one(v, vi, 0, u, ui)
    while k < count:
        best_more(v[k * apart :], vi[k * apart :], k, u, ui)
        k += 1


@inline
def pick(u, ui, y, arg, starts):
    for o in range(y.size):
        at = starts[o]
        y[o] = u[at]
        arg[o] = ui[at]


@cpu
def forward_whole_planes(x, y, arg, v, vi, starts, size, width, kernel, dilation):
    """Unpadded 2-D windows, x (P * H * W), y (P, OH * OW): v, vi (tasks, 2, planes * H * W), size = H * W,
    starts (OH * OW): where each window starts in its map.

    Rows are too short for vectors. So every position is treated as if a window started there, several maps in one
    loop, and the outputs are picked from that; what runs from one map into the next is never picked.
    """
    planes = y.shape[0]
    tasks = v.shape[0]
    together = v.shape[2] // size
    groups = (planes + together - 1) // together
    step = (groups + tasks - 1) // tasks
    down_reach = (kernel[1] - 1) * dilation[1] * width
    reach = down_reach + (kernel[2] - 1) * dilation[2]
    for task in prange(tasks):
        for group in range(task * step, min(groups, task * step + step)):
            first = group * together
            last = min(planes, first + together)
            length = (last - first) * size
            a, ai = v[task, 0, : length - down_reach], vi[task, 0, : length - down_reach]
            b, bi = v[task, 1, : length - reach], vi[task, 1, : length - reach]
            maps = x[first * size : last * size]
            down_flat(maps, a, ai, kernel[1], dilation[1] * width, kernel[2])
            across_flat(a, ai, b, bi, kernel[2], dilation[2])
            for p in range(first, last):
                start = (p - first) * size
                pick(b[start:], bi[start:], y[p], arg[p], starts)


@inline
def clear(x):
    for i in range(x.size):
        x[i] = real(0)


@inline
def scatter_plane(dy, arg, dx, starts, reach):
    for o in range(dy.size):
        dx[starts[o] + reach[arg[o]]] += dy[o]


@cpu
def backward_planes(dy, arg, dx, starts, reach):
    """dy, arg (P, OD * OH * OW), dx (P, D * H * W): where each window starts, how far from there each tap
    lies."""
    for p in prange(dy.shape[0]):
        clear(dx[p])
        scatter_plane(dy[p], arg[p], dx[p], starts, reach)
