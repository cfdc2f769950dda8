"""silu: the input times its own sigmoid; with beta other than 1 it is called swish.

Forward   y = x s(beta x), s(z) = 1 / (1 + e^-z)
Gradient  dy/dx = s(z) + z s(z) (1 - s(z)), z = beta x
Numerics  With e = e^-|z|: s = 1/(1 + e) for z >= 0, else e/(1 + e), and s (1 - s) = e/(1 + e)^2, all
          relatively accurate. Where s is 0 so is y: at -inf (PyTorch computes inf * 0 there). The gradient's
          z is cut off at 800, where e is 0 in double precision too.
Any shape, float32 and float64.
"""

import math

import numpy as np

import normcore
from normcore.testing.samples import Sample


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

    def forward(x, beta):
        z = beta * x
        e = math.exp(-abs(z))
        s = 1.0 if z >= 0.0 else e
        y = x * s / (1.0 + e)
        return 0.0 if s == 0.0 else y

    def derivative(x, y, beta):
        z = beta * x
        z = -800.0 if z < -800.0 else z
        z = 800.0 if z > 800.0 else z
        e = math.exp(-abs(z))
        r = 1.0 / (1.0 + e)
        return r * ((1.0 if z >= 0.0 else e) + z * (e * r))

    def reference(x, beta):
        return x * 0.5 * (1.0 + np.tanh(0.5 * beta * x))
