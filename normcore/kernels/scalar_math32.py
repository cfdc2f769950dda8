"""Exponentials, logarithms and tanh for float32 kernels; conventions and error bounds: scalar_math.py.

Ranges are reduced in Cody and Waite's way (Software Manual for the Elementary Functions, 1980): ln(2) is
split into a short high part, whose multiples are exact, and a low part.
"""

import numpy as np

from normcore.kernels.bits import bits_of, float_bits

ONE_F32 = np.float32(1.0)
TWO_F32 = np.float32(2.0)
HALF_F32 = np.float32(0.5)
QUARTER_F32 = np.float32(0.25)
ZERO_F32 = np.float32(0.0)
SIGN_F32 = np.int32(-(2**31))
INF_F32 = np.float32(np.inf)
NAN_F32 = np.float32(np.nan)
TINY_F32 = np.float32(2.0**-24)  # below it x + x^2/2 rounds to x
SMALLEST_NORMAL_F32 = np.float32(2.0**-126)
TO_NORMAL_F32 = np.float32(2.0**23)

# Adding 1.5 * 2^23 leaves the nearest integer n in a float32's last bits; adding 127 more leaves n + 127
# there, which a shift by 23 turns into 2^n. NaN stays NaN because the power is multiplied, not added to the
# exponent.
ROUND_126_F32 = np.float32(12582912.0 + 126)
ROUND_127_F32 = np.float32(12582912.0 + 127)
LOG2E_F32 = np.float32(1.44269504)
HALF_LOG2E_F32 = np.float32(0.72134752)
LN2_HIGH_F32 = np.float32(0.693145751953125)  # 15 bits: times an integer below 512 it is exact
LN2_LOW_F32 = np.float32(1.4286068203094172e-06)
TWO_LN2_HIGH_F32 = np.float32(2 * 0.693145751953125)
TWO_LN2_LOW_F32 = np.float32(2 * 1.4286068203094172e-06)
EXP_LARGEST_F32 = np.float32(89.0)  # exp overflows at 88.73
EXP_SMALLEST_F32 = np.float32(-104.0)  # and rounds to zero below -103.98
EXPM1_SMALLEST_F32 = np.float32(-18.0)  # expm1 rounds to -1
TANH_SMALLEST_F32 = np.float32(-9.5)  # tanh rounds to -1 from -9.02
MANTISSA_OF_LOG_F32 = np.int32(0x3F2AAAAB)  # 2/3: logarithms reduce to [2/3, 4/3)

EXP_C0_F32 = np.float32(0.5000003576278687)
EXP_C1_F32 = np.float32(0.1666661649942398)
EXP_C2_F32 = np.float32(0.04166119545698166)
EXP_C3_F32 = np.float32(0.008335963822901249)
EXP_C4_F32 = np.float32(0.0014105532318353653)
EXP_C5_F32 = np.float32(0.00019630571478046477)

EXPM1_C0_F32 = np.float32(0.4999999701976776)
EXPM1_C1_F32 = np.float32(0.1666654497385025)
EXPM1_C2_F32 = np.float32(0.04166744649410248)
EXPM1_C3_F32 = np.float32(0.00836645532399416)
EXPM1_C4_F32 = np.float32(0.0013869565445929766)

LOG_C0_F32 = np.float32(0.3333321511745453)
LOG_C1_F32 = np.float32(-0.2499980628490448)
LOG_C2_F32 = np.float32(0.200104221701622)
LOG_C3_F32 = np.float32(-0.16680192947387695)
LOG_C4_F32 = np.float32(0.14005832374095917)
LOG_C5_F32 = np.float32(-0.12187543511390686)
LOG_C6_F32 = np.float32(0.13984064757823944)
LOG_C7_F32 = np.float32(-0.1287970244884491)


def exp_f32(x):
    """e^x, 1.66 ulp.

    x = n 2 ln(2) + r, so that 2^2n is the square of a power that has no overflow, for denormal results too.
    """
    x = EXP_LARGEST_F32 if x > EXP_LARGEST_F32 else x
    x = EXP_SMALLEST_F32 if x < EXP_SMALLEST_F32 else x
    z = x * HALF_LOG2E_F32 + ROUND_127_F32
    n = z - ROUND_127_F32
    r = (x - n * TWO_LN2_HIGH_F32) - n * TWO_LN2_LOW_F32
    r2 = r * r
    p = EXP_C5_F32 * r + EXP_C4_F32
    p = p * r2 + (EXP_C3_F32 * r + EXP_C2_F32)
    p = p * r2 + (EXP_C1_F32 * r + EXP_C0_F32)
    s = float_bits(np.int32(bits_of(z) << 23))
    return (ONE_F32 + (r * r * p + r)) * s * s


