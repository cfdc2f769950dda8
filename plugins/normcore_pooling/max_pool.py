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


# -- CPU: maxima of strided or neighbouring vectors --------------------------------------------------------


@inline
def begin(x, y, arg, tap, stride):
    """y = x[::stride], from tap number `tap`."""
    k = TAP(tap)
    if stride == 1:
        for i in range(y.size):
            y[i] = x[i]
            arg[i] = k
    elif stride == 2:
        for i in range(y.size):
            y[i] = x[2 * i]
            arg[i] = k
    else:
        for i in range(y.size):
            y[i] = x[stride * i]
            arg[i] = k


@inline
def take(x, y, arg, tap, stride):
    """y = max(y, x[::stride]), noting `tap` where x is better."""
    k = TAP(tap)
    if stride == 1:
        for i in range(y.size):
            t = better(x[i], y[i])
            y[i] = x[i] if t else y[i]
            arg[i] = k if t else arg[i]
    elif stride == 2:
        for i in range(y.size):
            v = x[2 * i]
            t = better(v, y[i])
            y[i] = v if t else y[i]
            arg[i] = k if t else arg[i]
    else:
        for i in range(y.size):
            v = x[stride * i]
            t = better(v, y[i])
            y[i] = v if t else y[i]
            arg[i] = k if t else arg[i]


@inline
def take_two(p, q, y, arg, tap, stride):
    """The same for the taps `tap` and `tap` + 1 in one pass."""
    k = TAP(tap)
    k1 = TAP(tap + 1)
    if stride == 1:
        for i in range(y.size):
            t = better(p[i], y[i])
            m = p[i] if t else y[i]
            a = k if t else arg[i]
            t = better(q[i], m)
            y[i] = q[i] if t else m
            arg[i] = k1 if t else a
    elif stride == 2:
        for i in range(y.size):
            t = better(p[2 * i], y[i])
            m = p[2 * i] if t else y[i]
            a = k if t else arg[i]
            t = better(q[2 * i], m)
            y[i] = q[2 * i] if t else m
            arg[i] = k1 if t else a
    else:
        take(p, y, arg, tap, stride)
        take(q, y, arg, tap + 1, stride)


# -- CPU, channels first: x (P, D, H, W), P planes of one sample's channel each ----------------------------


@inline
def pool_row(x, y, arg, d0, h0, kernel, stride, before, dilation):
    """One row of outputs, y and arg (OW,), of one plane x (D, H, W), windows starting at d0, h0."""
    width = x.shape[2]
    lo, hi = whole_windows(width, y.size, kernel[2], stride[2], before[2], dilation[2])
    fresh = True
    for kd in range(kernel[0]):
        d = d0 + kd * dilation[0]
        for kh in range(kernel[1]):
            h = h0 + kh * dilation[1]
            if 0 <= d < x.shape[0] and 0 <= h < x.shape[1]:
                tap = (kd * kernel[1] + kh) * kernel[2]
                row = x[d, h]
                pool_edge(row, y, arg, 0, lo, tap, fresh, kernel[2], stride[2], before[2], dilation[2])
                pool_edge(row, y, arg, hi, y.size, tap, fresh, kernel[2], stride[2], before[2], dilation[2])
                if lo < hi:
                    start = row[lo * stride[2] - before[2] :]
                    pool_inside(start, y[lo:hi], arg[lo:hi], tap, fresh, kernel[2], stride[2], dilation[2])
                fresh = False


@inline
def pool_inside(row, y, arg, tap, fresh, kernel, stride, dilation):
    k = 0
    if fresh:
        begin(row, y, arg, tap, stride)
        k = 1
    while k + 1 < kernel:
        take_two(row[k * dilation :], row[(k + 1) * dilation :], y, arg, tap + k, stride)
        k += 2
    if k < kernel:
        take(row[k * dilation :], y, arg, tap + k, stride)


@inline
def pool_edge(row, y, arg, first, last, tap, fresh, kernel, stride, before, dilation):
    for o in range(first, last):
        none = fresh
        for k in range(kernel):
            w = o * stride - before + k * dilation
            if 0 <= w < row.size:
                if none or better(row[w], y[o]):
                    y[o] = row[w]
                    arg[o] = TAP(tap + k)
                none = False


@cpu
def _forward_planes(x, y, arg, kernel, stride, before, dilation):
    planes, depth, height, _ = y.shape
    for j in prange(planes * depth * height):
        oh = j % height
        od = j // height % depth
        p = j // height // depth
        d0 = od * stride[0] - before[0]
        h0 = oh * stride[1] - before[1]
        pool_row(x[p], y[p, od, oh], arg[p, od, oh], d0, h0, kernel, stride, before, dilation)


@inline
def scatter_row(dy, arg, dx, reach, start, stride):
    for o in range(dy.size):
        dx[start + o * stride + reach[arg[o]]] += dy[o]


@inline
def clear(x):
    for i in range(x.size):
        x[i] = real(0)


@cpu
def _backward_planes(dy, arg, dx, reach, kernel, stride, before, dilation):
    """dx (P, D * H * W), one task a plane. reach (taps,): how far a tap lies from its window's start."""
    planes, depth, height, _ = dy.shape
    rows, width = reach[-2], reach[-1]
    for p in prange(planes):
        clear(dx[p])
        for od in range(depth):
            for oh in range(height):
                d0 = od * stride[0] - before[0]
                h0 = oh * stride[1] - before[1]
                start = (d0 * rows + h0) * width - before[2]
                scatter_row(dy[p, od, oh], arg[p, od, oh], dx[p], reach, start, stride[2])


