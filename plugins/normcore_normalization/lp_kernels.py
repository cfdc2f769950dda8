"""lp_norm on the CPU. x (A, M, B), norms along M: rows where B is 1, else strips of B, one after the other in M."""

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.streaming import (
    either_way,
    leaves_cache,
)
from normcore.kernels.unaliased import unaliased
from normcore_normalization.lp_scalars import KIND, inverse, norm_of, share, slope_at, term, ties

BLOCK = 4096  # numbers of a row that are summed in the kernel's own precision before float64 takes over
ROWS = 64  # the same along M where B > 1
STRIP = 512
WHOLE = (
    1 << 19
)  # numbers of a sample that is taken whole instead of in strips: 2 MB of float32, twice through the caches
LONGEST = 8192  # its vectors, whose sums stay in the L1 cache


@inline(reassociate=True, force=True)
def terms(x):
    total = real(0)
    for i in range(x.size):
        total += term(x[i])
    return total


@inline(force=True)
def scale(x, y, factor):
    for i in range(x.size):
        y[i] = x[i] * factor


scale_part = either_way(scale, ["x"], ["y"])


def strip_of(shape):
    """How many vectors of (A, M, B) a job takes."""
    _, size, count = shape
    return count if size * count <= WHOLE and count <= LONGEST else STRIP


@inline(force=True)
def add_terms(x, line):
    for i in range(line.size):
        line[i] += term(x[i])
        line_by_line()


@inline(force=True)
def scale_each(x, y, factor):
    for i in range(x.size):
        y[i] = x[i] * factor[i]


scale_each_part = either_way(scale_each, ["x", "factor"], ["y"], asked=["x"])


@inline
def fold(line, total):
    for i in range(line.size):
        total[i] += wide(line[i])
        line[i] = real(0)


@inline
def clear(a, value):
    for i in range(a.size):
        a[i] = value


@cpu
def forward_rows(x, rows, y, norm, p, eps):
    """x (A, M, 1), rows: x as (A, M); y (A, M), norm (A, 1) float64."""
    count, far = x.shape[1], leaves_cache(y)
    for a in prange(x.shape[0]):
        total = wide(0)
        if KIND == 1 or KIND == 2:
            for lo in range(0, count, BLOCK):
                total += wide(terms(rows[a, lo : min(count, lo + BLOCK)]))
        norm[a, 0] = norm_of(x, a, 0, p, total)
        scale_part(rows[a], y[a], inverse(norm[a, 0], eps), far)


@cpu
def forward_strips(x, y, norm, lines, strip, p, eps):
    """lines (tasks, 2, at least strip): scratch; a job is a strip of B."""
    far, ahead = leaves_cache(y), strip < x.shape[2]
    strips = (x.shape[2] + strip - 1) // strip
    tasks = lines.shape[0]
    jobs = x.shape[0] * strips
    for task in prange(tasks):
        for job in range(jobs * task // tasks, jobs * (task + 1) // tasks):
            a = job // strips
            lo = (job - a * strips) * strip
            hi = min(x.shape[2], lo + strip)
            line, total = lines[task, 0, : hi - lo], norm[a, lo:hi]
            clear(line, real(0))
            clear(total, wide(0))
            if KIND == 1 or KIND == 2:
                sums = unaliased(line)
                for first in range(0, x.shape[1], ROWS):
                    for m in range(first, min(x.shape[1], first + ROWS)):
                        add_terms(x[a, m, lo:hi], sums)
                    fold(sums, total)
            for b in range(lo, hi):
                norm[a, b] = norm_of(x, a, b, p, norm[a, b])
                line[b - lo] = inverse(norm[a, b], eps)
            for m in range(x.shape[1]):
                if ahead:
                    prefetch_lines(x, (a * x.shape[1] + m) * x.shape[2] + hi, strip)  # to be summed next
                scale_each_part(x[a, m, lo:hi], y[a, m, lo:hi], line, far)


# -- backward: dx = dy / d - (d norm / dx) * sum(dy * y) / d, d = max(norm, eps); the second term only if norm >= eps


@inline(reassociate=True, force=True)
def product(x, dy, r):
    total = real(0)
    for i in range(x.size):
        total += dy[i] * (x[i] * r)
    return total


@inline(force=True)
def gradient_two(x, dy, dx, r, c):
    for i in range(x.size):
        dx[i] = dy[i] * r - x[i] * r * c


@inline(force=True)
def gradient_any(x, dy, dx, r, c, n, p):
    for i in range(x.size):
        dx[i] = dy[i] * r - slope_at(x[i], n, p) * c


@cpu
def backward_rows(x, rows, dy, dx, norm, p, eps):
    """x (A, M, 1), rows: x as (A, M); dy, dx (A, M)."""
    count = x.shape[1]
    for a in prange(x.shape[0]):
        n = norm[a, 0]
        r = inverse(n, eps)
        along = wide(0)
        for lo in range(0, count, BLOCK):
            hi = min(count, lo + BLOCK)
            along += wide(product(rows[a, lo:hi], dy[a, lo:hi], r))
        c = share(along, n, eps, ties(x, a, 0, n))
        if KIND == 2:
            gradient_two(rows[a], dy[a], dx[a], r, c)
        else:
            gradient_any(rows[a], dy[a], dx[a], r, c, n, p)


@inline(force=True)
def add_products(x, dy, r, line):
    for i in range(line.size):
        line[i] += dy[i] * (x[i] * r[i])
        line_by_line()


@inline(force=True)
def gradient_two_each(x, dy, dx, r, c):
    for i in range(x.size):
        dx[i] = dy[i] * r[i] - x[i] * r[i] * c[i]
        line_by_line()


gradient_two_part = either_way(gradient_two_each, ["x", "dy", "r", "c"], ["dx"], asked=["x", "dy"])


@inline(force=True)
def gradient_any_each(x, dy, dx, r, c, n, p):
    for i in range(x.size):
        dx[i] = dy[i] * r[i] - slope_at(x[i], n[i], p) * c[i]


@cpu
def backward_strips(x, dy, dx, norm, lines, totals, strip, p, eps):
    """lines (tasks, 2, at least strip), totals (tasks, at least strip) float64: scratch."""
    far = leaves_cache(dx)
    strips = (x.shape[2] + strip - 1) // strip
    tasks = lines.shape[0]
    jobs = x.shape[0] * strips
    for task in prange(tasks):
        for job in range(jobs * task // tasks, jobs * (task + 1) // tasks):
            a = job // strips
            lo = (job - a * strips) * strip
            hi = min(x.shape[2], lo + strip)
            r, c, total = lines[task, 0, : hi - lo], lines[task, 1, : hi - lo], totals[task, : hi - lo]
            for b in range(lo, hi):
                r[b - lo] = inverse(norm[a, b], eps)
            clear(c, real(0))
            clear(total, wide(0))
            sums = unaliased(c)
            for first in range(0, x.shape[1], ROWS):
                for m in range(first, min(x.shape[1], first + ROWS)):
                    add_products(x[a, m, lo:hi], dy[a, m, lo:hi], r, sums)
                fold(sums, total)
            for b in range(lo, hi):
                c[b - lo] = share(total[b - lo], norm[a, b], eps, ties(x, a, b, norm[a, b]))
            for m in range(x.shape[1]):
                p_, g, d = x[a, m, lo:hi], dy[a, m, lo:hi], dx[a, m, lo:hi]
                if KIND == 2:
                    gradient_two_part(p_, g, d, r, c, far)
                else:
                    gradient_any_each(p_, g, d, r, c, norm[a, lo:hi], p)
