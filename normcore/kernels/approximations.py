"""Functions that are cheap because their argument's range or the accuracy asked for is known.

For ops whose kernels would otherwise compute more than they need. Each is a polynomial in float32 and the
exact expression in float64: the two differ by a condition that is a constant once literals have the kernel's
type, so that the compiler keeps one of them. Coefficients: benches/fit_scalar_math.py (expm1_f32, log1p_unit_f32,
normal_tail_f32, normal_slope_f32).
"""

import math

import numpy as np

from normcore.kernels.bits import bits_of, float_bits
from normcore.kernels.function import Inline

MANTISSA_BITS = np.int32(23)  # of a float32, below its exponent


def _always_inline(python):
    return Inline(python, force=True)


@_always_inline
def is_single():
    """Whether the kernel computes in float32: there 1e-9 is lost beside 1."""
    return 1.0 + 1e-9 == 1.0


@_always_inline
def exp_parts(x):
    """r, p, s with e^x = s (1 + r + r^2 p), s a power of two, for float32 x with |x| <= 88."""
    z = (
        x * 1.4426950408889634 + 12583039.0
    )  # 1.5 * 2^23 + 127: z's last bits hold n + 127, n = x / ln(2) rounded
    n = z - 12583039.0
    r = (x - n * 0.693145751953125) - n * 1.4286068203094172e-06  # ln(2) as in scalar_math32.py
    p = 0.0013869565445929766 * r + 0.00836645532399416
    p = p * r + 0.04166744649410248
    p = p * r + 0.1666654497385025
    p = p * r + 0.4999999701976776
    return r, p, float_bits(np.int32(bits_of(z) << MANTISSA_BITS))


@_always_inline
def exp_unclamped(x):
    """e^x, 1.1 ulp, for |x| <= 88 and NaN; elsewhere, in float32, any value: the caller has bounded x or ignores it.

    float32: below -87.33, where e^x is no normal number, it may be 0.
    """
    if not is_single():
        return math.exp(x)
    r, p, s = exp_parts(x)
    p = p * r + 1.0
    p = p * r + 1.0
    return p * s


@_always_inline
def exp_nonpositive(x):
    """e^x, 1.1 ulp, for x <= 0 and NaN; in float32 any value for x > 0, and maybe 0 below the smallest normal number."""
    if not is_single():
        return math.exp(x)
    return exp_unclamped(-88.0 if x < -88.0 else x)


@_always_inline
def exp_normal(x):
    """e^x, 1.1 ulp, where only normal numbers matter: beside 1, or as a factor of something that is no larger.

    float32: where e^x would be below the smallest normal number, 1e-38, it may be 0, and from x = 88.37 on, where it
    is 2.3e38, it is infinity. So one power of two scales the polynomial instead of the square of half a power.
    """
    if not is_single():
        return math.exp(x)
    return exp_nonpositive(89.0 if x > 89.0 else x)


@_always_inline
def expm1_nonpositive(x):
    """e^x - 1 without cancellation, 1.5 ulp, for x <= 0 and NaN; in float32 any value for x > 0. -0.0 becomes 0.0."""
    if not is_single():
        return math.expm1(x)
    r, p, s = exp_parts(-18.0 if x < -18.0 else x)  # it rounds to -1 from there
    p = r * r * p + r
    return s * p + (s - 1.0)


@_always_inline
def log1p_unit(u):
    """log(1 + u) for 0 <= u <= 1, 2 ulp."""
    if not is_single():
        return math.log1p(u)
    u2 = u * u
    p = -0.003315133973956108 * u + 0.020180407911539078
    p = p * u2 + (-0.05760053172707558 * u + 0.10672130435705185)
    p = p * u2 + (-0.15349304676055908 * u + 0.1969296634197235)
    p = p * u2 + (-0.24958081543445587 * u + 0.33330464363098145)
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
    t2 = t * t
    p = -1.4370518108819397e-08 * t + 3.9218861047629616e-07
    p = p * t2 + (-4.346131390775554e-06 * t + 2.246262192784343e-05)
    p = p * t2 + (-3.290088352514431e-05 * t - 0.00010898069012910128)
    p = p * t2 + (-0.0003007161431014538 * t + 0.004007538314908743)
    p = p * t2 + (0.004555941093713045 * t - 0.050177961587905884)
    p = p * t - 0.16773539781570435
    p = p * t + 0.8408964276313782
    p = p * p
    return 0.0 if t > 6.0 else p * p


@_always_inline
def normal_slope(t):
    """Q(t) - t phi(t) for t >= 0, the slope of -t Q(t) with its sign turned, phi = -Q'; NaN for NaN.

    float32: (0.7518 - t) times the fourth power of a polynomial, for it is zero once; within 2e-7 absolutely, 0 above 6,
    where it is 4e-8. The exponential in phi would cost as much again as Q.
    """
    if not is_single():
        return normal_tail(t) - 0.3989422804014327 * t * math.exp(-0.5 * t * t)  # 1 / sqrt(2 pi)
    t2 = t * t
    p = 7.870719542779625e-08 * t2 + (-1.6406128224843997e-06 * t + 9.750944627739955e-06)
    p = p * t2 + (1.8259701391798444e-05 * t - 0.00033412102493457496)
    p = p * t2 + (1.3878496247343719e-05 * t + 0.0068803406320512295)
    p = p * t2 + (-0.0027694401796907187 * t - 0.08575303107500076)
    p = p * t - 0.059964876621961594
    p = p * t + 0.903063178062439
    p = p * p
    return 0.0 if t > 6.0 else (0.7517915246935645 - t) * (p * p)
