"""Mixed pooling: maximum and average of each window, in a proportion that is learned.

Forward:  y_o = mix * max of window o + (1 - mix) * mean of window o
Backward: dx_i = sum over the windows o that hold i of dy_o * (mix * [i is the first maximum] + (1 - mix) / count)
          dmix = sum over o of dy_o * (max - mean)

mix is one number for the layer, initially 0.5, and not confined to 0 .. 1 (the paper does not confine it either;
outside, one of the two is subtracted). NaN anywhere in a window makes its output NaN.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with out = (size - kernel) // stride + 1:
no padding, windows that the end cuts are left out. mix (1,). float32 and float64.

Source: Lee, Gallagher and Tu 2016, "Generalizing pooling functions in convolutional neural networks: mixed,
gated, and tree", arXiv:1509.08985, section 3.1 (one mixing proportion per layer).
"""

import math

import numpy as np

from normcore import Array, Op, Plan, Tensor
from normcore.shapes import ONE, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import interval_backward as backward
from normcore_pooling import interval_forward as forward
from normcore_pooling.interval_windows import REGULAR, Geometry, check_rank, tap_dtype
from normcore_pooling.links import of_windows
from normcore_pooling.positions import SHARE, arguments, reduce_positions, scratch_arrays
from normcore_pooling.reduce import spatial_of


class MixedPool(
    Op,
    name="mixed_pool",
    learnable=("mix",),
    source="Lee, Gallagher and Tu 2016, arXiv:1509.08985, section 3.1",
):
    """mix * max + (1 - mix) * mean of each window, with one learned number mix.

    kernel_size, stride (default: kernel_size): a number, or one for each spatial dimension.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None

    formats = ("channels_last",)  # gathering whole positions beats any kernel on planes, conversions included
    cuda_formats = ("channels_last", "channels_first")
    backward_needs = ()

    samples = (
        Sample("overlapping windows", shape=(2, 3, 9, 11), params={"kernel_size": 3, "stride": 2}),
        Sample("windows side by side, a remainder left out", shape=(2, 17, 7, 8), params={"kernel_size": 2}),
        Sample("one dimension, gaps", shape=(2, 3, 11), params={"kernel_size": 2, "stride": 3}),
        Sample(
            "three dimensions, all different",
            shape=(1, 2, 5, 6, 7),
            params={"kernel_size": (2, 3, 1), "stride": (1, 2, 3)},
        ),
    )
    benchmarks = (
        Sample("AlexNet, first pool", shape=(32, 96, 55, 55), params={"kernel_size": 3, "stride": 2}),
        Sample("halves a map", shape=(128, 64, 32, 32), params={"kernel_size": 2}),
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

    def _three(self, spatial):
        """The same of depth, height and width."""
        found = self.windows(spatial)
        return (ONE,) * (3 - len(found)) + tuple(found)

    def plan(self, x: Tensor) -> Plan:
        check_rank(self.name, x.shape)
        found = self.windows(x.shape[2:])
        shape = (*x.shape[:2], *(w.out for w in found))
        taps = math.prod(w.kernel for w in found)
        size = math.prod(shape)
        return Plan(
            y=shape,
            parameters={"mix": Array((1,), init={"constant": {"value": 0.5}})},
            saved={"arg": Array((size,), tap_dtype(taps)), "rest": Array((size,))},
            workspace={
                "partial": Array((-(-size // backward.CHUNK),), "float64"),
                **scratch_arrays(of_windows(self._three(x.shape[2:]))),
            },
            flops=2 * size * taps,
        )

    def forward_cpu(self, t):
        g, kernel = self._prepared(t, forward.mix_cpu)
        if t.y.size:
            kernel[t](*self._arrays(t, g)[:5], *g.windows[1:])

    def backward_cpu(self, t):
        backward.mix_gradient_cpu[t](t.dy.reshape(-1), t.rest, t.partial, t.dmix)
        if t.dx is not None and t.dx.size:
            links = vars(t).get("links")
            if links is None:
                found = self._three(spatial_of(t))
                both, t.taps = of_windows(found), math.prod(w.kernel for w in found)
                links = t.links = arguments(
                    both, t.dx.shape[0], t.dx.shape[-1], "backward", t.terms, t.weights
                )
                t.shares = np.empty(2)
            mix = float(t.mix[0])
            t.shares[1] = (1 - mix) / t.taps
            t.shares[0] = mix + t.shares[1]
            share = reduce_positions.with_constants(OPERATION=SHARE)
            share[t](t.dy.reshape(-1), t.dx.reshape(-1), t.arg, t.shares, *links)

    def forward_cuda(self, t):
        g, kernel = self._prepared(t, forward.forward_cuda)
        kernel[t, t.y.size](*self._arrays(t, g), *g.windows)

    def backward_cuda(self, t):
        g, kernel = self._prepared(t, backward.backward_cuda)
        extent = (min(65535, t.partial.size), backward.THREADS)
        backward.mix_partials_cuda[t, extent](t.dy.reshape(-1), t.rest, t.partial)
        backward.mix_total_cuda[t, 1](t.partial, t.dmix)
        if t.dx is not None:
            kernel[t, t.dx.size](*self._gradients(t, g), *g.windows)

    def _prepared(self, t, kernel):
        g = vars(t).get("geometry")  # depends on the bound shapes alone, so it is worked out once
        if g is None:
            spatial = t.x.shape[2:] if t.format == "channels_first" else t.x.shape[1:-1]
            found = self.windows(spatial)
            out, taps, stride = zip(*((w.out, w.kernel, w.stride) for w in found), strict=True)
            g = t.geometry = Geometry(t.x.shape, t.format, out, taps, stride)
        tap = t.arg.dtype.type
        return g, kernel.with_constants(RULE=REGULAR, MODE=forward.MIXED, TAP=tap)

    def _arrays(self, t, g):
        y = (t.y.reshape(g.y), t.arg.reshape(g.y), t.rest.reshape(g.y))
        return t.x.reshape(g.x), *y, t.mix, t.rest.reshape(1, -1)

    def _gradients(self, t, g):
        return t.dy.reshape(g.y), t.arg.reshape(g.y), t.dx.reshape(g.x), t.mix, t.rest.reshape(1, -1)

    def in_torch(self, torch, x, *, training, mix, **arrays):
        rank = x.dim() - 2
        largest = getattr(torch.nn.functional, f"max_pool{rank}d")(x, self.kernel_size, self.stride)
        mean = getattr(torch.nn.functional, f"avg_pool{rank}d")(x, self.kernel_size, self.stride)
        return mix * largest + (1 - mix) * mean

    def reference(self, x, mix, **arrays):
        """All windows at once, as strided views."""
        x = np.asarray(x, np.float64)
        found = self.windows(x.shape[2:])
        axes = tuple(range(2, x.ndim))
        views = np.lib.stride_tricks.sliding_window_view(x, tuple(w.kernel for w in found), axes)
        views = views[(slice(None), slice(None), *(slice(None, None, w.stride) for w in found))]
        taps = tuple(range(x.ndim, views.ndim))
        return mix[0] * views.max(axis=taps) + (1 - mix[0]) * views.mean(axis=taps)
