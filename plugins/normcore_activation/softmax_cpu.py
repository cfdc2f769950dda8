"""softmax, softmin and log_softmax on the CPU: along rows (R, A), or down blocks of columns of (O, A, I).

SIGN is 1, or -1 for softmin. The maximum goes through integers (axis_cpu.py); NaN comes back in by x - max.
"""

import math

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.approximations import exp_nonpositive
from normcore.kernels.line_by_line import line_by_line
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.streaming import STREAM_BLOCK, either_way, leaves_cache, stack_block, stream_run
from normcore_activation.axis_cpu import column_max, fill, row_max

SIGN = 1
STRIP = (
    256  # numbers between requests for memory, 16 lines: as many as are open at a time, so that none waits
)
LONG = 512  # numbers of a row, for writing it around the caches to gain more than it takes


@inline
def shifted(x, m):
    """sign x - m, in a function of its own, so that sums cannot regroup it."""
    return real(SIGN) * x - m


@inline
def shifted_exp(x, m):
    return exp_nonpositive(shifted(x, m))


@inline
def log_value(x, m, log_sum):
    return shifted(x, m) - log_sum


# -- rows --------------------------------------------------------------------------------------------------


@inline(reassociate=True)
def exp_row(x, m, y):
    total = real(0)
    for i in range(y.size):
        v = shifted_exp(x[i], m)
        y[i] = v
        total += v
    return total


@inline(reassociate=True)
def exp_sum(x, m):
    total = real(0)
    for i in range(x.size):
        total += shifted_exp(x[i], m)
    return total


@inline(reassociate=True)
def sum_row(x):
    total = real(0)
    for i in range(x.size):
        total += x[i]
    return total


@inline(reassociate=True)
def dot_row(x, y):
    total = real(0)
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@inline
def scale_row(y, factor):
    for i in range(y.size):
        y[i] *= factor


@inline
def log_row(x, m, log_sum, y):
    for i in range(y.size):
        y[i] = log_value(x[i], m, log_sum)


@inline
def softmax_gradient(y, dy, along):
    return real(SIGN) * y * (dy - along)


@inline
def log_softmax_gradient(y, dy, total):
    return dy - math.exp(y) * total


@inline
def gradient_row(y, dy, along, dx):
    for i in range(dx.size):
        dx[i] = softmax_gradient(y[i], dy[i], along)
        line_by_line()


@inline
def log_gradient_row(y, dy, total, dx):
    for i in range(dx.size):
        dx[i] = log_softmax_gradient(y[i], dy[i], total)


log_part = either_way(log_row, ["x"], ["y"], asked=[])
gradient_part = either_way(gradient_row, ["y", "dy"], ["dx"])
log_gradient_part = either_way(log_gradient_row, ["y", "dy"], ["dx"])


@cpu
def softmax_rows(x, y):
    size = x.shape[1]
    far = leaves_cache(y) and LONG <= size <= STREAM_BLOCK
    for r in prange(x.shape[0]):
        m = row_max(x[r], real(SIGN))
        if far:
            z = stack_block(y)[:size]
            total = real(0)
            for lo in range(0, size, STRIP):
                hi = min(size, lo + STRIP)
                prefetch_lines(x, (r + 1) * size + lo, hi - lo)
                total += exp_row(x[r, lo:hi], m, z[lo:hi])
            scale_row(z, real(1) / total)
            stream_run(y, r * size, z, size)
        else:
            total = exp_row(x[r], m, y[r])
            scale_row(y[r], real(1) / total)


@cpu
def softmax_rows_backward(y, dy, dx):
    far = leaves_cache(dx)
    for r in prange(y.shape[0]):
        gradient_part(y[r], dy[r], dot_row(y[r], dy[r]), dx[r], far)


@cpu
def log_softmax_rows(x, y):
    size = x.shape[1]
    far = leaves_cache(y) and size >= LONG
    for r in prange(x.shape[0]):
        m = row_max(x[r], real(SIGN))
        if far and size <= STREAM_BLOCK:
            total = real(0)
            for lo in range(0, size, STRIP):
                hi = min(size, lo + STRIP)
                prefetch_lines(x, (r + 1) * size + lo, hi - lo)
                total += exp_sum(x[r, lo:hi], m)
        else:
            total = exp_sum(x[r], m)
        log_part(x[r], m, math.log(total), y[r], far)


@cpu
def log_softmax_rows_backward(y, dy, dx):
    far = leaves_cache(dx) and dx.shape[1] >= LONG
    for r in prange(y.shape[0]):
        log_gradient_part(y[r], dy[r], sum_row(dy[r]), dx[r], far)


# -- columns: every loop below runs over columns side by side ------------------------------------------------


