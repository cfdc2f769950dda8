"""Dense (fully connected) layer over the last axis.

Forward:  y[.., o] = sum_i x[.., i] weight[o, i] + bias[o]
Backward: dx = dy weight    dweight = dy^T x    dbias = sum of dy over all but the last axis

On the CPU it is register tiles (normcore.kernels.dense, and for many rows normcore.kernels.convolution) instead of
BLAS, so the bits do not depend on the number of threads. On the GPU it is cuBLAS.

Shapes: x (N, .., in), y (N, .., out_features) of any rank from 2 on, weight (out_features, in), bias
(out_features,). float32 and float64. Fewer than two axes, or an empty last one, is a ShapeError.

Source: PyTorch's Linear, initial values included: uniform on +-1 / sqrt(in), which is He et al. 2015
(arXiv:1502.01852) with a = sqrt(5).
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import convolution_cuda, dense
from normcore.testing.samples import ErrorSample, Sample


class Dense(Op, name="dense", aliases=("linear",), learnable=("weight", "bias"), source="PyTorch's Linear"):
    """y = x weight^T + bias over the last axis, to out_features values."""

    out_features: int
    bias: bool = True

    backward_needs = ("x",)
    epilogue = "output"

    def check(self):
        if (
            isinstance(self.out_features, bool)
            or not isinstance(self.out_features, int)
            or self.out_features < 1
        ):
            raise ParameterError("out_features", "a whole number, at least 1", self.out_features)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"dense: expected an input (N, .., features) of two axes or more, got {x.shape}")
        if x.shape[-1] < 1:
            raise ShapeError(f"dense: the last axis of {x.shape} is empty; it needs at least one feature")
        shape = self._shape(x.shape, x.dtype)
        fan = (x.shape[-1], self.out_features)
        parameters = {"weight": Array((self.out_features, x.shape[-1]), init="torch_default_weight", fan=fan)}
        if self.bias:
            parameters["bias"] = Array((self.out_features,), init="torch_default_bias", fan=fan)
        y = (*x.shape[:-1], self.out_features)
        return Plan(y, parameters, workspace=dense.workspace(shape), flops=shape.flops)

    def _shape(self, x: tuple[int, ...], dtype: str) -> dense.Dense:
        return dense.Dense(math.prod(x[:-1]), x[-1], self.out_features, self.bias, dtype)

    def forward_cpu(self, t):
        dense.forward(t, self._shape(t.x.shape, t.dtype))

    def backward_cpu(self, t):
        dense.backward(t, self._shape(t.x.shape, t.dtype))

    def forward_cuda(self, t):
        convolution_cuda.forward(t, dense.as_convolution(self._shape(t.x.shape, t.dtype)))

    def backward_cuda(self, t):
        convolution_cuda.backward(t, dense.as_convolution(self._shape(t.x.shape, t.dtype)))

    def reference(self, x, weight, bias=None, training=True):
        y = np.einsum("...i,oi->...o", x, weight)
        return y if bias is None else y + bias

    def in_torch(self, torch, x, *, training, weight, bias=None):
        return torch.nn.functional.linear(x, weight, bias)

    samples = (
        Sample("odd sizes leave partial tiles on all sides", shape=(7, 19), params={"out_features": 37}),
        Sample("one output, no bias", shape=(5, 3), params={"out_features": 1, "bias": False}),
        Sample("a sequence: the last of three axes", shape=(2, 5, 4), params={"out_features": 6}),
        Sample("depth beyond one chunk", shape=(3, 700), params={"out_features": 17}),
        Sample("an empty batch", shape=(0, 4), params={"out_features": 3}),
    )
    error_samples = (
        ErrorSample("no outputs", {"out_features": 0}, None, "at least 1"),
        ErrorSample("a vector has no batch axis", {"out_features": 2}, (4,), "two axes or more"),
        ErrorSample("no features", {"out_features": 2}, (4, 0), "at least one feature"),
    )
