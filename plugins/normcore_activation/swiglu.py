"""swiglu: a gated unit whose gate is silu (swish with beta 1).

Forward   y = a silu(b), x = (a, b) along the axis, silu(b) = b s(b), s(b) = 1 / (1 + e^-b)
Gradient  da = dy silu(b), db = dy a (s(b) + b s(b) (1 - s(b)))
Shapes: x any, of one axis or more; the axis has an even number of entries, else a ShapeError, and y half as many.
float32 and float64. NaN and infinities as in silu (silu.py), then as the product has them.
"""

from normcore_activation.gated import Gated, gated_kernels
from normcore_activation.silu import silu


class Swiglu(Gated, name="swiglu", source="Shazeer 2020, arXiv:2002.05202"):
    """y = first half * silu(second half) of `axis` (1: channels)."""

    kernels = gated_kernels(silu.scalars[""], 1.0)

    def gate_reference(self, b):
        return silu().reference(b)

    def gate_torch(self, torch, b):
        return torch.nn.functional.silu(b)
