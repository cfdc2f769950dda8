"""Kernels of lp_norm. x (A, M, B), norms along M: rows where B is 1, else strips of B, one after the other in M.

KIND, a constant of each kernel, is 1, 2, 3 (the largest) or 0 (any p). Sums that float32 cannot hold, and any p but
1 and 2, are taken in float64 of numbers divided by the largest of them.
"""

import math

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide

KIND = 2
BLOCK = 4096  # numbers of a row that are summed in the kernel's own precision before float64 takes over
ROWS = 64  # the same along M where B > 1
STRIP = 256


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


@inline(reassociate=True)
def terms(x):
    total = real(0)
    for i in range(x.size):
        total += term(x[i])
    return total


@inline
def scale(x, y, factor):
    for i in range(x.size):
        y[i] = x[i] * factor


@inline
def add_terms(x, line):
    for i in range(line.size):
        line[i] += term(x[i])


@inline
def scale_each(x, y, factor):
    for i in range(x.size):
        y[i] = x[i] * factor[i]


@inline
def fold(line, total):
    for i in range(line.size):
        total[i] += wide(line[i])
        line[i] = real(0)


@inline
def clear(a, value):
    for i in range(a.size):
        a[i] = value


@inline
def divisor(norm, eps):
    """max(norm, eps); NaN stays."""
    return eps if norm < eps else norm


@inline
def inverse(n, eps):
    """1 / max(n, eps) with eps as float64: 1e-12 is more than float32's smallest, its inverse less than the largest."""
    return real(wide(1) / divisor(n, eps))


@cpu
def forward_rows(x, y, norm, p, eps):
    """B = 1. norm (A, 1) float64."""
    count = x.shape[1]
    for a in prange(x.shape[0]):
        total = wide(0)
        if KIND == 1 or KIND == 2:
            for lo in range(0, count, BLOCK):
                total += wide(terms(x[a, lo : min(count, lo + BLOCK), 0]))
        norm[a, 0] = norm_of(x, a, 0, p, total)
        scale(x[a, :, 0], y[a, :, 0], inverse(norm[a, 0], eps))


@cpu
def forward_strips(x, y, norm, lines, p, eps):
    """lines (tasks, 2, STRIP) scratch, a task a strip of B."""
    strips = (x.shape[2] + STRIP - 1) // STRIP
    tasks = lines.shape[0]
    jobs = x.shape[0] * strips
    step = (jobs + tasks - 1) // tasks
    for task in prange(tasks):
        for job in range(task * step, min(jobs, task * step + step)):
            a = job // strips
            lo = (job - a * strips) * STRIP
            hi = min(x.shape[2], lo + STRIP)
            line, total = lines[task, 0, : hi - lo], norm[a, lo:hi]
            clear(line, real(0))
            clear(total, wide(0))
            if KIND == 1 or KIND == 2:
                for first in range(0, x.shape[1], ROWS):
                    for m in range(first, min(x.shape[1], first + ROWS)):
                        add_terms(x[a, m, lo:hi], line)
                    fold(line, total)
            for b in range(lo, hi):
                norm[a, b] = norm_of(x, a, b, p, norm[a, b])
                line[b - lo] = inverse(norm[a, b], eps)
            for m in range(x.shape[1]):
                scale_each(x[a, m, lo:hi], y[a, m, lo:hi], line)


# -- backward: dx = dy / d - (d norm / dx) * sum(dy * y) / d, d = max(norm, eps); the second term only if norm >= eps


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


@inline(reassociate=True)
def product(x, dy, r):
    total = real(0)
    for i in range(x.size):
        total += dy[i] * (x[i] * r)
    return total


@inline
def gradient_two(x, dy, dx, r, c):
    for i in range(x.size):
        dx[i] = dy[i] * r - x[i] * r * c


@inline
def gradient_any(x, dy, dx, r, c, n, p):
    for i in range(x.size):
        dx[i] = dy[i] * r - slope_at(x[i], n, p) * c


@cpu
def backward_rows(x, dy, dx, norm, p, eps):
    count = x.shape[1]
    for a in prange(x.shape[0]):
        n = norm[a, 0]
        r = inverse(n, eps)
        along = wide(0)
        for lo in range(0, count, BLOCK):
            hi = min(count, lo + BLOCK)
            along += wide(product(x[a, lo:hi, 0], dy[a, lo:hi, 0], r))
        c = real(0)
        if not n < eps and n != wide(0):
            c = real(along / n / ties(x, a, 0, n))
        if KIND == 2:
            gradient_two(x[a, :, 0], dy[a, :, 0], dx[a, :, 0], r, c)
        else:
            gradient_any(x[a, :, 0], dy[a, :, 0], dx[a, :, 0], r, c, n, p)