# -- CPU, channels last: x (N, D, H, W, C), all channels of a position at once -----------------------------


@inline
def pool_position(x, y, arg, d0, h0, w0, kernel, dilation):
    """y and arg (C,): the window of x (D, H, W, C) that starts at d0, h0, w0."""
    first = max(0, (-w0 + dilation[2] - 1) // dilation[2])
    last = min(kernel[2], (x.shape[2] - w0 + dilation[2] - 1) // dilation[2])
    fresh = True
    for kd in range(kernel[0]):
        d = d0 + kd * dilation[0]
        for kh in range(kernel[1]):
            h = h0 + kh * dilation[1]
            if 0 <= d < x.shape[0] and 0 <= h < x.shape[1]:
                tap = (kd * kernel[1] + kh) * kernel[2]
                row = x[d, h]
                k = first
                if fresh:
                    begin(row[w0 + k * dilation[2]], y, arg, tap + k, 1)
                    k += 1
                    fresh = False
                while k + 1 < last:
                    w = w0 + k * dilation[2]
                    take_two(row[w], row[w + dilation[2]], y, arg, tap + k, 1)
                    k += 2
                if k < last:
                    take(row[w0 + k * dilation[2]], y, arg, tap + k, 1)


@cpu
def _forward_positions(x, y, arg, kernel, stride, before, dilation):
    batch, depth, height, width, _ = y.shape
    for j in prange(batch * depth * height):
        oh = j % height
        od = j // height % depth
        n = j // height // depth
        d0 = od * stride[0] - before[0]
        h0 = oh * stride[1] - before[1]
        for ow in range(width):
            w0 = ow * stride[2] - before[2]
            pool_position(x[n], y[n, od, oh, ow], arg[n, od, oh, ow], d0, h0, w0, kernel, dilation)


@inline
def window_at(i, k, out, stride, before, dilation):
    """The window in which element i is tap k, or -1."""
    start = i + before - k * dilation
    o = start // stride
    return o if start >= 0 and o * stride == start and o < out else -1


@inline
def give(dy, arg, dx, tap, fresh):
    """dx = or += dy where the maximum was `tap`."""
    k = TAP(tap)
    if fresh:
        for c in range(dx.size):
            dx[c] = dy[c] if arg[c] == k else real(0)
    else:
        for c in range(dx.size):
            dx[c] += dy[c] if arg[c] == k else real(0)


@inline
def gather_position(dy, arg, dx, d, h, w, kernel, stride, before, dilation):
    """dx (C,) of position d, h, w from dy and arg (OD, OH, OW, C)."""
    fresh = True
    for kd in range(kernel[0] - 1, -1, -1):
        od = window_at(d, kd, dy.shape[0], stride[0], before[0], dilation[0])
        for kh in range(kernel[1] - 1, -1, -1):
            oh = window_at(h, kh, dy.shape[1], stride[1], before[1], dilation[1])
            if od >= 0 and oh >= 0:
                for kw in range(kernel[2] - 1, -1, -1):
                    ow = window_at(w, kw, dy.shape[2], stride[2], before[2], dilation[2])
                    if ow >= 0:
                        tap = (kd * kernel[1] + kh) * kernel[2] + kw
                        give(dy[od, oh, ow], arg[od, oh, ow], dx, tap, fresh)
                        fresh = False
    if fresh:
        clear(dx)


@cpu
def _backward_positions(dy, arg, dx, kernel, stride, before, dilation):
    batch, depth, height, width, _ = dx.shape
    for j in prange(batch * depth * height):
        h = j % height
        d = j // height % depth
        n = j // height // depth
        for w in range(width):
            gather_position(dy[n], arg[n], dx[n, d, h, w], d, h, w, kernel, stride, before, dilation)


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
        y = {"y": Tensor(shape, x.dtype), "indices": Tensor(shape, "int64")} if self.return_indices else shape
        return Plan(
            y=y,
            saved={"arg": Array((math.prod(shape),), small)},
            workspace={"reach": Array((taps + 2,), "int64")},
            flops=math.prod(shape) * taps,
        )

    def forward_cpu(self, t):
        g = self._geometry(t)
        forward = _forward_planes if g.first else _forward_positions
        arg = t.arg.reshape(g.y)
        forward.with_constants(TAP=arg.dtype.type)[t](t.x.reshape(g.x), t.y.reshape(g.y), arg, *g.window)
        if self.return_indices:
            _flat_indices[t](arg.reshape(g.y5), t.indices.reshape(g.y5), *g.map, *g.window)

    def backward_cpu(self, t):
        if t.dx is None:
            return
        g = self._geometry(t)
        dy, arg = t.dy.reshape(g.y), t.arg.reshape(g.y)
        if g.first:
            t.reach[:-2] = g.reach
            t.reach[-2:] = g.map
            dx = t.dx.reshape(g.x[0], math.prod(g.x[1:]))
            _backward_planes[t](dy, arg, dx, t.reach, *g.window)
        else:
            backward = _backward_positions.with_constants(TAP=arg.dtype.type)
            backward[t](dy, arg, t.dx.reshape(g.x), *g.window)

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
        one = (1,) if self.first else ()
        self.x5, self.y5 = (*self.x, *one), (*self.y, *one)
        self.map = size[1:]
        self.window = (
            tuple(w.kernel for w in found),
            tuple(w.stride for w in found),
            tuple(w.before for w in found),
            tuple(w.dilation for w in found),
        )
        d, h, w = (np.arange(v.kernel) * v.dilation for v in found)
        self.reach = ((d[:, None, None] * size[1] + h[:, None]) * size[2] + w).reshape(-1)
