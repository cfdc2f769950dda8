"""Scalar mathematics for float32 kernels, written so that LLVM vectorizes the loops they are inlined into.

Straight-line arithmetic, selects and bit casts only: no branches, tables, integer division or float64. The
largest error over every float32 is given with each function, in units in the last place (ulp), measured
against float64 with fused multiply-add; tests/kernels/test_scalar_math.py holds the bars. Infinities, NaN,
signed zeros and denormal arguments and results are right. `contract` is the only fast-math flag under which
these hold: `reassoc` would remove the rounding trick in exp and the compensated sums.

Kernels reach these by writing math.exp and so on: `CPU_MATH` binds the names (normcore/kernels/source.py).
What it lacks stays math.*, that is libm, right but scalar. Coefficients: benches/fit_scalar_math.py. The
float64 half is scalar_math64.py, the sines are in trigonometry.py.

Ranges are reduced in Cody and Waite's way (Software Manual for the Elementary Functions, 1980): ln(2) is
split into a short high part, whose multiples are exact, and a low part.
"""

import numpy as np

from normcore.kernels.bits import bits_of, float_bits
from normcore.kernels.scalar_math64 import exp_f64, expm1_f64, log1p_f64, log_f64, tanh_f64
from normcore.kernels.trigonometry import cos_f32, sin_f32

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

# Adding 1.5 * 2^23 leaves the nearest integer in a float32's last bits.
ROUND_F32 = np.float32(12582912.0)
ROUND_BITS_F32 = np.int32(0x4B400000)
LOG2E_F32 = np.float32(1.44269504)
LN2_HIGH_F32 = np.float32(0.693145751953125)  # 17 bits: times an integer below 128 it is exact
LN2_LOW_F32 = np.float32(1.4286068203094172e-06)
EXP_LARGEST_F32 = np.float32(89.0)  # exp overflows at 88.73
EXP_SMALLEST_F32 = np.float32(-104.0)  # and rounds to zero below -103.98
EXPM1_SMALLEST_F32 = np.float32(-18.0)  # expm1 rounds to -1
TANH_LARGEST_F32 = np.float32(9.5)  # tanh rounds to 1 from 9.02
TANH_MIDDLE_F32 = np.float32(0.6)
MANTISSA_OF_LOG_F32 = np.int32(0x3F2AAAAB)  # 2/3: logarithms reduce to [2/3, 4/3)
ERF_LARGEST_F32 = np.float32(3.92)  # erf rounds to 1
ERF_MIDDLE_F32 = np.float32(1.15)
ERF_TAIL_MIDDLE_F32 = np.float32(2.53)
ERFC_LARGEST_F32 = np.float32(10.2)  # erfc rounds to 0
ERFC_MIDDLE_F32 = np.float32(
    0.4765
)  # below it erfc is 1 - erf: there erf is under 1/2 and its error does not show
ERFC_W_MIDDLE_F32 = np.float32(85 / 256)
SHORT_MASK_F32 = np.int32(-4096)  # keeps 12 bits of a mantissa: the square is exact

EXP_C0_F32 = np.float32(0.4999999701976776)
EXP_C1_F32 = np.float32(0.1666654497385025)
EXP_C2_F32 = np.float32(0.04166744649410248)
EXP_C3_F32 = np.float32(0.00836645532399416)
EXP_C4_F32 = np.float32(0.0013869565445929766)

LOG_C0_F32 = np.float32(0.3333321511745453)
LOG_C1_F32 = np.float32(-0.2499980628490448)
LOG_C2_F32 = np.float32(0.200104221701622)
LOG_C3_F32 = np.float32(-0.16680192947387695)
LOG_C4_F32 = np.float32(0.14005832374095917)
LOG_C5_F32 = np.float32(-0.12187543511390686)
LOG_C6_F32 = np.float32(0.13984064757823944)
LOG_C7_F32 = np.float32(-0.1287970244884491)

TANH_C0_F32 = np.float32(-0.33333298563957214)
TANH_C1_F32 = np.float32(0.13331936299800873)
TANH_C2_F32 = np.float32(-0.0537848137319088)
TANH_C3_F32 = np.float32(0.020799312740564346)
TANH_C4_F32 = np.float32(-0.0058991387486457825)

ERF_C0_F32 = np.float32(0.12837916612625122)
ERF_C1_F32 = np.float32(-0.37612631916999817)
ERF_C2_F32 = np.float32(0.11283706873655319)
ERF_C3_F32 = np.float32(-0.02686205878853798)
ERF_C4_F32 = np.float32(0.005213569849729538)
ERF_C5_F32 = np.float32(-0.0008395558106712997)
ERF_C6_F32 = np.float32(0.0001072448430932127)
ERF_C7_F32 = np.float32(-8.323386282427236e-06)

