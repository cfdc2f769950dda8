"""Sine and cosine for float32 kernels, right for every argument up to 3.4e38, without branches.

x * 2/pi is computed in integers after Payne and Hanek (Radian reduction for trigonometric functions, 1983):
bits of 2/pi that only add whole turns are skipped, and 96 bits from there on times the 24 bits of x leave the
quadrant and 62 bits of the fraction. One path serves all magnitudes, so the loop vectorizes. No op of the
core uses these; they are here for plugins. Conventions as in scalar_math.py.
"""

import numpy as np

from normcore.kernels.bits import bits_of, float_bits

# 2/pi in words of 32 bits after the point, with a word of zeros before it.
TWO_OVER_PI_0 = np.int64(0)
TWO_OVER_PI_1 = np.int64(0xA2F9836E)
TWO_OVER_PI_2 = np.int64(0x4E441529)
TWO_OVER_PI_3 = np.int64(0xFC2757D1)
TWO_OVER_PI_4 = np.int64(0xF534DDC0)
TWO_OVER_PI_5 = np.int64(0xDB629599)
TWO_OVER_PI_6 = np.int64(0x3C439041)
TWO_OVER_PI_7 = np.int64(0xFE5163AB)
WORD = np.int64(0xFFFFFFFF)

QUARTER_PI_F32 = np.float32(0.7853981633974483)
FRACTION_F32 = np.float32(3.4061216748705226e-19)  # pi/2 * 2^-62, its high and its low part
FRACTION_LOW_F32 = np.float32(-9.478396428567739e-27)
HALF_F32 = np.float32(0.5)
ONE_F32 = np.float32(1.0)
ZERO_F32 = np.float32(0.0)
SIGN_F32 = np.int32(-(2**31))
SMALLEST_EXPONENT = np.int64(126)  # of arguments that need a reduction

SIN_C0_F32 = np.float32(-0.16666655242443085)
SIN_C1_F32 = np.float32(0.008332191035151482)
SIN_C2_F32 = np.float32(-0.00019518611952662468)
COS_C0_F32 = np.float32(0.04166664555668831)
COS_C1_F32 = np.float32(-0.00138873013202101)
COS_C2_F32 = np.float32(2.4430670237052254e-05)


def fraction_of_quadrant(x):
    """int64 q (modulo 4) and f, |f| <= 2^61, with |x| = (q + f 2^-62) pi/2, for finite |x| >= pi/4."""
    bits = np.int64(bits_of(abs(x)))
    exponent = bits >> np.int64(23)
    exponent = SMALLEST_EXPONENT if exponent < SMALLEST_EXPONENT else exponent
    mantissa = (bits & np.int64(0x7FFFFF)) | np.int64(0x800000)
    start = exponent - np.int64(120)  # first bit of the table that counts, below 136
    word = start >> np.int64(5)
    shift = start & np.int64(31)
    a = TWO_OVER_PI_1 if word & np.int64(1) else TWO_OVER_PI_0
    b = TWO_OVER_PI_2 if word & np.int64(1) else TWO_OVER_PI_1
    c = TWO_OVER_PI_3 if word & np.int64(1) else TWO_OVER_PI_2
    d = TWO_OVER_PI_4 if word & np.int64(1) else TWO_OVER_PI_3
    e = TWO_OVER_PI_3 if word & np.int64(1) else TWO_OVER_PI_2
    f = TWO_OVER_PI_4 if word & np.int64(1) else TWO_OVER_PI_3
    g = TWO_OVER_PI_5 if word & np.int64(1) else TWO_OVER_PI_4
    h = TWO_OVER_PI_6 if word & np.int64(1) else TWO_OVER_PI_5
    a = e if word & np.int64(2) else a
    b = f if word & np.int64(2) else b
    c = g if word & np.int64(2) else c
    d = h if word & np.int64(2) else d
    a = TWO_OVER_PI_4 if word & np.int64(4) else a
    b = TWO_OVER_PI_5 if word & np.int64(4) else b
    c = TWO_OVER_PI_6 if word & np.int64(4) else c
    d = TWO_OVER_PI_7 if word & np.int64(4) else d
    back = np.int64(32) - shift
    high = ((a << shift) & WORD) | (b >> back)
    middle = ((b << shift) & WORD) | (c >> back)
    low = ((c << shift) & WORD) | (d >> back)
    # mantissa * (high, middle, low) modulo 2^96, upper 64 bits; weight of the lowest kept bit: 2^-62 of a
    # quadrant.
    middle = mantissa * middle + ((mantissa * low) >> np.int64(32))
    high = (mantissa * high + (middle >> np.int64(32))) & WORD
    quadrant = (high + np.int64(0x20000000)) >> np.int64(30)
    fraction = ((high - (quadrant << np.int64(30))) << np.int64(32)) + (middle & WORD)
    return quadrant, fraction


def turned_f32(x, quadrants):
    """sin(|x| + quadrants * pi/2)."""
    t = abs(x)
    q, fraction = fraction_of_quadrant(x)
    high = np.float32(fraction)
    low = np.float32(fraction - np.int64(high))
    r = high * FRACTION_F32
    rest = high * FRACTION_LOW_F32 + low * FRACTION_F32
    small = t < QUARTER_PI_F32
    r = t if small else r
    rest = ZERO_F32 if small else rest
    q = np.int32(quadrants) if small else np.int32(q + quadrants)
    v = r * r
    s = (SIN_C2_F32 * v + SIN_C1_F32) * v + SIN_C0_F32
    s = r + (r * v * s + rest)
    c = (COS_C2_F32 * v + COS_C1_F32) * v + COS_C0_F32
    c = ONE_F32 - (HALF_F32 * v - (v * v * c - r * rest))
    y = c if q & 1 else s
    y = float_bits(np.int32(bits_of(y) ^ np.int32((q & 2) << 30)))
    return y + (x - x)  # infinity has no sine


def sin_f32(x):
    """Sine."""
    y = turned_f32(x, np.int64(0))
    return float_bits(np.int32(bits_of(y) ^ (bits_of(x) & SIGN_F32)))


def cos_f32(x):
    """Cosine."""
    return turned_f32(x, np.int64(1))
