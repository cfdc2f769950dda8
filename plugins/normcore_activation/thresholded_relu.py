"""thresholded_relu: a relu that starts at alpha, with a jump.

Forward   y = x for x > alpha, else 0
Gradient  dy/dx = 1 for x > alpha, else 0
Any shape, float32 and float64. NaN stays NaN.
"""

import normcore
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(source="Konda, Memisevic and Krueger 2015, arXiv:1402.3337; ONNX ThresholdedRelu")
class thresholded_relu:
    """y = x for x > alpha, else 0; dy/dx = 1 or 0."""

    alpha: float = 1.0

    samples = (
        Sample("the default", shape=(3, 5, 7)),
        Sample("a negative alpha passes some negative values", shape=(4, 6), params={"alpha": -0.7}),
    )
    benchmarks = sizes.elementwise()

    def forward(x, alpha):
        return 0.0 if x <= alpha else x

    def derivative(x, y, alpha):
        return 0.0 if x <= alpha else 1.0

    def reference(x, alpha):
        return x * (x > alpha)

    def in_torch(torch, x, alpha):
        return torch.nn.functional.threshold(x, alpha, 0.0)
