"""Maxima, sums and copies along an axis on the CPU, as loops that vectorize."""

import numpy as np

from normcore.kernels import inline, real
from normcore.kernels.approximations import is_single
from normcore.kernels.bits import bits_of, float_bits
from normcore.kernels.select import select


@inline(typed=True)
def key_32(v):
    """An int32 that is ordered as v is; NaN above all numbers (below all, with its sign bit set)."""
    b = bits_of(v)
    return np.int32(b ^ ((b >> 31) & 0x7FFFFFFF))


@inline(typed=True)
def key_64(v):
    b = bits_of(v)
    return np.int64(b ^ ((b >> 63) & 0x7FFFFFFFFFFFFFFF))


@inline
def row_max_32(x, sign):
    best = key_32(sign * x[0])
    for i in range(x.size):
        k = key_32(sign * x[i])
        best = k if k > best else best
    return float_bits(np.int32(best ^ ((best >> 31) & 0x7FFFFFFF)))


@inline
def row_max_64(x, sign):
    best = key_64(sign * x[0])
    for i in range(x.size):
        k = key_64(sign * x[i])
        best = k if k > best else best
    return float_bits(np.int64(best ^ ((best >> 63) & 0x7FFFFFFFFFFFFFFF)))


@inline
def row_max(x, sign):
    """The largest sign * x, by integers: a maximum of floats is not vectorized unless NaN is ruled out.

    A NaN in x gives NaN or the largest of the others, so the caller's own arithmetic must carry it on.
    """
    return real(row_max_32(x, sign)) if is_single() else real(row_max_64(x, sign))


@inline
def begin_max(x, m, sign):
    for i in range(m.size):
        m[i] = sign * x[i]


@inline
def raise_max(x, m, sign):
    for i in range(m.size):
        v = sign * x[i]
        m[i] = select(v > m[i], v, m[i])


@inline
def column_max(x, o, lo, hi, m, sign):
    """m = the largest sign * x of each column lo .. hi - 1 of x[o]; a NaN may be passed over."""
    begin_max(x[o, 0, lo:hi], m, sign)
    for a in range(1, x.shape[1]):
        raise_max(x[o, a, lo:hi], m, sign)


@inline
def fill(v, value):
    for i in range(v.size):
        v[i] = value