@inline
def exp_columns(x, m, y, total):
    for i in range(total.size):
        v = shifted_exp(x[i], m[i])
        y[i] = v
        total[i] += v


@inline
def exp_sum_columns(x, m, total):
    for i in range(total.size):
        total[i] += shifted_exp(x[i], m[i])


@inline
def invert(total):
    for i in range(total.size):
        total[i] = real(1) / total[i]


@inline
def scale_columns(y, factor):
    for i in range(factor.size):
        y[i] *= factor[i]


@inline
def logarithm(total):
    for i in range(total.size):
        total[i] = math.log(total[i])


@inline
def log_columns(x, m, log_sum, y):
    for i in range(log_sum.size):
        y[i] = log_value(x[i], m[i], log_sum[i])


@inline
def add_products(y, dy, total):
    for i in range(total.size):
        total[i] += y[i] * dy[i]


@inline
def add(dy, total):
    for i in range(total.size):
        total[i] += dy[i]


@inline
def gradient_columns(y, dy, along, dx):
    for i in range(along.size):
        dx[i] = softmax_gradient(y[i], dy[i], along[i])


@inline
def log_gradient_columns(y, dy, total, dx):
    for i in range(total.size):
        dx[i] = log_softmax_gradient(y[i], dy[i], total[i])


# Blocks stay in the second-level cache, but for what is asked for here.
log_columns_part = either_way(log_columns, ["x", "m", "log_sum"], ["y"], asked=[])
gradient_columns_part = either_way(gradient_columns, ["y", "dy", "along"], ["dx"], asked=["y", "dy"])
log_gradient_columns_part = either_way(log_gradient_columns, ["y", "dy", "total"], ["dx"], asked=["y", "dy"])


@inline
def softmax_block(x, y, o, lo, hi, m, total):
    column_max(x, o, lo, hi, m, real(SIGN))
    fill(total, real(0))
    for a in range(x.shape[1]):
        exp_columns(x[o, a, lo:hi], m, y[o, a, lo:hi], total)
    invert(total)
    for a in range(x.shape[1]):
        scale_columns(y[o, a, lo:hi], total)


@inline
def log_softmax_block(x, y, o, lo, hi, m, total, far):
    column_max(x, o, lo, hi, m, real(SIGN))
    fill(total, real(0))
    for a in range(x.shape[1]):
        exp_sum_columns(x[o, a, lo:hi], m, total)
    logarithm(total)
    for a in range(x.shape[1]):
        log_columns_part(x[o, a, lo:hi], m, total, y[o, a, lo:hi], far)


@inline
def softmax_block_backward(y, dy, dx, o, lo, hi, total, far):
    fill(total, real(0))
    for a in range(y.shape[1]):
        add_products(y[o, a, lo:hi], dy[o, a, lo:hi], total)
    for a in range(y.shape[1]):
        gradient_columns_part(y[o, a, lo:hi], dy[o, a, lo:hi], total, dx[o, a, lo:hi], far)


@inline
def log_softmax_block_backward(y, dy, dx, o, lo, hi, total, far):
    fill(total, real(0))
    for a in range(y.shape[1]):
        add(dy[o, a, lo:hi], total)
    for a in range(y.shape[1]):
        log_gradient_columns_part(y[o, a, lo:hi], dy[o, a, lo:hi], total, dx[o, a, lo:hi], far)


@cpu
def softmax_columns(x, y, scratch, width):
    blocks = (x.shape[2] + width - 1) // width
    tasks, parts = x.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(x.shape[2], lo + width)
            softmax_block(x, y, o, lo, hi, scratch[p, 0, : hi - lo], scratch[p, 1, : hi - lo])


@cpu
def log_softmax_columns(x, y, scratch, width):
    blocks = (x.shape[2] + width - 1) // width
    tasks, parts = x.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(x.shape[2], lo + width)
            log_softmax_block(
                x, y, o, lo, hi, scratch[p, 0, : hi - lo], scratch[p, 1, : hi - lo], leaves_cache(y)
            )


@cpu
def softmax_columns_backward(y, dy, dx, scratch, width):
    blocks = (y.shape[2] + width - 1) // width
    tasks, parts = y.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(y.shape[2], lo + width)
            softmax_block_backward(y, dy, dx, o, lo, hi, scratch[p, 0, : hi - lo], leaves_cache(dx))


@cpu
def log_softmax_columns_backward(y, dy, dx, scratch, width):
    blocks = (y.shape[2] + width - 1) // width
    tasks, parts = y.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(y.shape[2], lo + width)
            log_softmax_block_backward(y, dy, dx, o, lo, hi, scratch[p, 0, : hi - lo], leaves_cache(dx))
