"""log_sigmoid: the logarithm of the logistic function.

Forward   y = log(1 / (1 + e^-x)) = min(x, 0) - log(1 + e^-|x|)
Gradient  dy/dx = 1 / (1 + e^x) = 1 - e^y, from the output alone
Numerics  The exponential's argument is never positive, so nothing overflows; log1p keeps a small e^-x, and
          -expm1(y) keeps a small 1 - e^y. At -inf y = -inf with slope 1, at inf y = 0 with slope 0.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_nonpositive, expm1_nonpositive, log1p_unit
from normcore_activation import sizes


@normcore.elementwise(source="torch.nn.LogSigmoid; minus softplus(-x), Dugas et al. 2001")
class log_sigmoid:
    """y = -log(1 + exp(-x)); dy/dx = 1 - exp(y)."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return (x if x < 0.0 else 0.0) - log1p_unit(exp_nonpositive(-abs(x)))

    def derivative(x, y):
        return -expm1_nonpositive(y)

    def reference(x):
        return -np.logaddexp(0.0, -x)

    def in_torch(torch, x):
        return torch.nn.functional.logsigmoid(x)
