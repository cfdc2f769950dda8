"""celu: an elu whose slope is continuous for every alpha.

Forward   y = x for x > 0, else alpha (e^(x/alpha) - 1)
Gradient  dy/dx = 1 for x > 0, else e^(x/alpha)
Numerics  expm1, as in elu. At -inf y = -alpha.
Any shape, float32 and float64. alpha above 0, else a ParameterError. alpha 1 gives elu.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_nonpositive, expm1_nonpositive
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="Barron 2017, arXiv:1704.07483")
class celu:
    """y = x for x > 0, else alpha (exp(x / alpha) - 1); dy/dx = 1 or exp(x / alpha)."""

    alpha: float = 1.0

    samples = (
        Sample("alpha 1 is elu", shape=(3, 5, 7)),
        Sample("a small alpha saturates early", shape=(4, 6), params={"alpha": 0.25}),
        Sample("a large alpha is nearly straight", shape=(2, 3, 4, 5), params={"alpha": 3.0}),
    )
    error_samples = (ErrorSample("x / alpha needs alpha above 0", {"alpha": 0.0}, None, "alpha"),)
    benchmarks = sizes.elementwise()

    def check(self):
        if not self.alpha > 0.0:
            raise normcore.ParameterError("alpha", "a number above 0", self.alpha)

    def forward(x, alpha):
        return x if x >= 0.0 else alpha * expm1_nonpositive(x * (1.0 / alpha))  # the quotient leaves the loop

    def derivative(x, y, alpha):
        return 1.0 if x > 0.0 else exp_nonpositive(x * (1.0 / alpha))

    def reference(x, alpha):
        return np.maximum(x, 0.0) + np.minimum(0.0, alpha * (np.exp(np.minimum(x, 0.0) / alpha) - 1.0))

    def in_torch(torch, x, alpha):
        return torch.nn.functional.celu(x, alpha)
