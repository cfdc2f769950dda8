"""hard_sigmoid: a sigmoid of three straight lines.

Forward   y = (x + 3) / 6 between -3 and 3, 0 below, 1 above
Gradient  dy/dx = 1/6 inside, 0 outside and at both kinks (PyTorch)
Numerics  x + 3 is added first: near -3 it is exact. PyTorch's slope; Keras and Theano use 0.2 x + 0.5.
Any shape, float32 and float64. NaN stays NaN.
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(source="Courbariaux, Bengio and David 2015, arXiv:1511.00363; slope as in PyTorch")
class hard_sigmoid:
    """y = min(max(x + 3, 0), 6) / 6; dy/dx = 1/6 for |x| < 3, else 0."""

    benchmarks = sizes.elementwise()

    def forward(x):
        y = (x + 3.0) / 6.0
        y = 0.0 if x <= -3.0 else y
        return 1.0 if x >= 3.0 else y

    def derivative(x, y):
        return 1.0 / 6.0 if abs(x) < 3.0 else 0.0

    def reference(x):
        return np.clip(x / 6.0 + 0.5, 0.0, 1.0)

    def in_torch(torch, x):
        return torch.nn.functional.hardsigmoid(x)