@inline
def add_products(x, dy, r, line):
    for i in range(line.size):
        line[i] += dy[i] * (x[i] * r[i])


@inline
def gradient_two_each(x, dy, dx, r, c):
    for i in range(x.size):
        dx[i] = dy[i] * r[i] - x[i] * r[i] * c[i]


@inline
def gradient_any_each(x, dy, dx, r, c, n, p):
    for i in range(x.size):
        dx[i] = dy[i] * r[i] - slope_at(x[i], n[i], p) * c[i]


@cpu
def backward_strips(x, dy, dx, norm, lines, totals, p, eps):
    """lines (tasks, 2, STRIP), totals (tasks, STRIP) float64."""
    strips = (x.shape[2] + STRIP - 1) // STRIP
    tasks = lines.shape[0]
    jobs = x.shape[0] * strips
    step = (jobs + tasks - 1) // tasks
    for task in prange(tasks):
        for job in range(task * step, min(jobs, task * step + step)):
            a = job // strips
            lo = (job - a * strips) * STRIP
            hi = min(x.shape[2], lo + STRIP)
            r, c, total = lines[task, 0, : hi - lo], lines[task, 1, : hi - lo], totals[task, : hi - lo]
            for b in range(lo, hi):
                r[b - lo] = inverse(norm[a, b], eps)
            clear(c, real(0))
            clear(total, wide(0))
            for first in range(0, x.shape[1], ROWS):
                for m in range(first, min(x.shape[1], first + ROWS)):
                    add_products(x[a, m, lo:hi], dy[a, m, lo:hi], r, c)
                fold(c, total)
            for b in range(lo, hi):
                n = norm[a, b]
                if not n < eps and n != wide(0):
                    c[b - lo] = real(total[b - lo] / n / ties(x, a, b, n))
            for m in range(x.shape[1]):
                p_, g, d = x[a, m, lo:hi], dy[a, m, lo:hi], dx[a, m, lo:hi]
                if KIND == 2:
                    gradient_two_each(p_, g, d, r, c)
                else:
                    gradient_any_each(p_, g, d, r, c, norm[a, lo:hi], p)


# -- CUDA: a warp a row where B is 1, else a thread an element of (A, B), neighbours along B -----------------------


@inline
def lanes_sum(v):
    for k in range(5):
        v += cu.shfl_xor_sync(0xFFFFFFFF, v, 16 >> k)
    return v


@cuda
def forward_cuda(x, y, norm, lanes, p, eps):
    """lanes: threads that share a vector, 32 or 1."""
    lane = cu.threadIdx.x % lanes
    vectors = norm.size
    first = (cu.blockIdx.x * cu.blockDim.x + cu.threadIdx.x) // lanes
    for v in range(first, vectors, cu.gridDim.x * cu.blockDim.x // lanes):
        a = v // x.shape[2]
        b = v - a * x.shape[2]
        total = wide(0)
        if KIND == 1 or KIND == 2:
            for m in range(lane, x.shape[1], lanes):
                total += wide(term(x[a, m, b]))
            if lanes > 1:
                total = lanes_sum(total)
        n = norm_of(x, a, b, p, total)
        if lane == 0:
            norm[a, b] = n
        r = inverse(n, eps)
        for m in range(lane, x.shape[1], lanes):
            y[a, m, b] = x[a, m, b] * r


@cuda
def backward_cuda(x, dy, dx, norm, lanes, p, eps):
    lane = cu.threadIdx.x % lanes
    vectors = norm.size
    first = (cu.blockIdx.x * cu.blockDim.x + cu.threadIdx.x) // lanes
    for v in range(first, vectors, cu.gridDim.x * cu.blockDim.x // lanes):
        a = v // x.shape[2]
        b = v - a * x.shape[2]
        n = norm[a, b]
        r = inverse(n, eps)
        along = wide(0)
        for m in range(lane, x.shape[1], lanes):
            along += wide(dy[a, m, b] * (x[a, m, b] * r))
        if lanes > 1:
            along = lanes_sum(along)
        c = real(0)
        if not n < eps and n != wide(0):
            c = real(along / n / ties(x, a, b, n))
        for m in range(lane, x.shape[1], lanes):
            dx[a, m, b] = dy[a, m, b] * r - slope_at(x[a, m, b], n, p) * c
