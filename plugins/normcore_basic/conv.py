"""Convolution (cross-correlation, as everybody's) in one, two or three spatial dimensions.

Forward:  y[n, o, p] = bias[o] + sum over c, t of x[n, c, p * stride + t * dilation - before] * weight[o, c, t]
          where c runs over the channels of o's group, and x is zero outside its edges
Backward: dx[n, c, i] = sum over o, t, p with p * stride + t * dilation - before = i of dy[n, o, p] weight[o, c, t]
          dweight[o, c, t] = sum over n, p of dy[n, o, p] * x[n, c, p * stride + t * dilation - before]
          dbias[o] = sum over n, p of dy[n, o, p]

On the CPU both are implicit matrix products of channels-last windows (normcore.kernels.convolution): no im2col
matrix, no BLAS, and the same bits for any number of threads. dx gathers; dweight is summed over fixed chunks.

Shapes: x (N, C, *spatial), y (N, out_channels, *out) with out = (size + before + after - span) // stride + 1 and
span = (kernel - 1) * dilation + 1; weight (out_channels, C / groups, *kernel), bias (out_channels,). float32 and
float64. Channels that groups do not divide and windows larger than the padded input are ShapeErrors.

Source: LeCun et al. 1998, "Gradient-based learning applied to document recognition"; groups as in AlexNet,
Krizhevsky et al. 2012; padding "same" as in ONNX (SAME_UPPER). Initial values are PyTorch's: uniform on
+-1 / sqrt(C / groups * window), which is He et al. 2015 (arXiv:1502.01852) with a = sqrt(5).
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import convolution, convolution_cuda
from normcore.shapes import ONE, Window, check_padding, check_sizes, windows
from normcore.testing.samples import ErrorSample, Sample


class Conv(
    Op, name="conv", aliases=("convolution",), learnable=("weight", "bias"), source="LeCun et al. 1998"
):
    """Convolution with out_channels filters; the number of spatial dimensions is the input's.

    kernel_size, stride, dilation: a number, or one per spatial dimension. padding: zeros around the input, a
    number, one per dimension, [before, after] pairs, or "same" (output ceil(input / stride)). groups: channels are
    split into so many parts that do not see each other (AlexNet's two GPUs). bias: add one number per filter.
    """

    out_channels: int
    kernel_size: int | Sequence[int]
    stride: int | Sequence[int] = 1
    padding: int | str | Sequence[int | Sequence[int]] = 0
    dilation: int | Sequence[int] = 1
    groups: int = 1
    bias: bool = True

    formats = ("channels_last",)
    backward_needs = ("x",)
    epilogue = "output"

    def check(self):
        for name in ("out_channels", "groups"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ParameterError(name, "a whole number, at least 1", value)
        for name in ("kernel_size", "stride", "dilation"):
            check_sizes(name, getattr(self, name))
        check_padding(self.padding)
        if self.out_channels % self.groups:
            rest = self.out_channels % self.groups
            whole = self.out_channels // self.groups
            expected = f"a divisor of out_channels ({self.out_channels} = {whole} * {self.groups} + {rest})"
            raise ParameterError("groups", expected, self.groups)

    def plan(self, x: Tensor) -> Plan:
        rank = len(x.shape) - 2
        if not 1 <= rank <= 3:
            raise ShapeError(
                f"conv: expected an input (N, C, *spatial) with 1 to 3 spatial dimensions, got {x.shape}"
            )
        channels = x.shape[1]
        if channels < 1 or channels % self.groups:
            whole, rest = divmod(channels, self.groups)
            raise ShapeError(
                f"conv: groups={self.groups} must divide the input's {channels} channels: "
                f"{channels} = {whole} * {self.groups} + {rest}"
            )
        found = self._windows(x.shape[2:])
        shape = self._shape(x.shape[0], channels, found, x.dtype)
        kernel = tuple(w.kernel for w in found)
        taps = math.prod(kernel)
        fan = (channels // self.groups * taps, self.out_channels // self.groups * taps)
        weight = (self.out_channels, channels // self.groups, *kernel)
        parameters = {"weight": Array(weight, init="torch_default_weight", fan=fan)}
        if self.bias:
            parameters["bias"] = Array((self.out_channels,), init="torch_default_bias", fan=fan)
        y = (x.shape[0], self.out_channels, *(w.out for w in found))
        return Plan(y, parameters, workspace=convolution.workspace(shape), flops=shape.flops)

    def _windows(self, spatial: Sequence[int]) -> tuple[Window, ...]:
        return windows(spatial, self.kernel_size, self.stride, self.padding, self.dilation, op="conv")

    def _shape(
        self, batch: int, channels: int, found: tuple[Window, ...], dtype: str
    ) -> convolution.Convolution:
        three = (ONE,) * (3 - len(found)) + found
        size, out, kernel, stride, before, dilation = (
            tuple(getattr(w, name) for w in three)
            for name in ("size", "out", "kernel", "stride", "before", "dilation")
        )
        return convolution.Convolution(
            batch,
            size,
            channels,
            self.out_channels,
            out,
            kernel,
            stride,
            before,
            dilation,
            self.groups,
            self.bias,
            dtype,
        )

    def _of(self, t) -> convolution.Convolution:
        return self._shape(t.x.shape[0], t.x.shape[-1], self._windows(t.x.shape[1:-1]), t.dtype)

    # -- CPU: x (N, *spatial, C), y (N, *out, out_channels) --------------------------------------------------------

    def forward_cpu(self, t):
        convolution.forward(t, self._of(t))

    def backward_cpu(self, t):
        convolution.backward(t, self._of(t))

    # -- CUDA: the same arrays ----------------------------------------------------------------------------------

    def forward_cuda(self, t):
        convolution_cuda.forward(t, self._of(t))

    def backward_cuda(self, t):
        convolution_cuda.backward(t, self._of(t))

    # -- reference: tap by tap, each a product over channels -------------------------------------------------------

    def reference(self, x, weight, bias=None, training=True):
        found = self._windows(x.shape[2:])
        padded = np.pad(x, [(0, 0), (0, 0)] + [(w.before, w.after + w.stride) for w in found])
        y = np.zeros((x.shape[0], self.out_channels, *(w.out for w in found)))
        inner, outer = x.shape[1] // self.groups, self.out_channels // self.groups
        for tap in itertools.product(*(range(w.kernel) for w in found)):
            cut = tuple(
                slice(t * w.dilation, t * w.dilation + w.out * w.stride, w.stride) for t, w in zip(tap, found)
            )
            seen = padded[(slice(None), slice(None), *cut)]
            for g in range(self.groups):
                of, to = slice(g * inner, (g + 1) * inner), slice(g * outer, (g + 1) * outer)
                y[:, to] += np.einsum("nc...,oc->no...", seen[:, of], weight[(to, slice(None), *tap)])
        if bias is not None:
            y += bias.reshape(-1, *(1,) * len(found))
        return y

    def in_torch(self, torch, x, *, training, weight, bias=None):
        functional, found = torch.nn.functional, self._windows(tuple(x.shape[2:]))
        padding = tuple(w.before for w in found)
        if any(w.before != w.after for w in found):  # PyTorch pads both sides alike
            x = functional.pad(x, [side for w in reversed(found) for side in (w.before, w.after)])
            padding = (0,) * len(found)
        stride, dilation = tuple(w.stride for w in found), tuple(w.dilation for w in found)
        conv = getattr(functional, f"conv{len(found)}d")
        return conv(x, weight, bias, stride, padding, dilation, self.groups)

    samples = (
        Sample(
            "3 x 3, same", shape=(2, 5, 7, 6), params={"out_channels": 9, "kernel_size": 3, "padding": "same"}
        ),
        Sample(
            "one channel takes its own path",
            shape=(2, 1, 9, 8),
            params={"out_channels": 4, "kernel_size": 3, "padding": 1},
        ),
        Sample(
            "stride, groups, no bias",
            shape=(2, 4, 9, 8),
            params={
                "out_channels": 6,
                "kernel_size": 3,
                "stride": 2,
                "padding": 1,
                "groups": 2,
                "bias": False,
            },
        ),
        Sample(
            "dilation and padding that differs by side",
            shape=(1, 3, 10, 9),
            params={"out_channels": 4, "kernel_size": [3, 2], "dilation": 2, "padding": [[0, 1], [2, 0]]},
        ),
        Sample("pointwise", shape=(2, 5, 4, 3), params={"out_channels": 7, "kernel_size": 1}),
        Sample(
            "pointwise, stride 2",
            shape=(2, 5, 5, 4),
            params={"out_channels": 3, "kernel_size": 1, "stride": 2},
        ),
        Sample("one dimension", shape=(2, 3, 11), params={"out_channels": 4, "kernel_size": 4, "stride": 3}),
        Sample(
            "three dimensions",
            shape=(1, 2, 4, 5, 3),
            params={"out_channels": 3, "kernel_size": [2, 3, 1], "padding": 1, "stride": [2, 1, 2]},
        ),
        Sample(
            "a stride larger than the window",
            shape=(2, 3, 9),
            params={"out_channels": 2, "kernel_size": 2, "stride": 4},
        ),
        Sample("an empty batch", shape=(0, 2, 5, 5), params={"out_channels": 3, "kernel_size": 3}),
    )
    benchmarks = (
        Sample(
            "AlexNet's third",
            shape=(32, 256, 13, 13),
            params={"out_channels": 384, "kernel_size": 3, "padding": 1},
        ),
        Sample(
            "a residual block's",
            shape=(64, 64, 32, 32),
            params={"out_channels": 64, "kernel_size": 3, "padding": 1},
        ),
        Sample("an inception path's", shape=(32, 192, 28, 28), params={"out_channels": 64, "kernel_size": 1}),
        Sample(
            "ResNet-20's first stage",
            shape=(128, 16, 32, 32),
            params={"out_channels": 16, "kernel_size": 3, "padding": 1},
        ),
    )
    error_samples = (
        ErrorSample("no filters", {"out_channels": 0, "kernel_size": 1}, None, "at least 1"),
        ErrorSample(
            "groups and out_channels",
            {"out_channels": 4, "kernel_size": 1, "groups": 3},
            None,
            "4 = 1 * 3 + 1",
        ),
        ErrorSample(
            "groups and channels",
            {"out_channels": 4, "kernel_size": 1, "groups": 2},
            (2, 5, 4, 4),
            "5 = 2 * 2 + 1",
        ),
        ErrorSample("window", {"out_channels": 4, "kernel_size": 5}, (2, 3, 4, 4), "no window fits"),
        ErrorSample(
            "no spatial dimension", {"out_channels": 4, "kernel_size": 1}, (2, 3), "1 to 3 spatial dimensions"
        ),
    )
