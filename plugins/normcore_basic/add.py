"""The sum of two inputs of one shape: y = a + b; the gradient of both is dy itself.

It closes a residual block (He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition",
arXiv:1512.03385, equation 1). Shapes: any, the same for both. float32 and float64.
"""

import normcore
from normcore.testing.samples import Sample


@normcore.elementwise(
    name="add", source="He et al. 2016, arXiv:1512.03385, equation 1", shares_gradient=True, role="add"
)
class Add:
    """a + b, for two inputs of one shape."""

    def forward(a, b):
        return a + b

    def derivative_a(a, b, y):
        return 1.0

    def derivative_b(a, b, y):
        return 1.0

    def reference(a, b):
        return b + a

    def in_torch(torch, a, b):
        return a + b

    samples = (Sample("two feature maps", shapes=((3, 5, 4, 7), (3, 5, 4, 7))),)
    benchmarks = (Sample("the first stage of a residual net", shapes=((32, 64, 56, 56), (32, 64, 56, 56))),)
