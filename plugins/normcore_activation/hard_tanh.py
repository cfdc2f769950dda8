"""hard_tanh: the identity cut off at two levels.

Forward   y = min for x < min, max for x > max, else x
Gradient  dy/dx = 1 for min < x < max, else 0; 0 at both kinks, as in PyTorch (clip's gradient there is 1)
Any shape, float32 and float64. NaN stays NaN. min below max, else a ParameterError.
"""

import numpy as np

import normcore
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="Collobert 2004, Large scale machine learning (thesis)")
class hard_tanh:
    """y = x cut off at min and max; dy/dx = 1 between them, else 0."""

    min: float = -1.0
    max: float = 1.0

    samples = (
        Sample("both levels are reached", shape=(3, 5, 7)),
        Sample("an interval on one side of zero", shape=(4, 6), params={"min": 0.5, "max": 2.0}),
    )
    error_samples = (ErrorSample("no room between the levels", {"min": 1.0, "max": 1.0}, None, "max"),)
    benchmarks = sizes.elementwise()

    def check(self):
        if not self.min < self.max:
            raise normcore.ParameterError("max", f"more than min ({self.min})", self.max)

    def forward(x, min, max):
        y = min if x < min else x
        return max if x > max else y

    def derivative(x, y, min, max):
        d = 0.0 if x <= min else 1.0
        return 0.0 if x >= max else d

    def reference(x, min, max):
        return np.clip(x, min, max)

    def in_torch(torch, x, min, max):
        return torch.nn.functional.hardtanh(x, min, max)
