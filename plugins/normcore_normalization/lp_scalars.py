"""Scalar mathematics of lp_norm, shared by the CPU and CUDA. x (A, M, B), norms along M.

KIND, a constant of each kernel, is 1, 2, 3 (the largest) or 0 (any p). Sums that float32 cannot hold, and any p but
1 and 2, are taken in float64 of numbers divided by the largest of them.
"""

import math

from normcore.kernels import inline, real, wide

KIND = 2


@inline
def term(v):
    """What is summed, for p = 1 and 2."""
    return abs(v) if KIND == 1 else v * v


@inline
def usable(total, count):
    return total < wide(1e37) and total > count * wide(1e-30)


@inline
def exact_norm(x, a, b, p):
    """The norm of x[a, :, b] in float64, without overflow. NaN stays."""
    largest = wide(0)
    for m in range(x.shape[1]):
        v = abs(wide(x[a, m, b]))
        if v > largest or v != v:
            largest = v
        if largest != largest:
            break
    if KIND == 3 or largest == wide(0) or largest - largest != wide(0):
        return largest
    total = wide(0)
    for m in range(x.shape[1]):
        v = abs(wide(x[a, m, b])) / largest
        if KIND == 1:
            total += v
        elif KIND == 2:
            total += v * v
        elif v > wide(0):
            total += v**p
    if KIND == 1:
        return largest * total
    if KIND == 2:
        return largest * math.sqrt(total)
    return largest * total ** (wide(1) / p)


@inline
def norm_of(x, a, b, p, total):
    """The norm from the sum of terms, where that is good."""
    if (KIND == 1 or KIND == 2) and usable(total, wide(x.shape[1])):
        return total if KIND == 1 else math.sqrt(total)
    return exact_norm(x, a, b, p)


@inline
def divisor(norm, eps):
    """max(norm, eps); NaN stays."""
    return eps if norm < eps else norm


@inline
def inverse(n, eps):
    """1 / max(n, eps) with eps as float64: 1e-12 is more than float32's smallest, its inverse less than the largest."""
    return real(wide(1) / divisor(n, eps))


@inline
def slope_at(v, n, p):
    """d norm / d x for one element v of a vector of norm n; 0 at 0. For KIND 3 before ties share."""
    if KIND == 1:
        return real(0) if v == real(0) else math.copysign(real(1), v)
    if KIND == 2:
        return real(wide(v) / n)
    if v == real(0):
        return real(0)
    if KIND == 3:
        return math.copysign(real(1), v) if abs(wide(v)) == n else (v - v)
    return real(math.copysign((abs(wide(v)) / n) ** (p - wide(1)), wide(v)))


@inline
def ties(x, a, b, n):
    """How many elements share the largest absolute value; 1 for other norms."""
    if KIND != 3:
        return wide(1)
    count = wide(0)
    for m in range(x.shape[1]):
        if abs(wide(x[a, m, b])) == n:
            count += wide(1)
    return max(count, wide(1))
