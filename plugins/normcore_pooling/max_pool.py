"""Max pooling: the largest value of each window that slides over the map.

Forward:  y_o = max over taps k of x[o * stride - before + k * dilation], taps in the padding left out
Backward: dx_i = sum of dy_o over the windows o whose maximum was x_i; the others get nothing

The FIRST maximum of a window, in row-major order of its taps, takes the whole gradient, and where windows
overlap an element adds up what it gets. So the sum of dx is the sum of dy. What forward keeps for this is
the tap's offset in the window: one byte for windows of up to 256 taps, against eight bytes of a flat index.

Numerics: padding counts as -inf, never as 0. NaN wins over every number. A window always has a tap inside the
input; parameters that break this are errors. Backward owns what it writes (a plane, or a position of all
channels) and adds in the order of the windows: no atomics, the same bits for any number of threads.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with `out` of
normcore.shapes.windows, which also says how ceil_mode and padding="same" round. float32 and float64.
return_indices=True gives a second output of y's shape, int64: the position of each maximum in its map,
flattened row-major, as PyTorch has it. ceil_mode drops windows that would start in the right padding, as
PyTorch, Caffe and ONNX 22 do.

Source: Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
networks", section 3.4 (overlapping pooling).
"""

import math

import numpy as np

from normcore import Array, Op, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.shapes import ONE, check_padding, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample

TASKS = 64  # that share the rows of outputs, each with its own scratch; more than any desktop has threads
SMALL = 4096  # positions of a map that is pooled all at once: with its scratch it stays in the L1 cache
PARTS = 16  # into which backward cuts samples and channels at least, where there are as many
TAP = np.uint8  # type of a tap's offset; wider in kernels made for windows of more than 256 taps


@inline
def better(value, best):
    """Whether value takes over as the maximum: it is larger, or NaN."""
    return (value > best) | (value != value)


