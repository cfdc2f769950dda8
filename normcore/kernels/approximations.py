"""Functions that are cheap because their argument's range or the accuracy asked for is known.

For ops whose kernels would otherwise compute more than they need. Each is a polynomial in float32 and the
exact expression in float64: the two differ by a condition that is a constant once literals have the kernel's
type, so that the compiler keeps one of them. Coefficients: benches/fit_scalar_math.py (log1p_unit_f32,
normal_tail_f32).
"""

import math

from normcore.kernels.function import Inline


def _always_inline(python):
    return Inline(python, force=True)


@_always_inline
def is_single():
    """Whether the kernel computes in float32: there 1e-9 is lost beside 1."""
    return 1.0 + 1e-9 == 1.0


@_always_inline
def log1p_unit(u):
    """log(1 + u) for 0 <= u <= 1, 2 ulp."""
    if not is_single():
        return math.log1p(u)
    p = -0.003315133973956108 * u + 0.020180407911539078
    p = p * u - 0.05760053172707558
    p = p * u + 0.10672130435705185
    p = p * u - 0.15349304676055908
    p = p * u + 0.1969296634197235
    p = p * u - 0.24958081543445587
    p = p * u + 0.33330464363098145
    p = p * u - 0.4999993145465851
    p = p * u + 1.0
    return u * p


@_always_inline
def normal_tail(t):
    """The probability Q(t) that a standard normal number is above t, for t >= 0; NaN for NaN.

    float32: the fourth power of a polynomial, Q(t) within 2e-7 and t Q(t) within 9e-8 absolutely; 0 above 6,
    where Q is 1e-9.
    """
    if not is_single():
        return 0.5 * math.erfc(0.7071067811865476 * t)  # 1 / sqrt(2)
    p = -1.4370518108819397e-08 * t + 3.9218861047629616e-07
    p = p * t - 4.346131390775554e-06
    p = p * t + 2.246262192784343e-05
    p = p * t - 3.290088352514431e-05
    p = p * t - 0.00010898069012910128
    p = p * t - 0.0003007161431014538
    p = p * t + 0.004007538314908743
    p = p * t + 0.004555941093713045
    p = p * t - 0.050177961587905884
    p = p * t - 0.16773539781570435
    p = p * t + 0.8408964276313782
    p = p * p
    return 0.0 if t > 6.0 else p * p
