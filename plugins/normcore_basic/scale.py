"""A constant times the input: y = factor x; dy/dx = factor.

It damps the body of a residual block (Szegedy, Ioffe, Vanhoucke and Alemi 2016, "Inception-v4, Inception-ResNet and
the impact of residual connections on learning", arXiv:1602.07261, section 3.3: factors of 0.1 to 0.3 keep wide
nets from dying early in training). Shapes: any. float32 and float64.
"""

import normcore
from normcore.testing.samples import Sample


@normcore.elementwise(name="scale", source="Szegedy et al. 2016, arXiv:1602.07261", role="scale")
class Scale:
    """y = factor x; dy/dx = factor."""

    factor: float = 1.0

    benchmarks = (Sample("a residual block's damping", shape=(32, 96, 55, 55), params={"factor": 0.2}),)
    samples = (
        Sample("a residual block's damping", shape=(3, 4, 5), params={"factor": 0.2}),
        Sample("a change of sign", shape=(2, 3), params={"factor": -3.0}),
    )

    def forward(x, factor):
        return factor * x

    def derivative(x, y, factor):
        return factor

    def reference(x, factor):
        return x * factor

    def in_torch(torch, x, factor):
        return x * factor
