"""Powers with a fixed exponent, cheaper than exp(e * log(s)). For ops whose argument's range is known."""

import math

import numpy as np

from normcore.kernels.approximations import is_single
from normcore.kernels.bits import bits_of, float_bits
from normcore.kernels.function import Inline

# Bits of a float32 grow nearly linearly with its logarithm, 2^23 for a factor of 2: those of s^(-3/4) are about
# 7/4 times those of 1 less 3/4 of those of s. The constant is lowered for the smallest error, 6 %.
THREE_QUARTERS_BITS = np.int32(1863620000)
ONE_BIT, TWO_BITS = np.int32(1), np.int32(2)


def _always_inline(python):
    return Inline(python, force=True)


@_always_inline
def inverse_three_quarters(s):
    """s^(-3/4) for 1e-10 <= s <= 1e10: in float32 three steps of Newton's iteration for y^-4 = s^3, 2.2 ulp, without a
    division or a root; in float64 1 / sqrt(s sqrt(s))."""
    if not is_single():
        return 1.0 / math.sqrt(s * math.sqrt(s))
    bits = bits_of(s)
    y = float_bits(np.int32(THREE_QUARTERS_BITS - (bits >> ONE_BIT) - (bits >> TWO_BITS)))
    third = -0.25 * (s * s * s)
    p = y * y
    y = y * (third * (p * p) + 1.25)
    p = y * y
    y = y * (third * (p * p) + 1.25)
    p = y * y
    return y * (third * (p * p) + 1.25)


@_always_inline
def inverse_seven_quarters(s, y):
    """s^(-7/4) for such s, given y = s^(-3/4): in float32 y^5 s^2, 14 ulp, without a division."""
    if not is_single():
        return y / s
    p = y * y
    return y * ((p * p) * (s * s))
