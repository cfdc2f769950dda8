"""relu_squared: the square of a relu.

Forward   y = max(x, 0)^2
Gradient  dy/dx = 2 max(x, 0)
Any shape, float32 and float64. NaN stays NaN; y overflows to inf where x^2 does (x above 1.8e19 in float32).
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(source="So et al. 2021, Primer, arXiv:2109.08668")
class relu_squared:
    """y = max(x, 0)^2; dy/dx = 2 max(x, 0)."""

    benchmarks = sizes.elementwise()

    def forward(x):
        r = 0.0 if x < 0.0 else x
        return r * r

    def derivative(x, y):
        return 2.0 * (0.0 if x < 0.0 else x)

    def reference(x):
        return np.where(x > 0.0, np.abs(x) ** 2, 0.0 * x)

    def in_torch(torch, x):
        return torch.relu(x).square()
