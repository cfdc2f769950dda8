"""mish: the input times the tanh of its softplus.

Forward   y = x w, w = tanh(log(1 + e^x)) = ((1 + e^x)^2 - 1) / ((1 + e^x)^2 + 1)
Gradient  dy/dx = w + x (1 - w^2) s(x), s(x) = 1 / (1 + e^-x)
Numerics  One exponential e = e^x and no cancellation: with n = e (e + 2), w = n / (n + 2) and
          (1 - w^2) s(x) = 4 e (1 + e) / (n + 2)^2. Above x = 20 w is 1 in both precisions: x is cut off there
          before e overflows. Where w is 0 so is y, at -inf too (PyTorch: NaN).
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_unclamped, is_single
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(source="Misra 2020, arXiv:1908.08681")
class mish:
    """y = x tanh(log(1 + exp(x))); dy/dx = w + x (1 - w^2) sigmoid(x) with w = tanh(log(1 + exp(x)))."""

    samples = (
        Sample("around zero", shape=(3, 5, 7)),
        Sample("both tails", shape=(4, 6), low=-25.0, high=25.0),
    )
    benchmarks = sizes.elementwise()

    def forward(x):
        e = exp_unclamped(20.0 if x > 20.0 else x)
        n = e * (e + 2.0)
        y = x * (n / (n + 2.0))
        limit = 88.0 if is_single() else 700.0
        return 0.0 if x < -limit else y

    def derivative(x, y):
        c = 20.0 if x > 20.0 else x
        limit = 88.0 if is_single() else 700.0
        c = -limit if c < -limit else c
        e = exp_unclamped(c)
        n = e * (e + 2.0)
        r = 1.0 / (n + 2.0)
        return r * (n + 4.0 * c * (r * (e * (1.0 + e))))

    def reference(x):
        return x * np.tanh(np.logaddexp(0.0, x))

    def in_torch(torch, x):
        return torch.nn.functional.mish(x)
