"""gelu: the input times the probability that a standard normal number lies below it.

Forward   none:  y = x Phi(x) = x/2 erfc(-x / sqrt(2))
          tanh:  y = x s(v) with s(v) = 1 / (1 + e^-v), v = 2 sqrt(2/pi) (x + 0.044715 x^3), which is
                 x/2 (1 + tanh(v/2))
Gradient  none:  dy/dx = Phi(x) + x phi(x), phi(x) = e^(-x^2/2) / sqrt(2 pi)
          tanh:  dy/dx = s + x v' s (1 - s), v' = 2 sqrt(2/pi) (1 + 3 * 0.044715 x^2)
Numerics  none: with Q(t) the normal tail, 1 - Phi(t), both signs of x are y = max(x, 0) - |x| Q(|x|), where
          nothing cancels; Q is erfc in float64 and a polynomial in float32. 1 + erf would cancel below zero.
          tanh: 1 + tanh would cancel too; 1 / (1 + e^-v) does not, and 1 - s is e^-v s.
          Where products of infinity and zero arise the limits are given: y(-inf) = 0, slopes 0 and 1.
Any shape, float32 and float64. In float32 the negative tail is right to 1e-7 absolutely, not relatively.
"""

import math
from typing import Literal

import numpy as np

import normcore
from normcore.kernels.approximations import exp_unclamped, is_single, normal_slope, normal_tail
from normcore.testing.samples import Sample
from normcore_activation import sizes


@normcore.elementwise(source="Hendrycks and Gimpel 2016, arXiv:1606.08415")
class gelu:
    """y = x Phi(x); dy/dx = Phi(x) + x phi(x). approximate: none (exact, by erfc) or tanh."""

    approximate: Literal["none", "tanh"] = "none"

    samples = (
        Sample("exact", shape=(3, 5, 7)),
        Sample("the tanh form", shape=(4, 6), params={"approximate": "tanh"}),
        Sample("both tails, where the value is far smaller than x", shape=(2, 3, 4), low=-9.0, high=9.0),
    )
    benchmarks = (*sizes.elementwise(), *sizes.elementwise(approximate="tanh"))

    def forward_none(x):
        t = abs(x)
        t = 40.0 if t > 40.0 else t
        return (0.0 if x < 0.0 else x) - t * normal_tail(t)

    def derivative_none(x, y):
        t = abs(x)
        # d/dt of -t Q(t), with its sign turned: Q(t) - t phi(t)
        d = normal_slope(40.0 if t > 40.0 else t)
        return 1.0 - d if x > 0.0 else d

    def forward_tanh(x):
        # Beyond, y is x or 0 in this precision.
        limit = 10.0 if is_single() else 20.0
        c = limit if x > limit else x
        v = c * (1.5957691216057308 + 0.07135481627260025 * c * c)  # 2 sqrt(2/pi), times 0.044715
        y = x / (1.0 + exp_unclamped(-v))
        return 0.0 if x < -limit else y

    def derivative_tanh(x, y):
        # Beyond, the derivative is 0 or 1 in this precision and e^-v would overflow.
        limit = 10.0 if is_single() else 20.0
        c = limit if x > limit else x
        v = c * (1.5957691216057308 + 0.07135481627260025 * c * c)
        slope = c * (1.5957691216057308 + 0.21406444881780074 * c * c)  # x v'
        e = exp_unclamped(-v)
        s = 1.0 / (1.0 + e)
        d = s + s * (slope * (e * s))
        return 0.0 if c < -limit else d

    def reference(x, approximate):
        if approximate == "tanh":
            return 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
        return x * (0.5 + 0.5 * np.vectorize(math.erf, otypes=[float])(x / np.sqrt(2.0)))

    def in_torch(torch, x, approximate):
        return torch.nn.functional.gelu(x, approximate=approximate)
