"""mish: the input times the tanh of its softplus.

Forward   y = x w, w = tanh(log(1 + e^x)) = ((1 + e^x)^2 - 1) / ((1 + e^x)^2 + 1)
Gradient  dy/dx = w + x (1 - w^2) s(x), s(x) = 1 / (1 + e^-x)
Numerics  One exponential e = e^-|x|, never above 1, and no cancellation:
              x < 0:   w = e (e + 2) / d,    (1 - w^2) s = 4 e (1 + e) / d^2,      d = e^2 + 2 e + 2
              x >= 0:  w = (1 + 2 e) / d,    (1 - w^2) s = 4 e^2 (1 + e) / d^2,    d = 1 + 2 e + 2 e^2
          Where w is 0 so is y: at -inf (PyTorch computes inf * 0 there). The gradient's x is cut off at 800.
Any shape, float32 and float64.
"""

import math

import numpy as np

import normcore
from normcore.testing.samples import Sample


@normcore.elementwise(source="Misra 2020, arXiv:1908.08681")
class mish:
    """y = x tanh(log(1 + exp(x))); dy/dx = w + x (1 - w^2) sigmoid(x) with w = tanh(log(1 + exp(x)))."""

    samples = (
        Sample("around zero", shape=(3, 5, 7)),
        Sample("both tails", shape=(4, 6), low=-25.0, high=25.0),
    )

    def forward(x):
        e = math.exp(-abs(x))
        n = 1.0 + 2.0 * e if x >= 0.0 else e * (e + 2.0)
        d = 1.0 + 2.0 * e * (1.0 + e) if x >= 0.0 else 2.0 + e * (e + 2.0)
        y = x * n / d
        return 0.0 if n == 0.0 else y

    def derivative(x, y):
        c = -800.0 if x < -800.0 else x
        c = 800.0 if c > 800.0 else c
        e = math.exp(-abs(c))
        n = 1.0 + 2.0 * e if c >= 0.0 else e * (e + 2.0)
        d = 1.0 + 2.0 * e * (1.0 + e) if c >= 0.0 else 2.0 + e * (e + 2.0)
        r = 1.0 / d
        return r * (n + c * (4.0 * e * (1.0 + e) * (e if c >= 0.0 else 1.0) * r))

    def reference(x):
        return x * np.tanh(np.logaddexp(0.0, x))
