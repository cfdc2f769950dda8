"""threshold: replaces what is not above a threshold by a constant.

Forward   y = x for x > threshold, else value
Gradient  dy/dx = 1 for x > threshold, else 0
Any shape, float32 and float64. NaN stays NaN. threshold and value have no defaults, as in PyTorch.
"""

import numpy as np

import normcore
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(source="torch.nn.Threshold")
class threshold:
    """y = x for x > threshold, else value; dy/dx = 1 or 0."""

    threshold: float
    value: float

    samples = (
        Sample("a jump at the threshold", shape=(3, 5, 7), params={"threshold": 0.5, "value": -2.0}),
        Sample("threshold 0, value 0 is relu", shape=(4, 6), params={"threshold": 0.0, "value": 0.0}),
    )
    benchmarks = sizes.elementwise(threshold=0.5, value=-2.0)

    def forward(x, threshold, value):
        return value if x <= threshold else x

    def derivative(x, y, threshold, value):
        return 0.0 if x <= threshold else 1.0

    def reference(x, threshold, value):
        return np.where(x <= threshold, value, x)

    def in_torch(torch, x, threshold, value):
        return torch.nn.functional.threshold(x, threshold, value)