ERF_TAIL_C0_F32 = np.float32(0.13641412556171417)
ERF_TAIL_C1_F32 = np.float32(-0.1844792664051056)
ERF_TAIL_C2_F32 = np.float32(0.09250092506408691)
ERF_TAIL_C3_F32 = np.float32(-0.01302853412926197)
ERF_TAIL_C4_F32 = np.float32(-0.006046405993402004)
ERF_TAIL_C5_F32 = np.float32(0.002725565806031227)
ERF_TAIL_C6_F32 = np.float32(-2.2035652364138514e-05)
ERF_TAIL_C7_F32 = np.float32(-0.00022851508401799947)
ERF_TAIL_C8_F32 = np.float32(-1.0412741175969131e-05)

ERFC_C0_F32 = np.float32(0.7654249668121338)
ERFC_C1_F32 = np.float32(0.5855851173400879)
ERFC_C2_F32 = np.float32(-0.24554072320461273)
ERFC_C3_F32 = np.float32(-0.44534817337989807)
ERFC_C4_F32 = np.float32(0.5181722044944763)
ERFC_C5_F32 = np.float32(0.2066352218389511)
ERFC_C6_F32 = np.float32(-1.041581630706787)
ERFC_C7_F32 = np.float32(0.8605862855911255)
ERFC_C8_F32 = np.float32(0.8605741858482361)
ERFC_C9_F32 = np.float32(-2.620434284210205)
ERFC_C10_F32 = np.float32(1.8896673917770386)


def exp_f32(x):
    """e^x."""
    x = EXP_LARGEST_F32 if x > EXP_LARGEST_F32 else x
    x = EXP_SMALLEST_F32 if x < EXP_SMALLEST_F32 else x
    z = x * LOG2E_F32 + ROUND_F32
    n = z - ROUND_F32
    r = (x - n * LN2_HIGH_F32) - n * LN2_LOW_F32
    return scale_f32(ONE_F32 + expm1_near_zero_f32(r), np.int32(bits_of(z) - ROUND_BITS_F32))


def expm1_near_zero_f32(r):
    """e^r - 1 for |r| <= ln(2)/2."""
    p = EXP_C4_F32 * r + EXP_C3_F32
    p = p * r + EXP_C2_F32
    p = p * r + EXP_C1_F32
    p = p * r + EXP_C0_F32
    return r * r * p + r


def scale_f32(y, k):
    """y * 2^k for |k| <= 252, in two exact steps, so that only a denormal or infinite result is rounded."""
    half = np.int32(k >> 1)
    first = float_bits(np.int32((half + 127) << 23))
    second = float_bits(np.int32((k - half + 127) << 23))
    return y * first * second


def expm1_f32(x):
    """e^x - 1 without cancellation near zero."""
    c = EXP_LARGEST_F32 if x > EXP_LARGEST_F32 else x
    c = EXPM1_SMALLEST_F32 if c < EXPM1_SMALLEST_F32 else c
    z = c * LOG2E_F32 + ROUND_F32
    n = z - ROUND_F32
    r = (c - n * LN2_HIGH_F32) - n * LN2_LOW_F32
    # With s = 2^(n-1), which overflows for no n: e^x - 1 = 2 (s (e^r - 1) + (s - 1/2)).
    s = float_bits(np.int32((bits_of(z) - ROUND_BITS_F32 + 126) << 23))
    y = TWO_F32 * (s * expm1_near_zero_f32(r) + (s - HALF_F32))
    return x if abs(x) < TINY_F32 else y


def with_sign_f32(y, x):
    """y >= 0 with the sign of x, that of zero included."""
    return float_bits(np.int32(bits_of(y) | (bits_of(x) & SIGN_F32)))


def log_reduced_f32(f, n):
    """log(1 + f) + n log(2) for |f| <= 1/3 and a whole number n."""
    p = LOG_C7_F32 * f + LOG_C6_F32
    p = p * f + LOG_C5_F32
    p = p * f + LOG_C4_F32
    p = p * f + LOG_C3_F32
    p = p * f + LOG_C2_F32
    p = p * f + LOG_C1_F32
    p = p * f + LOG_C0_F32
    v = f * f
    y = v * (f * p - HALF_F32)
    return n * LN2_HIGH_F32 + (f + (n * LN2_LOW_F32 + y))


