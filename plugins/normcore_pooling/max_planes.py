"""Max pooling on the CPU, channels first: x (P, D, H, W), P planes of one sample's channel each."""

import numpy as np

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.extremes import extreme_of_run
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.select import select
from normcore_pooling.max_rows import (
    MAXIMUM,
    TAP,
    down,
    first_of,
    whole_windows,
)

TASKS = 64  # that share whole planes; more than any desktop has threads
AHEAD = 1024  # elements between what is compared and what is asked for


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
    y[o] = select(t, value, y[o])
    arg[o] = select(t, tap, arg[o])


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
    for task in prange(tasks):
        for j in range(rows * task // tasks, rows * (task + 1) // tasks):
            oh = j % height
            od = j // height % depth
            p = j // height // depth
            d0 = od * stride[0] - before[0]
            h0 = oh * stride[1] - before[1]
            down(x[p], v[task], vi[task], d0, h0, kernel, dilation)
            across_row(
                v[task], vi[task], y[p, od, oh], arg[p, od, oh], kernel[2], stride[2], before[2], dilation[2]
            )


@cpu
def forward_maps(x, y, arg, length):
    """One window a plane, that covers all of it: x (P * length,), y, arg (P,)."""
    tasks = min(TASKS, y.size)
    for task in prange(tasks):
        for p in range(y.size * task // tasks, y.size * (task + 1) // tasks):
            prefetch_lines(x, p * length + AHEAD, length)
            k = extreme_of_run(x, p * length, length, MAXIMUM)
            y[p] = x[p * length + k]
            arg[p] = TAP(k)


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
