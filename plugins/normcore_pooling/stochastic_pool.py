"""Stochastic pooling: an element of each window, drawn with a probability in proportion to its value.

Forward, with a_i = max(x_i, 0), S = the sum of a_i over a window and p_i = a_i / S:
    training   y = x_k, k drawn with the probabilities p_i
    inference  y = sum of p_i x_i, the expected value (the paper's probabilistic weighting)
Backward:
    training   dx_k += dy: all of it goes to the element that was drawn
    inference  dx_i += dy * (2 a_i - y) / S where x_i > 0, nothing to the others

The paper pools rectified maps. Elsewhere these rules hold:
    values below 0      are never drawn beside positive ones (a_i = 0)
    no positive value   all elements are equally likely: an all-zero window gives 0, of negative values one is
                        drawn, or their mean taken; dx_i += dy / count in inference
    NaN                 wins: the output is NaN
    S infinite          the largest value (the first of several) has probability 1

u, uniform in [0, 1) with 24 bits, is that of the output's logical index in the layer's Philox stream; the element
drawn is the first at which the running sum of a_i, in row-major order, exceeds u * S. So the choice is the same
for any number of threads, memory format and device.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with out = (size - kernel) // stride + 1:
no padding, windows that the end cuts are left out. float32 and float64.

Source: Zeiler and Fergus 2013, "Stochastic pooling for regularization of deep convolutional neural networks",
arXiv:1301.3557, section 3.
"""

import math

import numpy as np

from normcore import Array, Op, Plan, Tensor
from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.random import uniform, uniform_32
from normcore.shapes import check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import interval_backward as backward
from normcore_pooling.interval_forward import MAX, largest_of
from normcore_pooling.interval_windows import REGULAR, Geometry, check_rank, first_of, tap_dtype
from normcore_pooling.max_rows import TAP
from normcore_pooling.stochastic_lines import SHORTEST, cut_of, forward_first, forward_last, lanes_of, weight


