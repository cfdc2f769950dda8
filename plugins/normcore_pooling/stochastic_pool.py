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
from normcore.kernels.draws import lanes_of
from normcore.random import uniform
from normcore.shapes import ONE, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import interval_backward as backward
from normcore_pooling import stochastic_windows as one_by_one
from normcore_pooling.interval_forward import MAX
from normcore_pooling.interval_windows import REGULAR, Geometry, check_rank, tap_dtype
from normcore_pooling.links import of_windows
from normcore_pooling.max_planes import backward_planes
from normcore_pooling.positions import MATCH, NO_FACTORS, arguments, reduce_positions, scratch_arrays
from normcore_pooling.stochastic_expected import expected_gradient_lines
from normcore_pooling.stochastic_lines import SHORTEST, cut_of, forward_first, forward_last


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
            workspace={
                **cut_of(*x.shape[:2], found, x.dtype).scratch(),
                **scratch_arrays(of_windows(_three(found))),
            },
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
            forward = self._made(t, one_by_one.forward_cpu)
            forward[t](*self._arrays(t, g), t.key, t.call, t.training, *g.windows[1:])

    def backward_cpu(self, t):
        if t.dx is None or not t.dx.size:
            return
        g = self._geometry(t)
        if not t.training:
            kernel = expected_gradient_lines.with_constants(TAP=t.arg.dtype.type)
            read = (a.reshape(-1) for a in (t.x, t.y, t.dy, t.arg, t.sums))
            sizes = (g.x[0], g.x[-1], g.parts, g.size, g.out, g.stride)
            kernel[t](*read, t.dx.reshape(-1), g.places[0], *sizes)
        elif t.format == "channels_first":
            planes = (g.x[0], -1)
            dy, arg, dx = t.dy.reshape(planes), t.arg.reshape(planes), t.dx.reshape(planes)
            backward_planes[t](dy, arg, dx, g.starts, g.reach)
        else:
            reduce = reduce_positions.with_constants(OPERATION=MATCH)
            reduce[t](t.dy.reshape(-1), t.dx.reshape(-1), t.arg, NO_FACTORS, *g.links)

    def forward_cuda(self, t):
        if t.y.size:
            g, made = self._geometry(t), self._made(t, one_by_one.forward_cuda)
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
            kernel = self._made(t, one_by_one.expected_gradient_cuda)
            x, y = t.x.reshape(g.x), t.y.reshape(g.y)
            kernel[t, t.dx.size](x, y, dy, arg, sums, t.dx.reshape(-1), *g.windows)

    def _geometry(self, t):
        g = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if g is None:
            spatial = t.x.shape[2:] if t.format == "channels_first" else t.x.shape[1:-1]
            g = t.geometry = _Geometry(t, self.windows(spatial))
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


def _three(found):
    """The Windows of depth, height and width."""
    return (ONE,) * (3 - len(found)) + tuple(found)


class _Geometry(Geometry):
    """Also, for kernels on the CPU: how outputs are cut, where taps and windows lie, which windows hold an input."""

    def __init__(self, t, found):
        out, taps, stride = zip(*((w.out, w.kernel, w.stride) for w in found), strict=True)
        super().__init__(t.x.shape, t.format, out, taps, stride)
        samples = t.x.shape[0]
        channels = t.x.shape[1 if t.format == "channels_first" else -1]
        self.cut = cut_of(samples, channels, found, t.dtype)
        self.parts = 1 if self.x[-1] == 1 else max(1, min(self.x[-1] // 16, -(-16 // samples)))
        self.places = self.cut.places(self.size, self.kernel, self.x[-1])
        if t.format == "channels_first":
            d, h, w = (np.arange(n) * step for n, step in zip(self.out, self.stride, strict=True))
            starts = (d[:, None, None] * self.size[1] + h[:, None]) * self.size[2] + w
            self.starts, self.reach = (a.astype(np.uint64) for a in (starts.reshape(-1), self.places[0]))
        else:
            both = of_windows(_three(found))
            self.links = arguments(both, samples, channels, "backward", t.terms, t.weights)
