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
def scale_of(largest):
    """What numbers are divided by before float64 sums them: the largest, or as small as has a finite inverse."""
    return max(largest, wide(1e-300))


@inline
def scaled_term(v, inverse, p):
    """What is summed of v, in float64 and scaled."""
    u = abs(wide(v)) * inverse
    if KIND == 1:
        return u
    if KIND == 2:
        return u * u
    return u**p if u > wide(0) else u


@inline
def is_norm(largest):
    """Whether the largest is the norm already: of zeros, and where it is not finite."""
    return KIND == 3 or largest == wide(0) or largest - largest != wide(0)


@inline
def norm_of_scaled(scale, total, p):
    """The norm from the sum of scaled terms."""
    if KIND == 1:
        return scale * total
    if KIND == 2:
        return scale * math.sqrt(total)
    return scale * total ** (wide(1) / p)


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
    if is_norm(largest):
        return largest
    scale = scale_of(largest)
    total = wide(0)
    for m in range(x.shape[1]):
        total += scaled_term(x[a, m, b], wide(1) / scale, p)
    return norm_of_scaled(scale, total, p)


@inline
def norm_of_terms(total):
    """The norm from the sum of terms, for p = 1 and 2."""
    return total if KIND == 1 else math.sqrt(total)


@inline
def norm_of(x, a, b, p, total):
    """The norm from the sum of terms, where that is good."""
    if (KIND == 1 or KIND == 2) and usable(total, wide(x.shape[1])):
        return norm_of_terms(total)
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
        return math.copysign(real(1), v) if reaches(v, n) else (v - v)
    return real(math.copysign((abs(wide(v)) / n) ** (p - wide(1)), wide(v)))


@inline
def reaches(v, n):
    """Whether |v| is the largest, n."""
    return abs(wide(v)) == n


@inline
def ties(x, a, b, n):
    """How many elements share the largest absolute value; 1 for other norms."""
    if KIND != 3:
        return wide(1)
    count = wide(0)
    for m in range(x.shape[1]):
        if reaches(x[a, m, b], n):
            count += wide(1)
    return max(count, wide(1))


@inline
def share(along, n, eps, ties):
    """What multiplies the slope: sum(dy y) / n, shared by the ties; 0 where the vector is divided by eps."""
    if n < eps or n == wide(0):
        return real(0)
    return real(along / n / ties)


@inline
def gradient(v, dv, r, c):
    """dx of one element where p needs no powers. c: the share; r: 1 / d, or d itself for p = inf."""
    if KIND == 2:
        return dv * r - v * r * c
    slope = slope_at(v, wide(r), wide(KIND))
    return (dv / r if KIND == 3 else dv * r) - slope * c
