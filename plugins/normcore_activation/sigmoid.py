"""sigmoid: the logistic function, from 0 to 1.

Forward   y = 1 / (1 + e^-x)
Gradient  dy/dx = y (1 - y), from the output alone
Numerics  Nothing cancels for either sign of x, so that small values keep their relative accuracy; where e^-x overflows
          y is 0, the limit. At -inf 0, at inf 1.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_normal
from normcore_activation import sizes


@normcore.elementwise(source="Verhulst 1845; as in Rumelhart, Hinton and Williams 1986, Nature 323")
class sigmoid:
    """y = 1 / (1 + exp(-x)); dy/dx = y (1 - y)."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return 1.0 / (1.0 + exp_normal(-x))

    def derivative(x, y):
        return y * (1.0 - y)

    def reference(x):
        return 0.5 * (1.0 + np.tanh(0.5 * x))

    def in_torch(torch, x):
        return torch.sigmoid(x)
