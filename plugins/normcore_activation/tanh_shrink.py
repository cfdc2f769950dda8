"""tanh_shrink: what tanh takes away.

Forward   y = x - tanh(x)
Gradient  dy/dx = tanh(x)^2
Numerics  Near zero y = x^3/3 - ... is a difference of nearly equal numbers: its absolute error stays below
          that of tanh (1e-7 in float32), its relative error does not. The gradient, a square, is accurate
          everywhere.
Any shape, float32 and float64. Infinities stay infinities with slope 1.
"""

import math

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(source="torch.nn.Tanhshrink")
class tanh_shrink:
    """y = x - tanh(x); dy/dx = tanh(x)^2."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return x - math.tanh(x)

    def derivative(x, y):
        t = math.tanh(x)
        return t * t

    def reference(x):
        e = np.exp(-2.0 * np.abs(x))
        return x - np.sign(x) * (1.0 - e) / (1.0 + e)

    def in_torch(torch, x):
        return torch.nn.functional.tanhshrink(x)
