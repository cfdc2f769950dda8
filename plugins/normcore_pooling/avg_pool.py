"""Average pooling: the mean of each window that slides over the map.

Forward:  y_o = 1/n_o * sum of x over the window o, where the padding adds 0
Backward: dx_i = sum of dy_o / n_o over the windows o that cover x_i

n_o, what a window divides by, is PyTorch's:
    count_include_pad=True    its elements in the input and in the padding given; those that ceil_mode lets stick
                              out beyond the padding do not count
    count_include_pad=False   its elements in the input
    divisor_override=n        n
Where windows tile the map without padding, the sum of dx is the sum of dy.

Numerics: sums in the kernel's precision, in blocks of 128. Backward gathers: no atomics, one order of additions.

Elsewhere: ONNX (AveragePool 19 and later) has count_include_pad=0 by default, and so has TensorFlow with "same": give
count_include_pad=False for both. Caffe counts as count_include_pad=True and rounds sizes up: give ceil_mode=True.

Shapes: x (N, C, *spatial) with 1 to 3 spatial dimensions, y (N, C, *out) with `out` of normcore.shapes.windows.
float32 and float64. A window larger than the padded input, padding of more than half the kernel, a stride of 0 and
a wrong number of sizes are errors that show the arithmetic.

Source: LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document recognition", II.B.
"""

import numpy as np

from normcore import Op, ParameterError, Plan, Tensor
from normcore.shapes import check_padding, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample
from normcore_pooling import sizes
from normcore_pooling.reduce import (
    EVERYTHING,
    INSIDE,
    NOTHING,
    Reduction,
    check_map,
    geometry_of_windows,
    spatial_of,
    workspace,
)


class AvgPool(Op, name="avg_pool", aliases=("mean_pool",), source="LeCun et al. 1998, section II.B"):
    """The mean of each window.

    kernel_size, stride (default: kernel_size): a number, or one for each spatial dimension. padding: the same, or
    [before, after] pairs, or "same". ceil_mode: keep windows that the right end cuts. count_include_pad: padding
    counts as elements. divisor_override: divide by this instead of the number of elements.
    """

    kernel_size: int | tuple[int, ...]
    stride: int | tuple[int, ...] | None = None
    padding: int | str | tuple[int | tuple[int, int], ...] = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    formats = ("channels_last",)  # gathering whole positions beats any kernel on planes, conversions included
    cuda_formats = ("channels_last", "channels_first")
    backward_needs = ()

    samples = (
        Sample("overlapping windows", shape=(2, 5, 9, 11), params={"kernel_size": 3, "stride": 2}),
        Sample("padding counts", shape=(2, 3, 6, 5), params={"kernel_size": 3, "stride": 1, "padding": 1}),
        Sample(
            "padding does not count",
            shape=(1, 3, 6, 5),
            params={"kernel_size": 3, "stride": 2, "padding": 1, "count_include_pad": False},
        ),
        Sample(
            "cut windows",
            shape=(2, 3, 8),
            params={"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
        ),
        Sample(
            "a divisor of its own",
            shape=(1, 2, 5, 6, 7),
            params={"kernel_size": (2, 3, 1), "stride": (1, 2, 3), "divisor_override": 5},
        ),
        Sample(
            "same size, sides differ",
            shape=(1, 2, 5, 6),
            params={"kernel_size": 2, "stride": 1, "padding": "same"},
        ),
    )
    error_samples = (
        ErrorSample(
            "larger than the input", {"kernel_size": 5}, (2, 3, 4, 4), "4 + padding 0 + 0 = 4 elements"
        ),
        ErrorSample("padding over half", {"kernel_size": 2, "padding": 2}, (2, 3, 8, 8), "at most half"),
        ErrorSample("no step", {"kernel_size": 2, "stride": 0}, None, "stride"),
        ErrorSample("no divisor", {"kernel_size": 2, "divisor_override": 0}, None, "divisor_override"),
        ErrorSample("nothing to slide over", {"kernel_size": 2}, (2, 3), "spatial"),
    )
    benchmarks = sizes.windows()

    def check(self):
        check_sizes("kernel_size", self.kernel_size)
        if self.stride is not None:
            check_sizes("stride", self.stride)
        check_padding(self.padding)
        if self.divisor_override is not None and self.divisor_override < 1:
            raise ParameterError("divisor_override", "a whole number above 0, or null", self.divisor_override)

    def windows(self, spatial):
        stride = self.kernel_size if self.stride is None else self.stride
        sliding = (self.kernel_size, stride, self.padding, 1, self.ceil_mode)
        return windows(spatial, *sliding, op=self.name, half_padding=True)

    def geometry(self, spatial):
        counted = EVERYTHING if self.count_include_pad else INSIDE
        if self.divisor_override is not None:
            counted = NOTHING
        return geometry_of_windows(self.windows(spatial), counted, self.divisor_override or 1)

    def plan(self, x: Tensor) -> Plan:
        check_map(self.name, x.shape)
        geometry = self.geometry(x.shape[2:])
        shape = (*x.shape[:2], *geometry.out[5 - len(x.shape) :])
        taps = int(np.prod([w.kernel for w in geometry.windows]))
        return Plan(y=shape, workspace=workspace(geometry, x.shape), flops=int(np.prod(shape)) * taps)

    def _reduction(self, t):
        return Reduction.of(t, t.x.shape, lambda: self.geometry(spatial_of(t)))

    def forward_cpu(self, t):
        self._reduction(t).average(t, t.x, t.y)

    def backward_cpu(self, t):
        if t.dx is not None:
            self._reduction(t).spread(t, t.dy, t.dx)

    def forward_cuda(self, t):
        self._reduction(t).average_cuda(t, t.x, t.y)

    def backward_cuda(self, t):
        if t.dx is not None:
            self._reduction(t).spread_cuda(t, t.dy, t.dx)

    def in_torch(self, torch, x, *, training, **arrays):
        found = self.windows(tuple(x.shape[2:]))
        if any(w.before != w.after for w in found):
            raise NotImplementedError("average pooling with different padding before and after")
        pool = getattr(torch.nn.functional, f"avg_pool{len(found)}d")
        given = [tuple(getattr(w, k) for w in found) for k in ("kernel", "stride", "before")]
        more = {} if len(found) == 1 else {"divisor_override": self.divisor_override}
        if len(found) == 1 and self.divisor_override is not None:
            raise NotImplementedError("divisor_override in one dimension")
        return pool(x, *given, self.ceil_mode, self.count_include_pad, **more)

    def reference(self, x, **arrays):
        """Window by window."""
        x = np.asarray(x, np.float64)
        axes = self.windows(x.shape[2:])
        y = np.empty((*x.shape[:2], *(w.out for w in axes)))
        for o in np.ndindex(*y.shape[2:]):
            lows = [i * w.stride - w.before for i, w in zip(o, axes, strict=True)]
            inside = [range(max(0, s), min(w.size, s + w.kernel)) for s, w in zip(lows, axes, strict=True)]
            padded = [min(s + w.kernel, w.size + w.after) - s for s, w in zip(lows, axes, strict=True)]
            count = np.prod(padded if self.count_include_pad else [len(r) for r in inside])
            total = x[(..., *np.ix_(*inside))].reshape(*x.shape[:2], -1).sum(-1)
            y[(..., *o)] = total / (self.divisor_override or count)
        return y
