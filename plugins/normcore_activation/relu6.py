"""relu6: a relu that saturates at 6.

Forward   y = min(max(x, 0), 6)
Gradient  dy/dx = 1 for 0 < x < 6, else 0; 0 at both kinks (PyTorch). Read off the output.
Any shape, float32 and float64. NaN stays NaN.
"""

import numpy as np

import normcore
from normcore_activation import sizes


@normcore.elementwise(
    source="Krizhevsky 2010, Convolutional deep belief networks on CIFAR-10",
    commutes_with_max=True,
)
class relu6:
    """y = min(max(x, 0), 6); dy/dx = 1 for 0 < x < 6, else 0."""

    benchmarks = sizes.elementwise()

    def forward(x):
        y = 0.0 if x < 0.0 else x
        return 6.0 if x > 6.0 else y

    def derivative(x, y):
        d = 0.0 if y <= 0.0 else 1.0
        return 0.0 if y >= 6.0 else d

    def reference(x):
        return np.clip(x, 0.0, 6.0)

    def in_torch(torch, x):
        return torch.nn.functional.relu6(x)
