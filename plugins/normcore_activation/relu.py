"""relu: the rectified linear unit.

Forward   y = max(x, 0)
Gradient  dy/dx = 1 for x > 0, else 0; 0 at the kink (PyTorch). Read off the output: y > 0 where x > 0.
Any shape, float32 and float64. NaN stays NaN (a plain max(x, 0) would drop it), -0.0 stays, -inf gives 0.
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(
    source="Nair and Hinton 2010, Rectified linear units improve restricted Boltzmann machines; "
    "Krizhevsky, Sutskever and Hinton 2012",
    commutes_with_max=True,  # non-decreasing, and what ties it makes have gradient 0
)
class relu:
    """y = max(x, 0); dy/dx = 1 for x > 0, else 0."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return 0.0 if x < 0.0 else x

    def derivative(x, y):
        return 0.0 if y <= 0.0 else 1.0

    def reference(x):
        return np.maximum(x, 0.0)

    def in_torch(torch, x):
        return torch.relu(x)
