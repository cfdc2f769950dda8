"""hard_swish: a swish with the sigmoid replaced by straight lines.

Forward   y = x (x + 3) / 6 between -3 and 3, 0 below, x above
Gradient  dy/dx = x/3 + 1/2 inside, 0 for x <= -3, 1 for x >= 3 (PyTorch)
Numerics  x + 3 first: near -3 it is exact. The parts outside are selected, not multiplied: -inf gives 0.
Any shape, float32 and float64. NaN stays NaN.
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(source="Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244")
class hard_swish:
    """y = x min(max(x + 3, 0), 6) / 6; dy/dx = x/3 + 1/2 for |x| < 3, 0 below, 1 above."""

    benchmarks = sizes.elementwise()

    def forward(x):
        y = x * (x + 3.0) / 6.0
        y = 0.0 if x <= -3.0 else y
        return x if x >= 3.0 else y

    def derivative(x, y):
        d = x / 3.0 + 0.5
        d = 0.0 if x <= -3.0 else d
        return 1.0 if x >= 3.0 else d

    def reference(x):
        return x * np.clip(x / 6.0 + 0.5, 0.0, 1.0)

    def in_torch(torch, x):
        return torch.nn.functional.hardswish(x)
