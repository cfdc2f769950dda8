"""tanh: the hyperbolic tangent, from -1 to 1.

Forward   y = (e^x - e^-x) / (e^x + e^-x)
Gradient  dy/dx = (1 - y) (1 + y), from the output alone
Numerics  The kernels' tanh is a polynomial near zero and 1 - 2 / (e^2x + 1) beyond, within 2 ulp everywhere;
          the product form of the gradient loses nothing that the rounded y still has. Signed zero is kept.
Any shape, float32 and float64.
"""

import math

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(source="LeCun, Bottou, Orr and Müller 1998, Efficient BackProp")
class tanh:
    """y = tanh(x); dy/dx = 1 - y^2."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return math.tanh(x)

    def derivative(x, y):
        return (1.0 - y) * (1.0 + y)

    def reference(x):
        e = np.expm1(-2.0 * np.abs(x))
        return np.copysign(-e / (e + 2.0), x)

    def in_torch(torch, x):
        return torch.tanh(x)
