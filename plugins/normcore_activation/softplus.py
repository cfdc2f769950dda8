"""softplus: a smooth relu.

Forward   y = log(1 + e^(beta x)) / beta; x itself where beta x > threshold
Gradient  dy/dx = 1 / (1 + e^(-beta x)); 1 where beta x > threshold
Numerics  log(1 + e^z) = max(z, 0) + log1p(e^-|z|): nothing overflows and nothing small is lost. The threshold
          is PyTorch's and is kept for its values' sake only; at its default 20 it changes y by 2e-9.
Any shape, float32 and float64. beta above 0, else a ParameterError.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_nonpositive, exp_normal, log1p_unit
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="Dugas, Bengio, Bélisle, Nadeau and Garcia 2001, NIPS 13")
class softplus:
    """y = log(1 + exp(beta x)) / beta, x where beta x > threshold; dy/dx = sigmoid(beta x), there 1."""

    beta: float = 1.0
    threshold: float = 20.0

    samples = (
        Sample("beta 1", shape=(3, 5, 7)),
        Sample("a steep one", shape=(4, 6), params={"beta": 5.0}),
        Sample("a low threshold leaves a jump", shape=(2, 3, 4), params={"beta": 0.5, "threshold": 1.0}),
    )
    error_samples = (ErrorSample("a division by beta", {"beta": 0.0}, None, "beta"),)
    benchmarks = sizes.elementwise()

    def check(self):
        if not self.beta > 0.0:
            raise normcore.ParameterError("beta", "a number above 0", self.beta)

    def forward(x, beta, threshold):
        z = beta * x
        y = (z if z > 0.0 else 0.0) + log1p_unit(exp_nonpositive(-abs(z)))
        y = y * (1.0 / beta)  # the quotient leaves the loop
        return x if z > threshold else y

    def derivative(x, y, beta, threshold):
        z = beta * x
        d = 1.0 / (1.0 + exp_normal(-z))
        return 1.0 if z > threshold else d

    def reference(x, beta, threshold):
        return np.where(beta * x > threshold, x, np.logaddexp(0.0, beta * x) / beta)

    def in_torch(torch, x, beta, threshold):
        return torch.nn.functional.softplus(x, beta, threshold)
