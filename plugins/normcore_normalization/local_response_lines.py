"""Loops over one line of local response normalization on the CPU, shared by the kernels of every memory format.

They run over whole padded lines, never the odd end of a row, so that every power is taken in full vectors.
"""

from normcore.kernels import inline, real
from normcore.kernels.streaming import either_way
from normcore_normalization.local_response_scalars import line_power, line_slope


@inline(reassociate=True)
def square(x, z):
    """z = x^2, and the sum of all, which bounds every s."""
    total = real(0)
    for i in range(x.size):
        v = x[i] * x[i]
        z[i] = v
        total += v
    return total


@inline
def fill(z, value):
    for i in range(z.size):
        z[i] = value


@inline
def clear(rows):
    for r in range(rows.shape[0]):  # rows.reshape(-1) would work out its length in float64
        fill(rows[r], real(0))


@inline
def add_two(a, b, w):
    for i in range(w.size):
        w[i] = a[i] + b[i]


@inline
def add_one(a, w):
    for i in range(w.size):
        w[i] += a[i]


@inline
def scaled(s, alpha, k):
    """k + alpha * s, where lines hold more than the row, s may be anything: its power is not used."""
    return k + alpha * s


@inline
def powers_five(a, b, c, d, e, w, alpha, k, beta):
    for i in range(w.size):
        w[i] = line_power(scaled(((a[i] + b[i]) + (c[i] + d[i])) + e[i], alpha, k), beta)


@inline
def powers(w, alpha, k, beta):
    for i in range(w.size):
        w[i] = line_power(scaled(w[i], alpha, k), beta)


@inline
def sum_five(a, b, c, d, e, w):
    for i in range(w.size):
        w[i] = ((a[i] + b[i]) + (c[i] + d[i])) + e[i]


@inline
def powers_both(w, v, alpha, k, beta):
    """w = s^-beta, v = s^(-beta - 1). Few arrays a loop: from nine pairs that might overlap on, LLVM gives up vectors."""
    for i in range(w.size):
        s = scaled(w[i], alpha, k)
        p = line_power(s, beta)
        w[i] = p
        v[i] = line_slope(s, p, beta)


@inline(force=True)
def powers_both_five(a, b, c, d, e, w, v, alpha, k, beta):
    """powers_both of the sums of five lines; w, v: unaliased."""
    for i in range(w.size):
        s = scaled(((a[i] + b[i]) + (c[i] + d[i])) + e[i], alpha, k)
        p = line_power(s, beta)
        w[i] = p
        v[i] = line_slope(s, p, beta)


@inline
def times(x, w, y):
    for i in range(x.size):
        y[i] = x[i] * w[i]


# Rings and rows ask for whole lines themselves.
times_either_way = either_way(times, read=["x", "w"], written=["y"], asked=[])


@inline
def times_both(x, dy, v, u):
    for i in range(x.size):
        u[i] = dy[i] * x[i] * v[i]


@inline
def shares(x, dy, w, v, t, u):
    """t = dy s^-beta, u = dy x s^(-beta - 1)."""
    times(dy, w, t)
    times_both(x, dy, v, u)


@inline
def input_gradient_five(x, t, a, b, c, d, e, dx, along):
    for i in range(x.size):
        dx[i] = t[i] - along * x[i] * (((a[i] + b[i]) + (c[i] + d[i])) + e[i])


input_gradient_five_either_way = either_way(
    input_gradient_five, read=["x", "t", "a", "b", "c", "d", "e"], written=["dx"], asked=[]
)


@inline
def input_gradient(x, t, w, dx, along):
    for i in range(x.size):
        dx[i] = t[i] - along * x[i] * w[i]


input_gradient_either_way = either_way(input_gradient, read=["x", "t", "w"], written=["dx"], asked=[])


@inline
def sum_shifted(z, w, size, apart):
    """w_i = the sum of z_(i + j * apart) over j < size."""
    if size == 1:
        fill(w, real(0))
        add_one(z[: w.size], w)
    else:
        add_two(z[: w.size], z[apart : apart + w.size], w)
        for j in range(2, size):
            add_one(z[j * apart : j * apart + w.size], w)