@inline
def whole_windows(size, out, kernel, stride, before, dilation):
    """The range of windows that lie inside the input from first to last tap."""
    lo = min(out, (before + stride - 1) // stride)
    rest = size + before - (kernel - 1) * dilation - 1
    hi = rest // stride + 1 if rest >= 0 else 0
    return lo, max(lo, min(out, hi))


# -- CPU: a row of outputs is the maximum down the rows it covers, then across -----------------------------
# Down: whole rows of x, contiguous and as long as they are, into the scratch v with the tap in vi. Across:
# the columns of v. Between equal values the offset decides: the first in row-major order wins.


@inline
def first_of(value, tap, best, best_tap):
    """Whether value takes over across columns."""
    return better(value, best) | ((value == best) & (tap < best_tap))


@inline
def down_one(x, v, vi, tap):
    k = TAP(tap)
    for i in range(v.size):
        v[i] = x[i]
        vi[i] = k


@inline
def down_two(p, q, v, vi, tap, next_tap):
    k = TAP(tap)
    k1 = TAP(next_tap)
    for i in range(v.size):
        t = better(q[i], p[i])
        v[i] = q[i] if t else p[i]
        vi[i] = k1 if t else k


@inline
def down_three(p, q, r, v, vi, tap, step):
    k = TAP(tap)
    k1 = TAP(tap + step)
    k2 = TAP(tap + step + step)
    for i in range(v.size):
        t = better(q[i], p[i])
        m = q[i] if t else p[i]
        a = k1 if t else k
        t = better(r[i], m)
        v[i] = r[i] if t else m
        vi[i] = k2 if t else a


@inline
def down_more(x, v, vi, tap):
    k = TAP(tap)
    for i in range(v.size):
        t = better(x[i], v[i])
        v[i] = x[i] if t else v[i]
        vi[i] = k if t else vi[i]


@inline
def down(x, v, vi, d0, h0, kernel, dilation):
    """Maxima of the rows x (D, H, W) that a window starting at d0, h0 covers; v, vi (W,), W with any
    channels."""
    first = max(0, (-h0 + dilation[1] - 1) // dilation[1])
    last = min(kernel[1], (x.shape[1] - h0 + dilation[1] - 1) // dilation[1])
    fresh = True
    for kd in range(kernel[0]):
        d = d0 + kd * dilation[0]
        if 0 <= d < x.shape[0]:
            k = first
            if fresh:
                h = h0 + k * dilation[1]
                tap = (kd * kernel[1] + k) * kernel[2]
                if last - k >= 3:
                    down_three(
                        x[d, h], x[d, h + dilation[1]], x[d, h + 2 * dilation[1]], v, vi, tap, kernel[2]
                    )
                    k += 3
                elif last - k == 2:
                    down_two(x[d, h], x[d, h + dilation[1]], v, vi, tap, tap + kernel[2])
                    k += 2
                else:
                    down_one(x[d, h], v, vi, tap)
                    k += 1
                fresh = False
            while k < last:
                down_more(x[d, h0 + k * dilation[1]], v, vi, (kd * kernel[1] + k) * kernel[2])
                k += 1


# -- CPU, channels first: x (P, D, H, W), P planes of one sample's channel each ----------------------------


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
def _forward_planes(x, y, arg, v, vi, kernel, stride, before, dilation):
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
def pick_row(u, ui, y, arg, start, stride):
    s, step = np.uint64(start), np.uint64(stride)
    for o in range(y.size):
        y[o] = u[s + np.uint64(o) * step]
        arg[o] = ui[s + np.uint64(o) * step]


@cpu
def _forward_small_planes(x, y, arg, v, vi, width, kernel, stride, dilation):
    """Unpadded 2-D windows on small maps, x (P, H * W), y (P, OH, OW): v, vi (tasks, 2, H * W).

    Rows of a small map are too short for vectors. So every position is treated as if a window started there,
    the whole map in one loop, and the outputs are picked from that.
    """
    planes = x.shape[0]
    tasks = v.shape[0]
    step = (planes + tasks - 1) // tasks
    below = x.shape[1] - (kernel[1] - 1) * dilation[1] * width
    beside = below - (kernel[2] - 1) * dilation[2]
    for task in prange(tasks):
        a, ai = v[task, 0, :below], vi[task, 0, :below]
        b, bi = v[task, 1, :beside], vi[task, 1, :beside]
        for p in range(task * step, min(planes, task * step + step)):
            down_flat(x[p], a, ai, kernel[1], dilation[1] * width, kernel[2])
            across_flat(a, ai, b, bi, kernel[2], dilation[2])
            for oh in range(y.shape[1]):
                pick_row(b, bi, y[p, oh], arg[p, oh], oh * stride[1] * width, stride[2])


@inline
def clear(x):
    for i in range(x.size):
        x[i] = real(0)


@inline
def scatter_plane(dy, arg, dx, starts, reach):
    for o in range(dy.size):
        dx[starts[o] + reach[arg[o]]] += dy[o]


@cpu
def _backward_planes(dy, arg, dx, starts, reach):
    """dy, arg (P, OD * OH * OW), dx (P, D * H * W): where each window starts, how far from there each tap
    lies."""
    for p in prange(dy.shape[0]):
        clear(dx[p])
        scatter_plane(dy[p], arg[p], dx[p], starts, reach)


# -- CPU, channels last: x (N, D, H, W, C), all channels of a position at once -----------------------------


@inline
def best_one(v, vi, tap, y, arg):
    k = TAP(tap)
    for c in range(y.size):
        y[c] = v[c]
        arg[c] = TAP(vi[c] + k)


@inline
def best_more(v, vi, tap, y, arg):
    k = TAP(tap)
    for c in range(y.size):
        a = TAP(vi[c] + k)
        t = first_of(v[c], a, y[c], arg[c])
        y[c] = v[c] if t else y[c]
        arg[c] = a if t else arg[c]


@inline
def best_two(p, q, pi, qi, y, arg):
    for c in range(y.size):
        a = TAP(qi[c] + TAP(1))
        t = first_of(q[c], a, p[c], pi[c])
        y[c] = q[c] if t else p[c]
        arg[c] = a if t else pi[c]


@inline
def best_three(p, q, r, pi, qi, ri, y, arg):
    for c in range(y.size):
        a = TAP(qi[c] + TAP(1))
        t = first_of(q[c], a, p[c], pi[c])
        m = q[c] if t else p[c]
        mi = a if t else pi[c]
        a = TAP(ri[c] + TAP(2))
        t = first_of(r[c], a, m, mi)
        y[c] = r[c] if t else m
        arg[c] = a if t else mi


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
def _forward_positions(x, x_rows, y, arg, v, vi, v_rows, vi_rows, kernel, stride, before, dilation):
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
def _backward_positions(
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
def _flat_indices(arg, indices, height, width, kernel, stride, before, dilation):
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


# -- CUDA: a thread an output (forward) or an input (backward); neighbouring threads, neighbouring numbers -
# Both formats are (A, D, H, W, B): A = N * C and B = 1 channels first, A = N and B = C channels last.


@cuda
def _forward_cuda(x, y, arg, kernel, stride, before, dilation):
    depth, height, width, inner = y.shape[1], y.shape[2], y.shape[3], y.shape[4]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        ow = rest - row * width
        w0 = ow * stride[2] - before[2]
        rest = row // height
        oh = row - rest * height
        h0 = oh * stride[1] - before[1]
        n = rest // depth
        od = rest - n * depth
        d0 = od * stride[0] - before[0]
        best = real(0)
        tap = 0
        fresh = True
        for kd in range(kernel[0]):
            d = d0 + kd * dilation[0]
            for kh in range(kernel[1]):
                h = h0 + kh * dilation[1]
                if d >= 0 and d < x.shape[1] and h >= 0 and h < x.shape[2]:
                    for kw in range(kernel[2]):
                        w = w0 + kw * dilation[2]
                        if w >= 0 and w < x.shape[3]:
                            v = x[n, d, h, w, b]
                            if fresh or better(v, best):
                                best = v
                                tap = (kd * kernel[1] + kh) * kernel[2] + kw
                                fresh = False
        y[n, od, oh, ow, b] = best
        arg[n, od, oh, ow, b] = TAP(tap)


@cuda
def _backward_cuda(dy, arg, dx, kernel, stride, before, dilation):
    depth, height, width, inner = dx.shape[1], dx.shape[2], dx.shape[3], dx.shape[4]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        w = rest - row * width
        rest = row // height
        h = row - rest * height
        n = rest // depth
        d = rest - n * depth
        total = real(0)
        for kd in range(kernel[0] - 1, -1, -1):
            od = window_at(d, kd, dy.shape[1], stride[0], before[0], dilation[0])
            for kh in range(kernel[1] - 1, -1, -1):
                oh = window_at(h, kh, dy.shape[2], stride[1], before[1], dilation[1])
                if od >= 0 and oh >= 0:
                    for kw in range(kernel[2] - 1, -1, -1):
                        ow = window_at(w, kw, dy.shape[3], stride[2], before[2], dilation[2])
                        tap = (kd * kernel[1] + kh) * kernel[2] + kw
                        if ow >= 0 and arg[n, od, oh, ow, b] == TAP(tap):
                            total += dy[n, od, oh, ow, b]
        dx[n, d, h, w, b] = total


@cuda
def _flat_indices_cuda(arg, indices, height, width, kernel, stride, before, dilation):
    out_d, out_h, out_w, inner = arg.shape[1], arg.shape[2], arg.shape[3], arg.shape[4]
    for i in range(cu.grid(1), arg.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // out_w
        ow = rest - row * out_w
        rest = row // out_h
        oh = row - rest * out_h
        n = rest // out_d
        od = rest - n * out_d
        d0 = od * stride[0] - before[0]
        h0 = oh * stride[1] - before[1]
        w0 = ow * stride[2] - before[2]
        tap = np.int64(arg[n, od, oh, ow, b])
        indices[n, od, oh, ow, b] = flat_index(tap, d0, h0, w0, height, width, kernel, dilation)


# -- the op ------------------------------------------------------------------------------------------------


class MaxPool(Op, name="max_pool", source="Krizhevsky, Sutskever and Hinton 2012, section 3.4"):
    """The largest value of each window; the gradient goes to the first maximum.

    kernel_size, stride (default: kernel_size), dilation: a number, or one for each spatial dimension.
    padding: the same, or [before, after] pairs, or "same". ceil_mode: keep windows that the right end cuts.
    return_indices: also give each maximum's flat position in its map (int64), for max_unpool.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: int | str | tuple[int | tuple[int, int], ...] = 0
    dilation: int | tuple[int, ...] = 1
    ceil_mode: bool = False
    return_indices: bool = False

    formats = ("channels_last", "channels_first")
    backward_needs = ()

    samples = (
        Sample("AlexNet's overlapping windows", shape=(2, 3, 9, 11), params={"kernel_size": 3, "stride": 2}),
        Sample("windows side by side, a remainder left out", shape=(2, 5, 7, 8), params={"kernel_size": 2}),
        Sample(
            "as many outputs as inputs",
            shape=(1, 3, 6, 5),
            params={"kernel_size": 3, "stride": 1, "padding": 1},
        ),
        Sample(
            "one dimension, cut at the end", shape=(2, 3, 8), params={"kernel_size": 3, "ceil_mode": True}
        ),
        Sample(
            "three dimensions, all different",
            shape=(1, 2, 5, 6, 7),
            params={"kernel_size": (2, 3, 1), "stride": (1, 2, 3), "padding": (1, 1, 0)},
        ),
        Sample("dilated", shape=(1, 2, 9, 8), params={"kernel_size": 2, "stride": 1, "dilation": 3}),
        Sample(
            "padding on one side", shape=(1, 2, 5, 6), params={"kernel_size": 2, "padding": ((0, 1), (1, 0))}
        ),
        Sample("same size", shape=(1, 2, 5, 6), params={"kernel_size": 3, "stride": 2, "padding": "same"}),
        Sample("offsets beyond a byte", shape=(1, 2, 20, 18), params={"kernel_size": 17, "stride": 1}),
    )
    error_samples = (
        ErrorSample(
            "larger than the input", {"kernel_size": 5}, (2, 3, 4, 4), "4 + padding 0 + 0 = 4 elements"
        ),
        ErrorSample("padding over half", {"kernel_size": 2, "padding": 2}, (2, 3, 8, 8), "at most half"),
        ErrorSample("no step", {"kernel_size": 2, "stride": 0}, None, "stride"),
        ErrorSample("wrong number", {"kernel_size": (2, 2, 2)}, (2, 3, 8, 8), "kernel_size"),
        ErrorSample("nothing to slide over", {"kernel_size": 2}, (2, 3), "spatial"),
    )

    def check(self):
        check_sizes("kernel_size", self.kernel_size)
        check_sizes("dilation", self.dilation)
        if self.stride is not None:
            check_sizes("stride", self.stride)
        check_padding(self.padding)

    def windows(self, spatial):
        """Three Windows (depth, height, width); a dimension that is not there is one window of one tap."""
        stride = self.kernel_size if self.stride is None else self.stride
        found = windows(
            spatial,
            self.kernel_size,
            stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            op=self.name,
            half_padding=True,
        )
        return (ONE,) * (3 - len(found)) + found

    def plan(self, x: Tensor) -> Plan:
        if not 3 <= len(x.shape) <= 5:
            raise ShapeError(
                f"{self.name}: expected (N, C, *spatial) with 1 to 3 spatial dimensions, got {x.shape}"
            )
        found = self.windows(x.shape[2:])
        out = tuple(w.out for w in found)
        shape = (*x.shape[:2], *out[5 - len(x.shape) :])
        taps = math.prod(w.kernel for w in found)
        small = next(
            kind for kind in ("uint8", "uint16", "uint32") if taps <= 1 << 8 * np.dtype(kind).itemsize
        )
        tasks = max(1, min(TASKS, x.shape[0] * out[0] * out[1]))
        row = found[2].size * x.shape[1]  # channels last needs a row of all channels
        if _small(found):
            row = max(row, 2 * found[1].size * found[2].size)
        y = {"y": Tensor(shape, x.dtype), "indices": Tensor(shape, "int64")} if self.return_indices else shape
        return Plan(
            y=y,
            saved={"arg": Array((math.prod(shape),), small)},
            workspace={
                "v": Array((tasks * row,)),
                "vi": Array((tasks * row,), small),
                "starts": Array((math.prod(out),), "uint64"),
                "reach": Array((taps,), "uint64"),
            },
            flops=math.prod(shape) * taps,
        )

    def forward_cpu(self, t):
        g = self._geometry(t)
        arg, y = t.arg.reshape(g.y), t.y.reshape(g.y)
        if not arg.size:
            return
        constants = {"TAP": arg.dtype.type}
        if g.small:
            size = g.x[2] * g.x[3]
            scratch = (_cut(t.v, 2, size), _cut(t.vi, 2, size))
            forward = _forward_small_planes.with_constants(**constants)
            x, flat = t.x.reshape(g.x[0], size), (g.y[0], *g.y[2:])
            forward[t](x, y.reshape(flat), arg.reshape(flat), *scratch, g.x[3], *g.window[:2], g.window[3])
        elif g.first:
            scratch = (_cut(t.v, g.x[-1]), _cut(t.vi, g.x[-1]))
            _forward_planes.with_constants(**constants)[t](t.x.reshape(g.x), y, arg, *scratch, *g.window)
        else:
            width, channels = g.x[-2:]
            v, vi = _cut(t.v, width, channels), _cut(t.vi, width, channels)
            rows = (_cut(t.v, width * channels), _cut(t.vi, width * channels))
            x, x_rows = t.x.reshape(g.x), t.x.reshape(*g.x[:-2], width * channels)
            _forward_positions.with_constants(**constants)[t](x, x_rows, y, arg, v, vi, *rows, *g.window)
        if self.return_indices:
            _flat_indices[t](t.arg.reshape(g.y5), t.indices.reshape(g.y5), *g.map, *g.window)

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        g = self._geometry(t)
        t.starts[:], t.reach[:] = g.starts, g.reach
        if g.first:
            flat = (g.y[0], math.prod(g.y[1:]))
            dx = t.dx.reshape(g.x[0], math.prod(g.x[1:]))
            _backward_planes[t](t.dy.reshape(flat), t.arg.reshape(flat), dx, t.starts, t.reach)
        else:
            batch, channels = g.x[0], g.x[-1]
            dx = t.dx.reshape(batch, math.prod(g.x[1:-1]), channels)
            parts = max(1, min(channels // 16, -(-PARTS // batch)))  # a cache line is 16 float32
            dy, arg, flat = t.dy.reshape(g.y), t.arg.reshape(g.y), dx.reshape(batch, -1)
            _backward_positions[t](dy, arg, dx, flat, t.starts, t.reach, *g.map, parts, *g.window)

    def forward_cuda(self, t):
        g = self._geometry(t)
        arg = t.arg.reshape(g.y5)
        if arg.size:
            forward = _forward_cuda.with_constants(TAP=arg.dtype.type)
            forward[t, arg.size](t.x.reshape(g.x5), t.y.reshape(g.y5), arg, *g.window)
            if self.return_indices:
                _flat_indices_cuda[t, arg.size](arg, t.indices.reshape(g.y5), *g.map, *g.window)

    def backward_cuda(self, t):
        if t.dx is not None and t.dx.size:
            g = self._geometry(t)
            arg = t.arg.reshape(g.y5)
            backward = _backward_cuda.with_constants(TAP=arg.dtype.type)
            backward[t, t.dx.size](t.dy.reshape(g.y5), arg, t.dx.reshape(g.x5), *g.window)

    def _geometry(self, t):
        found = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if found is None:
            found = t.geometry = _Geometry(self, t.x.shape, t.format)
        return found

    def reference(self, x, **arrays):
        """Window by window, each a plain maximum of the elements it covers."""
        x = np.asarray(x, np.float64)
        rank = x.ndim - 2
        axes = self.windows(x.shape[2:])[3 - rank :]
        y = np.empty((*x.shape[:2], *(w.out for w in axes)))
        for o in np.ndindex(*y.shape[2:]):
            cover = [
                [
                    p
                    for p in range(i * w.stride - w.before, i * w.stride - w.before + w.span, w.dilation)
                    if 0 <= p < w.size
                ]
                for i, w in zip(o, axes, strict=True)
            ]
            y[(..., *o)] = x[(..., *np.ix_(*cover))].max(axis=tuple(range(2, x.ndim)))
        return y


class _Geometry:
    """Shapes as the kernels see them, and the windows as four tuples of three."""

    def __init__(self, op, shape, format):
        self.first = format == "channels_first"
        outer = (shape[0] * shape[1],) if self.first else (shape[0],)
        spatial = shape[2:] if self.first else shape[1:-1]
        inner = () if self.first else shape[-1:]
        found = op.windows(spatial)
        size = tuple(w.size for w in found)
        self.x = (*outer, *size, *inner)
        self.y = (*outer, *(w.out for w in found), *inner)
        self.small = self.first and _small(found)
        one = (1,) if self.first else ()
        self.x5, self.y5 = (*self.x, *one), (*self.y, *one)
        self.map = size[1:]
        self.window = (
            tuple(w.kernel for w in found),
            tuple(w.stride for w in found),
            tuple(w.before for w in found),
            tuple(w.dilation for w in found),
        )
        # Offsets in a map, modulo 2^64: a window may start before the map, the sum of both lies inside.
        taps = [np.arange(v.kernel) * v.dilation for v in found]
        starts = [np.arange(v.out) * v.stride - v.before for v in found]
        apart = 1 if self.first else shape[-1]
        self.reach = (_offsets(taps, size) * apart).astype(np.uint64)
        self.starts = (_offsets(starts, size) * apart).astype(np.uint64)


def _cut(scratch, *shape):
    """A flat array as scratch of this shape for as many tasks as it holds."""
    size = math.prod(shape)
    tasks = min(TASKS, scratch.size // size)
    return scratch[: tasks * size].reshape(tasks, *shape)


def _small(found):
    """Whether treating every position of a map, at most four times too many, beats going row by row."""
    _, h, w = found
    whole = not any(v.before or (v.out - 1) * v.stride + v.span > v.size for v in found)
    return found[0] == ONE and whole and h.stride * w.stride <= 4 and h.size * w.size <= SMALL


def _offsets(places, size):
    """Flat offsets in a map of this size, of every combination of places along its three dimensions."""
    d, h, w = places
    return ((d[:, None, None] * size[1] + h[:, None]) * size[2] + w).reshape(-1)
