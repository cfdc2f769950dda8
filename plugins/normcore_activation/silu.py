"""silu: the input times its own sigmoid; with beta other than 1 it is called swish.

Forward   y = x s(beta x), s(z) = 1 / (1 + e^-z)
Gradient  dy/dx = s(z) + z s(z) (1 - s(z)), z = beta x
Numerics  With e = e^-z: s = 1 / (1 + e), and 1 - s = e s without cancellation. An overflowing e gives y = 0,
          which is right; for -inf, where inf / inf arises (PyTorch: NaN), 0 is selected. The gradient is cut
          off where it is 0 or 1 in the precision at hand, before e overflows.
Any shape, float32 and float64.
"""

import numpy as np

import normcore
from normcore.kernels.approximations import exp_unclamped, is_single
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(
    aliases=("swish",),
    source="Elfwing, Uchibe and Doya 2018, arXiv:1702.03118; Ramachandran et al. 2017, arXiv:1710.05941",
)
class silu:
    """y = x sigmoid(beta x); dy/dx = s + beta x s (1 - s) with s = sigmoid(beta x)."""

    beta: float = 1.0

    samples = (
        Sample("beta 1", shape=(3, 5, 7)),
        Sample("a steep swish is nearly relu", shape=(4, 6), params={"beta": 6.0}),
        Sample("beta 0 is x / 2", shape=(2, 3, 4, 5), params={"beta": 0.0}),
        Sample("a negative beta mirrors it", shape=(17,), params={"beta": -1.5}),
    )
    benchmarks = sizes.elementwise()

    def forward(x, beta):
        limit = 88.0 if is_single() else 700.0
        n = -beta * x
        y = x / (1.0 + exp_unclamped(-limit if n < -limit else n))
        return 0.0 if n > limit else y

    def derivative(x, y, beta):
        limit = 88.0 if is_single() else 700.0
        n = -beta * x
        n = -limit if n < -limit else n
        e = exp_unclamped(n)
        s = 1.0 / (1.0 + e)
        d = s - s * (n * (e * s))
        return 0.0 if n > limit else d

    def reference(x, beta):
        return x * 0.5 * (1.0 + np.tanh(0.5 * beta * x))

    def in_torch(torch, x, beta):
        return torch.nn.functional.silu(x) if beta == 1.0 else x * torch.sigmoid(beta * x)
