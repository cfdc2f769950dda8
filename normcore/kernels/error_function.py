"""erf and erfc for float32 kernels; conventions and error bounds: scalar_math.py."""

import numpy as np

from normcore.kernels.bits import bits_of, float_bits
from normcore.kernels.scalar_math32 import (
    LN2_HIGH_F32,
    LN2_LOW_F32,
    LOG2E_F32,
    ONE_F32,
    TWO_F32,
    ZERO_F32,
    expm1_near_zero_f32,
    with_sign_f32,
)

ROUND_191_F32 = np.float32(12582912.0 + 191)
DOWN_64_F32 = np.float32(2.0**-64)
ERF_LARGEST_F32 = np.float32(3.92)  # erf rounds to 1
ERF_MIDDLE_F32 = np.float32(1.15)
ERF_TAIL_MIDDLE_F32 = np.float32(2.53)
ERFC_LARGEST_F32 = np.float32(10.2)  # erfc rounds to 0
# Below it erfc is 1 - erf: there erf is under 1/2 and its error does not show.
ERFC_MIDDLE_F32 = np.float32(0.4765)
ERFC_W_MIDDLE_F32 = np.float32(85 / 256)
SHORT_MASK_F32 = np.int32(-4096)  # keeps 12 bits of a mantissa: the square is exact

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


def erf_near_zero_f32(x, v):
    """erf(x) for |x| <= 1.15 with v = x^2."""
    v2 = v * v
    p = ERF_C7_F32 * v + ERF_C6_F32
    p = p * v2 + (ERF_C5_F32 * v + ERF_C4_F32)
    p = p * v2 + (ERF_C3_F32 * v + ERF_C2_F32)
    p = p * v2 + (ERF_C1_F32 * v + ERF_C0_F32)
    return x * p + x


def erf_f32(x):
    """Error function, 1.35 ulp: a polynomial below 1.15, 1 - p^4 with a polynomial p above."""
    t = abs(x)
    t = ERF_LARGEST_F32 if t > ERF_LARGEST_F32 else t
    v = t - ERF_TAIL_MIDDLE_F32
    v2 = v * v
    p = ERF_TAIL_C8_F32 * v2 + (ERF_TAIL_C7_F32 * v + ERF_TAIL_C6_F32)
    p = p * v2 + (ERF_TAIL_C5_F32 * v + ERF_TAIL_C4_F32)
    p = p * v2 + (ERF_TAIL_C3_F32 * v + ERF_TAIL_C2_F32)
    p = p * v2 + (ERF_TAIL_C1_F32 * v + ERF_TAIL_C0_F32)
    p = p * p
    y = ONE_F32 - p * p
    return with_sign_f32(erf_near_zero_f32(t, t * t) if t < ERF_MIDDLE_F32 else y, x)


def erfc_f32(x):
    """Complementary error function, 1.96 ulp, relatively accurate down to the last denormal.

    Below 0.4765 one minus erf, above e^(-x^2) w P(w) with w = 1/(1 + |x|). A relative error of x^2 becomes
    one of x^2 times the result, so x^2 is taken apart into a square of 12 bits, which is exact, and the rest.
    """
    t = abs(x)
    t = ERFC_LARGEST_F32 if t > ERFC_LARGEST_F32 else t
    d = t + ONE_F32
    w = ONE_F32 / d
    v = w - ERFC_W_MIDDLE_F32
    v2 = v * v
    p = ERFC_C10_F32 * v + ERFC_C9_F32
    p = p * v2 + (ERFC_C8_F32 * v + ERFC_C7_F32)
    p = p * v2 + (ERFC_C6_F32 * v + ERFC_C5_F32)
    p = p * v2 + (ERFC_C4_F32 * v + ERFC_C3_F32)
    p = p * v2 + (ERFC_C2_F32 * v + ERFC_C1_F32)
    q = p * v
    p = q + ERFC_C0_F32
    high = float_bits(np.int32(bits_of(t) & SHORT_MASK_F32))
    rest = (t - high) * (t + high)
    z = ROUND_191_F32 - t * t * LOG2E_F32
    n = z - ROUND_191_F32
    r = (-(high * high) - n * LN2_HIGH_F32) - (n * LN2_LOW_F32 + rest)
    # What the roundings of w, p and of the sum below lost, to first order.
    lost_w = (ONE_F32 - d * w) - (t - (d - ONE_F32)) * w
    lost_p = q - (p - ERFC_C0_F32)
    c = p * (expm1_near_zero_f32(r) + lost_w) + lost_p
    s = p + c
    y = (w * s + w * (c - (s - p))) * float_bits(np.int32(bits_of(z) << 23)) * DOWN_64_F32
    y = TWO_F32 - y if x < ZERO_F32 else y
    return ONE_F32 - erf_near_zero_f32(x, t * t) if t < ERFC_MIDDLE_F32 else y
