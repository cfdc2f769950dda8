"""squareplus: a smooth relu without exponentials, half the sum of x and a hyperbola.

Forward   y = (x + sqrt(x^2 + b)) / 2
Gradient  dy/dx = (1 + x / sqrt(x^2 + b)) / 2 = y / sqrt(x^2 + b)
Numerics  With h = (|x| + sqrt(x^2 + b)) / 2, y is h for x >= 0 and b / (4 h) below, where the sum would
          cancel. From |x| = 1e18 on b no longer counts and x^2 would soon overflow: the root is |x|. The
          gradient's |x| is cut off at 1e30, which keeps inf / inf away.
Any shape, float32 and float64. b above 0, else a ParameterError (b = 0 is relu).
"""

import math

import numpy as np

import normcore
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="Barron 2021, arXiv:2112.11687")
class squareplus:
    """y = (x + sqrt(x^2 + b)) / 2; dy/dx = (1 + x / sqrt(x^2 + b)) / 2."""

    b: float = 4.0

    samples = (
        Sample("the default", shape=(3, 5, 7)),
        Sample("a sharp bend", shape=(4, 6), params={"b": 0.01}),
        Sample("both tails", shape=(2, 3, 4), low=-100.0, high=100.0, params={"b": 1.0}),
    )
    error_samples = (ErrorSample("b = 0 is relu", {"b": 0.0}, None, "relu"),)
    benchmarks = sizes.elementwise()

    def check(self):
        if not self.b > 0.0:
            raise normcore.ParameterError("b", "a number above 0 (with 0 it would be relu: use that)", self.b)

    def forward(x, b):
        a = abs(x)
        root = math.sqrt(a * a + b) if a < 1e18 else a
        h = 0.5 * a + 0.5 * root
        return h if x >= 0.0 else 0.25 * b / h

    def derivative(x, y, b):
        a = abs(x)
        a = 1e30 if a > 1e30 else a
        root = math.sqrt(a * a + b) if a < 1e18 else a
        h = 0.5 * a + 0.5 * root
        return (h if x >= 0.0 else 0.25 * b / h) / root

    def reference(x, b):
        return 0.5 * (x + np.hypot(x, np.sqrt(b)))

    def in_torch(torch, x, b):
        return 0.5 * (x + torch.sqrt(x * x + b))
