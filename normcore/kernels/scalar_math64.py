"""Scalar mathematics for float64 kernels; conventions: scalar_math.py.

exp, expm1, log, log1p and tanh vectorize. erf, erfc, sin and cos are left to libm, which is accurate to a
unit in the last place: double precision serves gradient checks and reference runs, and these four would need
polynomials of twenty powers and more.
"""

import numpy as np

from normcore.kernels.bits import bits_of, float_bits

ONE_F64 = np.float64(1.0)
TWO_F64 = np.float64(2.0)
HALF_F64 = np.float64(0.5)
QUARTER_F64 = np.float64(0.25)
ZERO_F64 = np.float64(0.0)
SIGN_F64 = np.int64(-(2**63))
INF_F64 = np.float64(np.inf)
NAN_F64 = np.float64(np.nan)
TINY_F64 = np.float64(2.0**-53)
SMALLEST_NORMAL_F64 = np.float64(2.0**-1022)
TO_NORMAL_F64 = np.float64(2.0**52)
ROUND_F64 = np.float64(6755399441055744.0)  # 1.5 * 2^52
ROUND_BITS_F64 = np.int64(0x4338000000000000)
LOG2E_F64 = np.float64(1.4426950408889634)
LN2_HIGH_F64 = np.float64(0.6931471803691238)  # 33 bits: times an integer below 2^20 it is exact
LN2_LOW_F64 = np.float64(1.9082149292705877e-10)
EXP_LARGEST_F64 = np.float64(710.0)  # exp overflows at 709.79
EXP_SMALLEST_F64 = np.float64(-746.0)  # and rounds to zero below -745.14
EXPM1_SMALLEST_F64 = np.float64(-40.0)
TANH_LARGEST_F64 = np.float64(20.0)
TANH_MIDDLE_F64 = np.float64(0.6)
MANTISSA_OF_LOG_F64 = np.int64(0x3FE5555555555555)  # 2/3

EXP_C0_F64 = np.float64(0.5)
EXP_C1_F64 = np.float64(0.16666666666666677)
EXP_C2_F64 = np.float64(0.04166666666666668)
EXP_C3_F64 = np.float64(0.008333333333321839)
EXP_C4_F64 = np.float64(0.0013888888888897216)
EXP_C5_F64 = np.float64(0.00019841269885257016)
EXP_C6_F64 = np.float64(2.4801587272597233e-05)
EXP_C7_F64 = np.float64(2.755724517467598e-06)
EXP_C8_F64 = np.float64(2.755733437047695e-07)
EXP_C9_F64 = np.float64(2.5108705122914266e-08)
EXP_C10_F64 = np.float64(2.0892621778943068e-09)

LOG_C0_F64 = np.float64(0.666666666666666)
LOG_C1_F64 = np.float64(0.4000000000005674)
LOG_C2_F64 = np.float64(0.2857142855580559)
LOG_C3_F64 = np.float64(0.22222224299501142)
LOG_C4_F64 = np.float64(0.18181665676847514)
LOG_C5_F64 = np.float64(0.15391118821316155)
LOG_C6_F64 = np.float64(0.1317347913886779)
LOG_C7_F64 = np.float64(0.13843876541017053)

TANH_C0_F64 = np.float64(-0.3333333333333313)
TANH_C1_F64 = np.float64(0.1333333333330052)
TANH_C2_F64 = np.float64(-0.05396825394970203)
TANH_C3_F64 = np.float64(0.02186948801216013)
TANH_C4_F64 = np.float64(-0.008863226907619374)
TANH_C5_F64 = np.float64(0.003592038468944486)
TANH_C6_F64 = np.float64(-0.0014552211808948046)
TANH_C7_F64 = np.float64(0.0005872082595143765)
TANH_C8_F64 = np.float64(-0.0002304387202456993)
TANH_C9_F64 = np.float64(7.936379439269258e-05)
TANH_C10_F64 = np.float64(-1.7204263414822012e-05)


def expm1_near_zero_f64(r):
    """e^r - 1 for |r| <= ln(2)/2."""
    r2 = r * r
    p = EXP_C10_F64 * r2 + (EXP_C9_F64 * r + EXP_C8_F64)
    p = p * r2 + (EXP_C7_F64 * r + EXP_C6_F64)
    p = p * r2 + (EXP_C5_F64 * r + EXP_C4_F64)
    p = p * r2 + (EXP_C3_F64 * r + EXP_C2_F64)
    p = p * r2 + (EXP_C1_F64 * r + EXP_C0_F64)
    return r * r * p + r


