"""abs: the absolute value.

Forward   y = |x|
Gradient  dy/dx = 1 for x > 0, -1 for x < 0, 0 at the kink (PyTorch)
Any shape, float32 and float64. NaN stays NaN, -0.0 becomes 0.0.
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(
    name="abs",
    source="Jarrett, Kavukcuoglu, Ranzato and LeCun 2009, What is the best multi-stage architecture",
)
class absolute:  # a class called abs would hide the function that forward calls
    """y = |x|; dy/dx = sign(x)."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return abs(x)

    def derivative(x, y):
        d = 1.0 if x > 0.0 else 0.0
        return -1.0 if x < 0.0 else d

    def reference(x):
        return np.sqrt(np.square(x))

    def in_torch(torch, x):
        return torch.abs(x)