def expm1_near_zero_f32(r):
    """e^r - 1 for |r| <= ln(2)/2."""
    r2 = r * r
    p = EXPM1_C4_F32 * r2 + (EXPM1_C3_F32 * r + EXPM1_C2_F32)
    p = p * r2 + (EXPM1_C1_F32 * r + EXPM1_C0_F32)
    return r * r * p + r


def expm1_f32(x):
    """e^x - 1 without cancellation near zero, 1.61 ulp."""
    c = EXP_LARGEST_F32 if x > EXP_LARGEST_F32 else x
    c = EXPM1_SMALLEST_F32 if c < EXPM1_SMALLEST_F32 else c
    z = c * LOG2E_F32 + ROUND_126_F32
    n = z - ROUND_126_F32
    r = (c - n * LN2_HIGH_F32) - n * LN2_LOW_F32
    # With s = 2^(n-1), which overflows for no n: e^x - 1 = 2 (s (e^r - 1) + (s - 1/2)).
    s = float_bits(np.int32(bits_of(z) << 23))
    y = TWO_F32 * (s * expm1_near_zero_f32(r) + (s - HALF_F32))
    return x if abs(x) < TINY_F32 else y


def with_sign_f32(y, x):
    """y >= 0 with the sign of x, that of zero included."""
    return float_bits(np.int32(bits_of(y) | (bits_of(x) & SIGN_F32)))


def log_reduced_f32(f, n):
    """log(1 + f) + n log(2) for |f| <= 1/3 and a whole number n."""
    f2 = f * f
    p = LOG_C7_F32 * f + LOG_C6_F32
    p = p * f2 + (LOG_C5_F32 * f + LOG_C4_F32)
    p = p * f2 + (LOG_C3_F32 * f + LOG_C2_F32)
    p = p * f2 + (LOG_C1_F32 * f + LOG_C0_F32)
    v = f * f
    y = v * (f * p - HALF_F32)
    return n * LN2_HIGH_F32 + (f + (n * LN2_LOW_F32 + y))


def log_f32(x):
    """Natural logarithm, 0.92 ulp."""
    denormal = x < SMALLEST_NORMAL_F32
    m = x * TO_NORMAL_F32 if denormal else x
    k = np.int32((bits_of(m) - MANTISSA_OF_LOG_F32) >> 23)
    f = float_bits(np.int32(bits_of(m) - (k << 23))) - ONE_F32
    k = np.int32(k - 23) if denormal else k
    y = log_reduced_f32(f, np.float32(k))
    y = y if x < INF_F32 else x  # infinity and NaN
    y = -INF_F32 if x == ZERO_F32 else y
    return NAN_F32 if x < ZERO_F32 else y


def log1p_f32(x):
    """log(1 + x) without losing the low bits of a small x, 1.67 ulp."""
    u = ONE_F32 + x
    k = np.int32((bits_of(u) - MANTISSA_OF_LOG_F32) >> 23)
    # (1 + x) 2^-k - 1 with one rounding; four times the scale, because 2^-128 would be a denormal.
    four = float_bits(np.int32((129 - k) << 23))
    f = (x * QUARTER_F32) * four + (QUARTER_F32 * four - ONE_F32)
    y = log_reduced_f32(f, np.float32(k))
    y = y if x < INF_F32 else x
    y = -INF_F32 if x == -ONE_F32 else y
    y = NAN_F32 if x < -ONE_F32 else y
    return x if abs(x) < TINY_F32 else y


def tanh_f32(x):
    """Hyperbolic tangent, 1.96 ulp: (1 - e) / (1 + e) with e = e^-2|x|."""
    t = -abs(x)
    t = TANH_SMALLEST_F32 if t < TANH_SMALLEST_F32 else t
    t = t + t
    z = t * LOG2E_F32 + ROUND_127_F32
    n = z - ROUND_127_F32
    r = (t - n * LN2_HIGH_F32) - n * LN2_LOW_F32
    s = float_bits(np.int32(bits_of(z) << 23))
    # With p = e^r - 1, 1 - e is (1 - s) - s p and 1 + e is (1 + s) + s p: e is not rounded by itself.
    p = expm1_near_zero_f32(r)
    return with_sign_f32(((ONE_F32 - s) - s * p) / ((ONE_F32 + s) + s * p), x)
