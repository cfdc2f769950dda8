"""reglu: a gated unit whose gate is relu.

Forward   y = a max(b, 0), x = (a, b) along the axis
Gradient  da = dy max(b, 0), db = dy a where b > 0, else 0
Shapes: x any, of one axis or more; the axis has an even number of entries, else a ShapeError, and y half as many.
float32 and float64. NaN and infinities as in relu, then as the product has them.
"""

from normcore_activation.gated import Gated, gated_kernels
from normcore_activation.relu import relu


class Reglu(Gated, name="reglu", source="Shazeer 2020, arXiv:2002.05202"):
    """y = first half * relu(second half) of `axis` (1: channels)."""

    kernels = gated_kernels(relu.scalars[""])
    cost = 4

    def gate_reference(self, b):
        return relu().reference(b)

    def gate_torch(self, torch, b):
        return torch.relu(b)
