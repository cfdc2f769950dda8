"""gelu: the input times the probability that a standard normal number lies below it.

Forward   none:  y = x Phi(x) = x/2 erfc(-x / sqrt(2))
          tanh:  y = x s(v) with s(v) = 1 / (1 + e^-v), v = 2 sqrt(2/pi) (x + 0.044715 x^3), which is
                 x/2 (1 + tanh(v/2))
Gradient  none:  dy/dx = Phi(x) + x phi(x), phi(x) = e^(-x^2/2) / sqrt(2 pi)
          tanh:  dy/dx = s + x v' s (1 - s), v' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2)
Numerics  On the negative side 1 + erf and 1 + tanh cancel. erfc does not, and with e = e^-|v| the three s, 1
          - s and s (1 - s) are 1/(1 + e), e/(1 + e) and e/(1 + e)^2, all relatively accurate. Beyond |x| = 40
          the limits are reached in double precision too; cutting off there keeps -inf * 0 away: y(-inf) = 0.
Any shape, float32 and float64.
"""

import math
from typing import Literal

import numpy as np

import normcore
from normcore.testing.samples import Sample


@normcore.elementwise(source="Hendrycks and Gimpel 2016, arXiv:1606.08415")
class gelu:
    """y = x Phi(x); dy/dx = Phi(x) + x phi(x). approximate: none (exact, by erfc) or tanh."""

    approximate: Literal["none", "tanh"] = "none"

    samples = (
        Sample("exact", shape=(3, 5, 7)),
        Sample("the tanh form", shape=(4, 6), params={"approximate": "tanh"}),
        Sample("both tails, where the value is far smaller than x", shape=(2, 3, 4), low=-9.0, high=9.0),
    )

    def forward_none(x):
        c = -40.0 if x < -40.0 else x
        return 0.5 * c * math.erfc(-0.7071067811865476 * c)  # 1 / sqrt(2)

    def derivative_none(x, y):
        c = -40.0 if x < -40.0 else x
        c = 40.0 if c > 40.0 else c
        # 1 / sqrt(2), 1 / sqrt(2 pi)
        return 0.5 * math.erfc(-0.7071067811865476 * c) + 0.3989422804014327 * c * math.exp(-0.5 * c * c)

    def forward_tanh(x):
        c = -40.0 if x < -40.0 else x
        v = c * (1.5957691216057308 + 0.07135481627260025 * c * c)  # 2 sqrt(2/pi), times 0.044715
        e = math.exp(-abs(v))
        return c * (1.0 if v >= 0.0 else e) / (1.0 + e)

    def derivative_tanh(x, y):
        c = -40.0 if x < -40.0 else x
        c = 40.0 if c > 40.0 else c
        v = c * (1.5957691216057308 + 0.07135481627260025 * c * c)
        slope = c * (1.5957691216057308 + 0.21406444881780074 * c * c)  # x v'
        e = math.exp(-abs(v))
        r = 1.0 / (1.0 + e)
        return r * ((1.0 if v >= 0.0 else e) + slope * (e * r))

    def reference(x, approximate):
        if approximate == "tanh":
            return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
        return x * (0.5 + 0.5 * np.vectorize(math.erf, otypes=[float])(x / np.sqrt(2.0)))