def exp_f64(x):
    """e^x."""
    x = EXP_LARGEST_F64 if x > EXP_LARGEST_F64 else x
    x = EXP_SMALLEST_F64 if x < EXP_SMALLEST_F64 else x
    z = x * LOG2E_F64 + ROUND_F64
    n = z - ROUND_F64
    r = (x - n * LN2_HIGH_F64) - n * LN2_LOW_F64
    y = ONE_F64 + expm1_near_zero_f64(r)
    k = bits_of(z) - ROUND_BITS_F64
    half = k >> np.int64(1)
    first = float_bits((half + np.int64(1023)) << np.int64(52))
    second = float_bits((k - half + np.int64(1023)) << np.int64(52))
    return y * first * second


def expm1_f64(x):
    """e^x - 1 without cancellation near zero."""
    c = EXP_LARGEST_F64 if x > EXP_LARGEST_F64 else x
    c = EXPM1_SMALLEST_F64 if c < EXPM1_SMALLEST_F64 else c
    z = c * LOG2E_F64 + ROUND_F64
    n = z - ROUND_F64
    r = (c - n * LN2_HIGH_F64) - n * LN2_LOW_F64
    s = float_bits((bits_of(z) - ROUND_BITS_F64 + np.int64(1022)) << np.int64(52))
    y = TWO_F64 * (s * expm1_near_zero_f64(r) + (s - HALF_F64))
    return x if abs(x) < TINY_F64 else y


def log_reduced_f64(f, n):
    """log(1 + f) + n log(2) for |f| <= 1/3 and a whole number n.

    With s = f / (2 + f), log(1 + f) = 2 s + s R = f - (f^2/2 - s (f^2/2 + R)) where R = s^2 P(s^2).
    """
    s = f / (TWO_F64 + f)
    v = s * s
    v2 = v * v
    p = LOG_C7_F64 * v + LOG_C6_F64
    p = p * v2 + (LOG_C5_F64 * v + LOG_C4_F64)
    p = p * v2 + (LOG_C3_F64 * v + LOG_C2_F64)
    p = p * v2 + (LOG_C1_F64 * v + LOG_C0_F64)
    h = HALF_F64 * f * f
    y = s * (v * p + h) - h
    return n * LN2_HIGH_F64 + (f + (n * LN2_LOW_F64 + y))


def log_f64(x):
    """Natural logarithm."""
    denormal = x < SMALLEST_NORMAL_F64
    m = x * TO_NORMAL_F64 if denormal else x
    k = (bits_of(m) - MANTISSA_OF_LOG_F64) >> np.int64(52)
    f = float_bits(bits_of(m) - (k << np.int64(52))) - ONE_F64
    k = k - np.int64(52) if denormal else k
    y = log_reduced_f64(f, np.float64(k))
    y = y if x < INF_F64 else x
    y = -INF_F64 if x == ZERO_F64 else y
    return NAN_F64 if x < ZERO_F64 else y


def log1p_f64(x):
    """log(1 + x) without losing the low bits of a small x."""
    u = ONE_F64 + x
    k = (bits_of(u) - MANTISSA_OF_LOG_F64) >> np.int64(52)
    four = float_bits((np.int64(1025) - k) << np.int64(52))
    f = (x * QUARTER_F64) * four + (QUARTER_F64 * four - ONE_F64)
    y = log_reduced_f64(f, np.float64(k))
    y = y if x < INF_F64 else x
    y = -INF_F64 if x == -ONE_F64 else y
    y = NAN_F64 if x < -ONE_F64 else y
    return x if abs(x) < TINY_F64 else y


def tanh_f64(x):
    """Hyperbolic tangent: a polynomial below 0.6, 1 - 2 / (e^2x + 1) above."""
    t = abs(x)
    t = TANH_LARGEST_F64 if t > TANH_LARGEST_F64 else t
    v = t * t
    v2 = v * v
    p = TANH_C10_F64 * v2 + (TANH_C9_F64 * v + TANH_C8_F64)
    p = p * v2 + (TANH_C7_F64 * v + TANH_C6_F64)
    p = p * v2 + (TANH_C5_F64 * v + TANH_C4_F64)
    p = p * v2 + (TANH_C3_F64 * v + TANH_C2_F64)
    p = p * v2 + (TANH_C1_F64 * v + TANH_C0_F64)
    small = t * v * p + t
    t = t + t
    z = t * LOG2E_F64 + ROUND_F64
    n = z - ROUND_F64
    r = (t - n * LN2_HIGH_F64) - n * LN2_LOW_F64
    s = float_bits((bits_of(z) - ROUND_BITS_F64 + np.int64(1023)) << np.int64(52))
    y = ONE_F64 - TWO_F64 / (s * expm1_near_zero_f64(r) + (s + ONE_F64))
    y = small if t < TWO_F64 * TANH_MIDDLE_F64 else y
    return float_bits(bits_of(y) | (bits_of(x) & SIGN_F64))
