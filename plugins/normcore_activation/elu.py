"""elu: the exponential linear unit.

Forward   y = x for x > 0, else alpha (e^x - 1)
Gradient  dy/dx = 1 for x > 0, else alpha e^x; alpha at the kink (PyTorch)
Numerics  expm1 keeps the relative accuracy of a small negative x, where e^x - 1 would cancel. At -inf y =
          -alpha. The gradient is computed from x, not as y + alpha, so that it stays right for any sign of
          alpha.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_nonpositive, expm1_nonpositive
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(source="Clevert, Unterthiner and Hochreiter 2016, arXiv:1511.07289")
class elu:
    """y = x for x > 0, else alpha (exp(x) - 1); dy/dx = 1 or alpha exp(x)."""

    alpha: float = 1.0

    samples = (
        Sample("alpha 1: the slope has no jump", shape=(3, 5, 7)),
        Sample("alpha 0.3: the slope jumps at zero", shape=(4, 6), params={"alpha": 0.3}),
        Sample("a negative alpha turns the negative side up", shape=(2, 3, 4, 5), params={"alpha": -0.5}),
    )
    benchmarks = sizes.elementwise()

    def forward(x, alpha):
        return x if x >= 0.0 else alpha * expm1_nonpositive(x)

    def derivative(x, y, alpha):
        return 1.0 if x > 0.0 else alpha * exp_nonpositive(x)

    def reference(x, alpha):
        return np.where(x > 0.0, x, alpha * (np.exp(np.minimum(x, 0.0)) - 1.0))

    def in_torch(torch, x, alpha):
        return torch.nn.functional.elu(x, alpha)
