"""bnll: the binomial normal log likelihood of Caffe, a softplus without parameters.

Forward   y = log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)
Gradient  dy/dx = 1 / (1 + e^-x) = 1 - e^-y, from the output alone
Numerics  The exponential's argument is never positive; log1p and expm1 keep what is small. At -inf 0.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_nonpositive, expm1_nonpositive, log1p_unit
from normcore_activation import sizes


@normcore.elementwise(source="Nair and Hinton 2010, eq. 4; Caffe's BNLL layer")
class bnll:
    """y = log(1 + exp(x)); dy/dx = 1 - exp(-y)."""

    benchmarks = sizes.elementwise()

    def forward(x):
        return (x if x > 0.0 else 0.0) + log1p_unit(exp_nonpositive(-abs(x)))

    def derivative(x, y):
        return -expm1_nonpositive(-y)

    def reference(x):
        return np.logaddexp(0.0, x)

    def in_torch(torch, x):
        return torch.nn.functional.softplus(x)
