"""glu: the gated linear unit, one half of the channels let through as far as the other half says.

Forward   y = a s(b), x = (a, b) along the axis, s(b) = 1 / (1 + e^-b)
Gradient  da = dy s(b), db = dy a s(b) (1 - s(b))
Shapes: x any, of one axis or more; the axis has an even number of entries, else a ShapeError, and y half as many.
float32 and float64. NaN and infinities as in the sigmoid, then as the product has them.
"""

from normcore_activation.gated import Gated, gated_kernels
from normcore_activation.sigmoid import sigmoid


class Glu(Gated, name="glu", source="Dauphin, Fan, Auli and Grangier 2017, arXiv:1612.08083"):
    """y = first half * sigmoid(second half) of `axis` (1: channels)."""

    kernels = gated_kernels(sigmoid.scalars[""])

    def gate_reference(self, b):
        return sigmoid().reference(b)

    def in_torch(self, torch, x, *, training, **arrays):
        return torch.nn.functional.glu(x, self.axis)
