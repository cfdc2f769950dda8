"""soft_shrink: pulls every value towards zero by lambd, and stops there.

Forward   y = x - lambd for x > lambd, x + lambd for x < -lambd, else 0
Gradient  dy/dx = 1 for |x| > lambd, else 0 (0 at |x| = lambd, as in PyTorch)
Any shape, float32 and float64. NaN stays NaN, a zero keeps its sign. lambd not below 0, else a
ParameterError.
"""

import numpy as np

import normcore
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="Donoho 1995, De-noising by soft-thresholding")
class soft_shrink:
    """y = sign(x) max(|x| - lambd, 0); dy/dx = 1 for |x| > lambd, else 0."""

    lambd: float = 0.5

    samples = (
        Sample("inputs on both sides of lambd", shape=(3, 5, 7)),
        Sample("lambd 0 is the identity", shape=(4, 6), params={"lambd": 0.0}),
    )
    error_samples = (ErrorSample("a distance below 0", {"lambd": -0.1}, None, "lambd"),)
    benchmarks = sizes.elementwise()

    def check(self):
        if not self.lambd >= 0.0:
            raise normcore.ParameterError("lambd", "a number not below 0", self.lambd)

    def forward(x, lambd):
        y = x - lambd if x > 0.0 else x + lambd
        return 0.0 * x if abs(x) <= lambd else y

    def derivative(x, y, lambd):
        return 0.0 if abs(x) <= lambd else 1.0

    def reference(x, lambd):
        return np.maximum(x - lambd, 0.0) - np.maximum(-x - lambd, 0.0)

    def in_torch(torch, x, lambd):
        return torch.nn.functional.softshrink(x, lambd)