@inline
def element(x, a, b, d0, h0, w0, tap, kernel):
    row = tap // kernel[2]
    return x[a, d0 + row // kernel[1], h0 + row % kernel[1], w0 + tap - row * kernel[2], b]


@inline
def drawn(x, a, b, d0, h0, w0, total, u, kernel):
    """The tap that u picks from a window with the finite sum `total`."""
    taps = kernel[0] * kernel[1] * kernel[2]
    if total == real(0):
        return min(taps - 1, np.int64(u * real(taps)))
    limit = u * total
    running = real(0)
    for d in range(kernel[0]):
        for h in range(kernel[1]):
            for w in range(kernel[2]):
                running += weight(x[a, d0 + d, h0 + h, w0 + w, b])
                if running > limit:
                    return (d * kernel[1] + h) * kernel[2] + w
    return taps - 1  # never: u * total is below total, and the sums are the same


@inline
def expected(x, a, b, d0, h0, w0, total, kernel):
    """The probability-weighted mean; a plain mean where nothing is positive."""
    mean = real(0)
    for d in range(d0, d0 + kernel[0]):
        for h in range(h0, h0 + kernel[1]):
            for w in range(w0, w0 + kernel[2]):
                v = x[a, d, h, w, b]
                if total == real(0):
                    mean += v / real(kernel[0] * kernel[1] * kernel[2])
                elif v > real(0):
                    mean += v * (v / total)  # v * v alone may overflow
    return mean


@inline
def pool_one(x, y, arg, sums, i, key, call, training, out, kernel, stride):
    """Output i of y (A, OD, OH, OW, B)."""
    inner = y.shape[4]
    place = i // inner
    row = place // out[2]
    layer = row // out[1]
    a = layer // out[0]
    b = i - place * inner
    at = (a, layer % out[0], row % out[1], place % out[2], b)
    d0, h0, w0 = at[1] * stride[0], at[2] * stride[1], at[3] * stride[2]
    total = real(0)
    for d in range(d0, d0 + kernel[0]):
        for h in range(h0, h0 + kernel[1]):
            for w in range(w0, w0 + kernel[2]):
                total += weight(x[a, d, h, w, b])
    tap = np.int64(0)
    if not total < real(math.inf):
        _, tap = largest_of(x, a, b, d0, d0 + kernel[0], h0, h0 + kernel[1], w0, w0 + kernel[2], kernel)
    elif training:
        positions = out[0] * out[1] * out[2]
        logical = (a * inner + b) * positions + place - a * positions
        tap = drawn(x, a, b, d0, h0, w0, total, real(uniform_32(key, logical, call, 0)), kernel)
    if training or not total < real(math.inf):
        y[at] = element(x, a, b, d0, h0, w0, tap, kernel)
    else:
        y[at] = expected(x, a, b, d0, h0, w0, total, kernel)
    arg[at] = TAP(tap)
    sums[at] = total


@inline
def expected_gradient(x, y, dy, arg, sums, i, size, out, kernel, stride):
    """dx of element i of x (A, D, H, W, B) in inference."""
    inner = x.shape[4]
    place = i // inner
    row = place // size[2]
    layer = row // size[1]
    a = layer // size[0]
    b = i - place * inner
    d, h, w = layer % size[0], row % size[1], place % size[2]
    v = x[a, d, h, w, b]
    zero = real(0)
    gradient = real(0)
    for od in range(
        first_of(d, size[0], out[0], kernel[0], stride[0], zero), min(out[0], d // stride[0] + 1)
    ):
        for oh in range(
            first_of(h, size[1], out[1], kernel[1], stride[1], zero), min(out[1], h // stride[1] + 1)
        ):
            for ow in range(
                first_of(w, size[2], out[2], kernel[2], stride[2], zero), min(out[2], w // stride[2] + 1)
            ):
                at = (a, od, oh, ow, b)
                total, g = sums[at], dy[at]
                if not total < real(math.inf):
                    tap = (d - od * stride[0]) * kernel[1] + h - oh * stride[1]
                    tap = tap * kernel[2] + w - ow * stride[2]
                    gradient += g if arg[at] == TAP(tap) else zero
                elif total == zero:
                    gradient += g / real(kernel[0] * kernel[1] * kernel[2])
                elif v > zero:
                    gradient += g * ((v - y[at]) / total + v / total)
    return gradient


@cpu
def _forward_cpu(x, y, arg, sums, key, call, training, out, kernel, stride):
    for i in prange(y.size):
        pool_one(x, y, arg, sums, np.int64(i), key, call, training, out, kernel, stride)


@cpu
def _expected_gradient_cpu(x, y, dy, arg, sums, dx, size, out, kernel, stride):
    """dx flat."""
    for i in prange(dx.size):
        dx[i] = expected_gradient(x, y, dy, arg, sums, np.int64(i), size, out, kernel, stride)


@cuda
def _forward_cuda(x, y, arg, sums, key, call, training, out, kernel, stride):
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        pool_one(x, y, arg, sums, i, key, call, training, out, kernel, stride)


@cuda
def _expected_gradient_cuda(x, y, dy, arg, sums, dx, size, out, kernel, stride):
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        dx[i] = expected_gradient(x, y, dy, arg, sums, i, size, out, kernel, stride)


class StochasticPool(Op, name="stochastic_pool", source="Zeiler and Fergus 2013, arXiv:1301.3557, section 3"):
    """An element of each window, drawn in proportion to its value; in inference the probability-weighted mean.

    kernel_size, stride (default: kernel_size): a number, or one for each spatial dimension.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None

    formats = ("channels_first", "channels_last")
    backward_needs = ("x", "y")
    stochastic = True

    samples = (
        Sample(
            "rectified maps, overlapping windows",
            shape=(2, 3, 9, 11),
            params={"kernel_size": 3, "stride": 2},
            low=0.1,
        ),
        Sample("values of both signs", shape=(2, 5, 7, 8), params={"kernel_size": 2}),
        Sample("inference", shape=(2, 3, 9, 8), params={"kernel_size": 3, "stride": 2}, training=False),
        Sample("no positive value", shape=(2, 3, 8), params={"kernel_size": 2}, high=-0.5, training=False),
        Sample(
            "three dimensions, all different",
            shape=(1, 2, 5, 6, 7),
            params={"kernel_size": (2, 3, 1), "stride": (1, 2, 3)},
        ),
    )
    benchmarks = (
        Sample("AlexNet, first pool", shape=(32, 96, 55, 55), params={"kernel_size": 3, "stride": 2}),
    )
    error_samples = (
        ErrorSample("larger than the input", {"kernel_size": 5}, (2, 3, 4, 4), "= 4 elements, window 5"),
        ErrorSample("no step", {"kernel_size": 2, "stride": 0}, None, "stride"),
        ErrorSample("nothing to slide over", {"kernel_size": 2}, (2, 3), "spatial"),
    )

    def check(self):
        check_sizes("kernel_size", self.kernel_size)
        if self.stride is not None:
            check_sizes("stride", self.stride)

    def windows(self, spatial):
        stride = self.kernel_size if self.stride is None else self.stride
        return windows(spatial, self.kernel_size, stride, op=self.name)

    def plan(self, x: Tensor) -> Plan:
        check_rank(self.name, x.shape)
        found = self.windows(x.shape[2:])
        shape = (*x.shape[:2], *(w.out for w in found))
        taps, size = math.prod(w.kernel for w in found), math.prod(shape)
        return Plan(
            y=shape,
            saved={"arg": Array((size,), tap_dtype(taps)), "sums": Array((size,))},
            workspace=cut_of(*x.shape[:2], found, x.dtype).scratch(),
            flops=3 * size * taps,
        )

    def forward_cpu(self, t):
        if not t.y.size:
            return
        g = self._geometry(t)
        flat = (t.x.reshape(-1), t.y.reshape(-1), t.arg, t.sums, *g.cut.arrays(t), t.key, t.call, t.training)
        if t.format == "channels_last":
            constants = {"TAP": t.arg.dtype.type, "LANES": lanes_of(t.dtype)}
            forward = forward_last.with_constants(**constants)
            forward[t](*flat, g.cut.some, g.places, t.x.shape[0], g.size, g.out, g.stride)
        elif g.out[2] >= SHORTEST:
            forward = forward_first.with_constants(TAP=t.arg.dtype.type)
            forward[t](*flat, g.cut.length, g.places, g.size, g.out, g.stride)
        else:
            forward = self._made(t, _forward_cpu)
            forward[t](*self._arrays(t, g), t.key, t.call, t.training, *g.windows[1:])

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        g = self._geometry(t)
        dy, arg, sums = t.dy.reshape(g.y), t.arg.reshape(g.y), t.sums.reshape(g.y)
        if t.training:
            backward.backward_cpu[t](dy, arg, t.dx.reshape(g.x), g.parts, *g.windows[1:])
        else:
            kernel = self._made(t, _expected_gradient_cpu)
            x, y = t.x.reshape(g.x), t.y.reshape(g.y)
            kernel[t](x, y, dy, arg, sums, t.dx.reshape(-1), *g.windows)

    def forward_cuda(self, t):
        if t.y.size:
            g, made = self._geometry(t), self._made(t, _forward_cuda)
            made[t, t.y.size](*self._arrays(t, g), t.key, t.call, t.training, *g.windows[1:])

    def backward_cuda(self, t):
        if t.dx is None or not t.dx.size:
            return
        g = self._geometry(t)
        dy, arg, sums = t.dy.reshape(g.y), t.arg.reshape(g.y), t.sums.reshape(g.y)
        if t.training:
            kernel = self._made(t, backward.backward_cuda)
            scratch = (t.sums, t.sums.reshape(1, -1))
            kernel[t, t.dx.size](dy, arg, t.dx.reshape(g.x), *scratch, *g.windows)
        else:
            kernel = self._made(t, _expected_gradient_cuda)
            x, y = t.x.reshape(g.x), t.y.reshape(g.y)
            kernel[t, t.dx.size](x, y, dy, arg, sums, t.dx.reshape(-1), *g.windows)

    def _geometry(self, t):
        g = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if g is None:
            spatial = t.x.shape[2:] if t.format == "channels_first" else t.x.shape[1:-1]
            found = self.windows(spatial)
            out, taps, stride = zip(*((w.out, w.kernel, w.stride) for w in found), strict=True)
            g = t.geometry = Geometry(t.x.shape, t.format, out, taps, stride)
            channels = t.x.shape[1 if t.format == "channels_first" else -1]
            g.cut = cut_of(t.x.shape[0], channels, found, t.dtype)
            g.places = g.cut.places(g.size, g.kernel, g.x[-1])
        return g

    def _made(self, t, kernel):
        return kernel.with_constants(RULE=REGULAR, MODE=MAX, TAP=t.arg.dtype.type)

    def _arrays(self, t, g):
        return t.x.reshape(g.x), t.y.reshape(g.y), t.arg.reshape(g.y), t.sums.reshape(g.y)

    def reference(self, x, *, training=True, key=0, call=0, **arrays):
        """All windows at once, as strided views, and NumPy's cumulative sums."""
        x = np.asarray(x, np.float64)
        found = self.windows(x.shape[2:])
        axes = tuple(range(2, x.ndim))
        views = np.lib.stride_tricks.sliding_window_view(x, tuple(w.kernel for w in found), axes)
        views = views[(slice(None), slice(None), *(slice(None, None, w.stride) for w in found))]
        views = views.reshape(*views.shape[: x.ndim], -1)
        weights = np.where(views <= 0, 0.0, views)
        total = weights.sum(-1, keepdims=True)
        weights = np.where(total == 0, 1.0, weights)
        if training:
            u = uniform(int(key), views.shape[:-1], "float32", call).astype(np.float64)
            running = weights.cumsum(-1)
            tap = (running > u[..., None] * running[..., -1:]).argmax(-1)
            y = np.take_along_axis(views, tap[..., None], -1)[..., 0]
        else:
            y = (weights / weights.sum(-1, keepdims=True) * views).sum(-1)
        return np.where(np.isfinite(total[..., 0]), y, views.max(-1))
