"""softsign: a sigmoid-like curve with slow tails and no exponential.

Forward   y = x / (1 + |x|)
Gradient  dy/dx = 1 / (1 + |x|)^2
Numerics  Two roundings, relatively accurate everywhere. At an infinity the value is inf / inf, NaN as in PyTorch;
          the slope there is its limit, 0, where PyTorch's sum of two terms has inf times 0.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(
    source="Bergstra, Desjardins, Lamblin and Bengio 2009, Quadratic polynomials learn better image features"
)
class softsign:
    """y = x / (1 + |x|); dy/dx = 1 / (1 + |x|)^2."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return x / (1.0 + abs(x))

    def derivative(x, y):
        r = 1.0 / (1.0 + abs(x))
        return r * r

    def reference(x):
        return x * (1.0 / (1.0 + np.abs(x)))

    def in_torch(torch, x):
        return torch.nn.functional.softsign(x)