def log_f32(x):
    """Natural logarithm."""
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
    """log(1 + x) without losing the low bits of a small x."""
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
    """Hyperbolic tangent: a polynomial below 0.6, 1 - 2 / (e^2x + 1) above."""
    t = abs(x)
    t = TANH_LARGEST_F32 if t > TANH_LARGEST_F32 else t
    v = t * t
    p = TANH_C4_F32 * v + TANH_C3_F32
    p = p * v + TANH_C2_F32
    p = p * v + TANH_C1_F32
    p = p * v + TANH_C0_F32
    small = t * v * p + t
    t = t + t
    z = t * LOG2E_F32 + ROUND_F32
    n = z - ROUND_F32
    r = (t - n * LN2_HIGH_F32) - n * LN2_LOW_F32
    s = float_bits(np.int32((bits_of(z) - ROUND_BITS_F32 + 127) << 23))
    # e^2x + 1 as s (e^r - 1) + (s + 1): the exponential is not rounded by itself.
    y = ONE_F32 - TWO_F32 / (s * expm1_near_zero_f32(r) + (s + ONE_F32))
    return with_sign_f32(small if t < TWO_F32 * TANH_MIDDLE_F32 else y, x)


def erf_near_zero_f32(x, v):
    """erf(x) for |x| <= 1.15 with v = x^2."""
    p = ERF_C7_F32 * v + ERF_C6_F32
    p = p * v + ERF_C5_F32
    p = p * v + ERF_C4_F32
    p = p * v + ERF_C3_F32
    p = p * v + ERF_C2_F32
    p = p * v + ERF_C1_F32
    p = p * v + ERF_C0_F32
    return x * p + x


def erf_f32(x):
    """Error function: a polynomial below 1.15, one minus the fourth power of a polynomial above."""
    t = abs(x)
    t = ERF_LARGEST_F32 if t > ERF_LARGEST_F32 else t
    v = t - ERF_TAIL_MIDDLE_F32
    p = ERF_TAIL_C8_F32 * v + ERF_TAIL_C7_F32
    p = p * v + ERF_TAIL_C6_F32
    p = p * v + ERF_TAIL_C5_F32
    p = p * v + ERF_TAIL_C4_F32
    p = p * v + ERF_TAIL_C3_F32
    p = p * v + ERF_TAIL_C2_F32
    p = p * v + ERF_TAIL_C1_F32
    p = p * v + ERF_TAIL_C0_F32
    p = p * p
    y = ONE_F32 - p * p
    return with_sign_f32(erf_near_zero_f32(t, t * t) if t < ERF_MIDDLE_F32 else y, x)


def erfc_f32(x):
    """Complementary error function, relatively accurate down to the last denormal.

    Below 0.4765 one minus erf, above e^(-x^2) w P(w) with w = 1/(1 + |x|). A relative error of x^2 becomes
    one of x^2 times the result, so x^2 is taken apart into a square of 12 bits, which is exact, and the rest.
    """
    t = abs(x)
    t = ERFC_LARGEST_F32 if t > ERFC_LARGEST_F32 else t
    d = t + ONE_F32
    w = ONE_F32 / d
    v = w - ERFC_W_MIDDLE_F32
    p = ERFC_C10_F32 * v + ERFC_C9_F32
    p = p * v + ERFC_C8_F32
    p = p * v + ERFC_C7_F32
    p = p * v + ERFC_C6_F32
    p = p * v + ERFC_C5_F32
    p = p * v + ERFC_C4_F32
    p = p * v + ERFC_C3_F32
    p = p * v + ERFC_C2_F32
    p = p * v + ERFC_C1_F32
    q = p * v
    p = q + ERFC_C0_F32
    high = float_bits(np.int32(bits_of(t) & SHORT_MASK_F32))
    rest = (t - high) * (t + high)
    z = ROUND_F32 - t * t * LOG2E_F32
    n = z - ROUND_F32
    r = (-(high * high) - n * LN2_HIGH_F32) - (n * LN2_LOW_F32 + rest)
    # What the roundings of w, p and of the sum below lost, to first order.
    lost_w = (ONE_F32 - d * w) - (t - (d - ONE_F32)) * w
    lost_p = q - (p - ERFC_C0_F32)
    c = p * (expm1_near_zero_f32(r) + lost_w) + lost_p
    s = p + c
    y = scale_f32(w * s + w * (c - (s - p)), np.int32(bits_of(z) - ROUND_BITS_F32))
    y = TWO_F32 - y if x < ZERO_F32 else y
    return ONE_F32 - erf_near_zero_f32(x, t * t) if t < ERFC_MIDDLE_F32 else y


# What math.<name> becomes in CPU kernels, by dtype.
CPU_MATH = {
    "float32": {
        "exp": exp_f32,
        "expm1": expm1_f32,
        "log": log_f32,
        "log1p": log1p_f32,
        "tanh": tanh_f32,
        "erf": erf_f32,
        "erfc": erfc_f32,
        "sin": sin_f32,
        "cos": cos_f32,
    },
    "float64": {"exp": exp_f64, "expm1": expm1_f64, "log": log_f64, "log1p": log1p_f64, "tanh": tanh_f64},
}
