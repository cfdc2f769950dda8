"""exponential: e to the power of the input.

Forward   y = e^x
Gradient  dy/dx = y, from the output alone
Any shape, float32 and float64. inf above 88.7 (float32) or 709.8 (float64), 0 at -inf.
"""

import math

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(source="Keras activation `exponential`")
class exponential:
    """y = exp(x); dy/dx = y."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return math.exp(x)

    def derivative(x, y):
        return y

    def reference(x):
        return np.exp2(0.5 * x / np.log(2.0)) ** 2

    def in_torch(torch, x):
        return torch.exp(x)
