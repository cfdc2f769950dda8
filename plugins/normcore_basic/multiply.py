"""The product of two inputs of one shape, element by element: y = a * b, da = dy * b, db = dy * a.

Gates are made of it (Srivastava, Greff and Schmidhuber 2015, "Highway networks", arXiv:1505.00387).
Shapes: any, the same for both. float32 and float64.
"""

import normcore
from normcore.testing.samples import Sample


@normcore.elementwise(name="multiply", source="Srivastava, Greff and Schmidhuber 2015, arXiv:1505.00387")
class Multiply:
    """a * b, for two inputs of one shape."""

    def forward(a, b):
        return a * b

    def derivative_a(a, b, y):
        return b

    def derivative_b(a, b, y):
        return a

    def reference(a, b):
        return b * a

    def in_torch(torch, a, b):
        return a * b

    samples = (Sample("two feature maps", shapes=((3, 5, 4, 7), (3, 5, 4, 7))),)
    benchmarks = (Sample("a gate over feature maps", shapes=((32, 64, 56, 56), (32, 64, 56, 56))),)
