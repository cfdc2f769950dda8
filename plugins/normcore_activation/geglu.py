"""geglu: a gated unit whose gate is the exact gelu.

Forward   y = a gelu(b), x = (a, b) along the axis, gelu(b) = b Phi(b)
Gradient  da = dy gelu(b), db = dy a (Phi(b) + b phi(b))
Shapes: x any, of one axis or more; the axis has an even number of entries, else a ShapeError, and y half as many.
float32 and float64. NaN and infinities as in gelu (gelu.py), then as the product has them.
"""

from normcore_activation.gated import Gated, gated_kernels
from normcore_activation.gelu import gelu


class Geglu(Gated, name="geglu", source="Shazeer 2020, arXiv:2002.05202"):
    """y = first half * gelu(second half) of `axis` (1: channels), with the exact gelu."""

    kernels = gated_kernels(gelu.scalars["none"])
    cost = 64

    def gate_reference(self, b):
        return gelu().reference(b)

    def gate_torch(self, torch, b):
        return torch.nn.functional.gelu(b)
