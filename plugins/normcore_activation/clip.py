"""clip: cuts values off at two levels.

Forward   y = min for x < min, max for x > max, else x
Gradient  dy/dx = 1 for min <= x <= max, else 0; 1 at both kinks, as in PyTorch's clamp (hard_tanh has 0)
Any shape, float32 and float64. NaN stays NaN. min not above max, else a ParameterError.
"""

import numpy as np

import normcore
from normcore.testing.samples import ErrorSample, Sample
from normcore_activation import sizes


@normcore.elementwise(source="torch.clamp; ONNX Clip")
class clip:
    """y = x cut off at min and max; dy/dx = 1 for min <= x <= max, else 0."""

    min: float
    max: float

    samples = (
        Sample("both levels are reached", shape=(3, 5, 7), params={"min": -0.8, "max": 1.1}),
        Sample("equal levels leave a constant", shape=(4, 6), params={"min": 0.25, "max": 0.25}),
    )
    error_samples = (ErrorSample("levels the wrong way round", {"min": 1.0, "max": 0.0}, None, "max"),)
    benchmarks = sizes.elementwise(min=-0.5, max=2.0)

    def check(self):
        if not self.min <= self.max:
            raise normcore.ParameterError("max", f"not less than min ({self.min})", self.max)

    def forward(x, min, max):
        y = min if x < min else x
        return max if x > max else y

    def derivative(x, y, min, max):
        d = 0.0 if x < min else 1.0
        return 0.0 if x > max else d

    def reference(x, min, max):
        return np.minimum(np.maximum(x, min), max)

    def in_torch(torch, x, min, max):
        return torch.clamp(x, min, max)
