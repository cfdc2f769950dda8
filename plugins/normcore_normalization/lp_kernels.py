"""lp_norm on the CPU. x (A, M, B), norms along M: rows where B is 1, else strips of B, one after the other in M."""

from normcore.kernels import cpu, inline, prange, real, wide
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.streaming import (
    STREAM_BLOCK,
    first_stop,
    leaves_cache,
    stack_block,
    stream_run,
)
from normcore_normalization.lp_scalars import KIND, inverse, norm_of, slope_at, term, ties

BLOCK = 4096  # numbers of a row that are summed in the kernel's own precision before float64 takes over
ROWS = 64  # the same along M where B > 1
STRIP = 256


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


@inline(force=True)
def stream_scaled(x, y, factor):
    """scale around the caches."""
    block = stack_block(y)
    lo, hi = 0, first_stop(y)
    while lo < y.size:
        scale(x[lo:hi], block[: hi - lo], factor)
        stream_run(y, lo, block, hi - lo)
        lo, hi = hi, min(y.size, hi + STREAM_BLOCK)


@inline(force=True)
def add_terms(x, line):
    for i in range(line.size):
        line[i] += term(x[i])


@inline(force=True)
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


@cpu
def forward_rows(x, rows, y, norm, p, eps):
    """x (A, M, 1), rows: x as (A, M); y (A, M), norm (A, 1) float64."""
    count = x.shape[1]
    for a in prange(x.shape[0]):
        total = wide(0)
        if KIND == 1 or KIND == 2:
            for lo in range(0, count, BLOCK):
                total += wide(terms(rows[a, lo : min(count, lo + BLOCK)]))
        norm[a, 0] = norm_of(x, a, 0, p, total)
        if leaves_cache(y):
            stream_scaled(rows[a], y[a], inverse(norm[a, 0], eps))
        else:
            scale(rows[a], y[a], inverse(norm[a, 0], eps))


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
            if leaves_cache(y):
                block = stack_block(y)
                for m in range(x.shape[1]):
                    prefetch_lines(x, (a * x.shape[1] + m) * x.shape[2] + hi, STRIP)  # to be summed next
                    scale_each(x[a, m, lo:hi], block, line)
                    stream_run(y, (a * x.shape[1] + m) * x.shape[2] + lo, block, hi - lo)
            else:
                for m in range(x.shape[1]):
                    scale_each(x[a, m, lo:hi], y[a, m, lo:hi], line)


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
        c = real(0)
        if not n < eps and n != wide(0):
            c = real(along / n / ties(x, a, 0, n))
        if KIND == 2:
            gradient_two(rows[a], dy[a], dx[a], r, c)
        else:
            gradient_any(rows[a], dy[a], dx[a], r, c, n, p)


@inline(force=True)
def add_products(x, dy, r, line):
    for i in range(line.size):
        line[i] += dy[i] * (x[i] * r[i])


@inline(force=True)
def gradient_two_each(x, dy, dx, r, c):
    for i in range(x.size):
        dx[i] = dy[i] * r[i] - x[i] * r[i] * c[i]


@inline(force=True)
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
