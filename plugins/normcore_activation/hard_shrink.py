"""hard_shrink: sets small values to zero and keeps the others.

Forward   y = x for |x| > lambd, else 0
Gradient  dy/dx = 1 for |x| > lambd, else 0 (0 at |x| = lambd, as in PyTorch)
Any shape, float32 and float64. NaN stays NaN. lambd not below 0, else a ParameterError.
"""

import numpy as np

import normcore
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="Donoho and Johnstone 1994, Ideal spatial adaptation by wavelet shrinkage")
class hard_shrink:
    """y = x for |x| > lambd, else 0; dy/dx = 1 or 0."""

    lambd: float = 0.5

    samples = (
        Sample("inputs on both sides of lambd", shape=(3, 5, 7)),
        Sample("lambd 0 is the identity", shape=(4, 6), params={"lambd": 0.0}),
    )
    error_samples = (ErrorSample("|x| is never below 0", {"lambd": -0.1}, None, "lambd"),)
    benchmarks = sizes.elementwise()

    def check(self):
        if not self.lambd >= 0.0:
            raise normcore.ParameterError("lambd", "a number not below 0", self.lambd)

    def forward(x, lambd):
        return 0.0 if abs(x) <= lambd else x

    def derivative(x, y, lambd):
        return 0.0 if abs(x) <= lambd else 1.0

    def reference(x, lambd):
        return x * (np.abs(x) > lambd)

    def in_torch(torch, x, lambd):
        return torch.nn.functional.hardshrink(x, lambd)
