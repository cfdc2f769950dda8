"""sparsemax on the CPU: along rows (R, A), or down blocks of columns of (O, A, I). See sparsemax.py."""

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.select import select
from normcore_activation.axis_cpu import column_max, fill, row_max


@inline
def shifted(x, m):
    """x - m, in a function of its own, so that sums cannot regroup it."""
    return x - m


@inline
def excess(x, m, tau):
    """The output. A NaN is no number at or below tau, so it stays."""
    z = shifted(x, m)
    return 0.0 if z <= tau else z - tau


@inline
def kept(z, tau):
    """z above tau, else 0; without the flags of a sum, which would make a branch of the choice."""
    return 0.0 if z <= tau else z


@inline
def counted(z, tau):
    return 0.0 if z <= tau else 1.0


@inline
def support_gradient(y, dy, mean):
    return 0.0 if y <= 0.0 else dy - mean


# -- rows --------------------------------------------------------------------------------------------------


@inline(reassociate=True)
def above(x, m, tau):
    """Sum and number of the x - m above tau; both of NaN too."""
    total = real(0)
    count = real(0)
    for i in range(x.size):
        z = shifted(x[i], m)
        total += kept(z, tau)
        count += counted(z, tau)
    return total, count


@inline
def threshold(x, m):
    tau = real(-1)
    total, count = above(x, m, tau)
    known = count + 1.0
    while count < known:
        tau = (total - 1.0) / count
        known = count
        total, count = above(x, m, tau)
    return tau


@inline
def excess_row(x, m, tau, y):
    for i in range(y.size):
        y[i] = excess(x[i], m, tau)


@inline(reassociate=True)
def support_mean(y, dy):
    total = real(0)
    count = real(0)
    for i in range(y.size):
        out = y[i] <= 0.0
        total += 0.0 if out else dy[i]
        count += 0.0 if out else 1.0
    return total / count


@inline
def gradient_row(y, dy, mean, dx):
    for i in range(dx.size):
        dx[i] = support_gradient(y[i], dy[i], mean)


@cpu
def sparsemax_rows(x, y):
    for r in prange(x.shape[0]):
        m = row_max(x[r], real(1))
        excess_row(x[r], m, threshold(x[r], m), y[r])


@cpu
def sparsemax_rows_backward(y, dy, dx):
    for r in prange(y.shape[0]):
        gradient_row(y[r], dy[r], support_mean(y[r], dy[r]), dx[r])


# -- columns -----------------------------------------------------------------------------------------------


@inline
def above_columns(x, m, tau, total, count):
    for i in range(total.size):
        z = shifted(x[i], m[i])
        total[i] += kept(z, tau[i])
        count[i] += counted(z, tau[i])


@inline(reassociate=True)
def shrink(tau, total, count, known):
    """A new tau for the columns whose set got smaller; how many these are."""
    moved = real(0)
    for i in range(tau.size):
        smaller = count[i] < known[i]
        tau[i] = select(smaller, (total[i] - 1.0) / count[i], tau[i])
        known[i] = select(smaller, count[i], known[i])
        moved += 1.0 if smaller else 0.0
    return moved


@inline
def excess_columns(x, m, tau, y):
    for i in range(tau.size):
        y[i] = excess(x[i], m[i], tau[i])


@inline
def sparsemax_block(x, y, o, lo, hi, m, tau, total, count, known):
    size = x.shape[1]
    column_max(x, o, lo, hi, m, real(1))
    fill(tau, real(-1))
    fill(known, real(size + 1))
    moved = real(1)
    while moved > 0.0:
        fill(total, real(0))
        fill(count, real(0))
        for a in range(size):
            above_columns(x[o, a, lo:hi], m, tau, total, count)
        moved = shrink(tau, total, count, known)
    for a in range(size):
        excess_columns(x[o, a, lo:hi], m, tau, y[o, a, lo:hi])


@cpu
def sparsemax_columns(x, y, scratch, width):
    blocks = (x.shape[2] + width - 1) // width
    tasks, parts = x.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(x.shape[2], lo + width)
            n = hi - lo
            m, tau, known = scratch[p, 0, :n], scratch[p, 1, :n], scratch[p, 4, :n]
            sparsemax_block(x, y, o, lo, hi, m, tau, scratch[p, 2, :n], scratch[p, 3, :n], known)


@inline
def add_support(y, dy, total, count):
    for i in range(total.size):
        out = y[i] <= 0.0
        total[i] += 0.0 if out else dy[i]
        count[i] += 0.0 if out else 1.0


@inline
def divide(total, count):
    for i in range(total.size):
        total[i] /= count[i]


@inline
def gradient_columns(y, dy, mean, dx):
    for i in range(mean.size):
        dx[i] = support_gradient(y[i], dy[i], mean[i])


@inline
def backward_block(y, dy, dx, o, lo, hi, total, count):
    fill(total, real(0))
    fill(count, real(0))
    for a in range(y.shape[1]):
        add_support(y[o, a, lo:hi], dy[o, a, lo:hi], total, count)
    divide(total, count)
    for a in range(y.shape[1]):
        gradient_columns(y[o, a, lo:hi], dy[o, a, lo:hi], total, dx[o, a, lo:hi])


@cpu
def sparsemax_columns_backward(y, dy, dx, scratch, width):
    blocks = (y.shape[2] + width - 1) // width
    tasks, parts = y.shape[0] * blocks, scratch.shape[0]
    for p in prange(parts):
        for task in range(tasks * p // parts, tasks * (p + 1) // parts):
            o = task // blocks
            lo = (task - o * blocks) * width
            hi = min(y.shape[2], lo + width)
            backward_block(y, dy, dx, o, lo, hi, scratch[p, 0, : hi - lo], scratch[p, 1, : hi - lo])
