"""Local response normalization on the CPU, for windows along one axis.

`ring` kernels take x (A, C, L), windows along C: for a tile of positions they walk along the channels and keep the
squares of one window in `size` rows, each overwritten when it leaves the window, so that all rows together always
are the window. `row` kernels take x (M, C): some rows at once, side by side in one long line with zeros between.
Both compute powers on whole padded lines, never on the odd end of a row. flags: set where squares add up to
more than `most`, so that their powers might leave float32; the caller then computes in float64.
"""

from normcore.kernels import cpu, inline, prange, real
from normcore_normalization.local_response_scalars import line_power


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
        v[i] = p / s


@inline
def times(x, w, y):
    for i in range(x.size):
        y[i] = x[i] * w[i]


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


@inline
def input_gradient(x, t, w, dx, along):
    for i in range(x.size):
        dx[i] = t[i] - along * x[i] * w[i]


# -- x (A, C, L), windows along C --------------------------------------------------------------------------


@inline
def sum_ring(z, w):
    if z.shape[0] == 1:
        fill(w, real(0))
        add_one(z[0], w)
    else:
        add_two(z[0], z[1], w)
        for r in range(2, z.shape[0]):
            add_one(z[r], w)


@inline
def enter(x, c, lo, hi, z):
    """Channel c enters the ring; zeros stand for those that are not there."""
    row = z[(c + z.shape[0]) % z.shape[0]]
    if 0 <= c < x.shape[0]:
        return square(x[c, lo:hi], row)
    fill(row, real(0))
    return real(0)


@cpu
def forward_ring(x, y, scratch, flags, tile, before, size, alpha, k, beta, most):
    """scratch (tasks, size + 1, tile padded)."""
    channels, length = x.shape[1], x.shape[2]
    tiles = (length + tile - 1) // tile
    tasks = scratch.shape[0]
    step = (x.shape[0] * tiles + tasks - 1) // tasks
    a, shift, exponent = real(alpha), real(k), real(beta)
    after = size - 1 - before
    for task in prange(tasks):
        z, w = scratch[task, :size], scratch[task, size]
        good = True
        clear(scratch[task])
        for job in range(task * step, min(x.shape[0] * tiles, task * step + step)):
            n = job // tiles
            lo = (job - n * tiles) * tile
            hi = min(length, lo + tile)
            total = real(0)
            for c in range(-before - 1, after):
                total += enter(x[n], c, lo, hi, z)
            for c in range(channels):
                total += enter(x[n], c + after, lo, hi, z)
                if size == 5:
                    powers_five(z[0], z[1], z[2], z[3], z[4], w, a, shift, exponent)
                else:
                    sum_ring(z, w)
                    powers(w, a, shift, exponent)
                times(x[n, c, lo:hi], w, y[n, c, lo:hi])
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@cpu
def backward_ring(x, dy, dx, scratch, flags, tile, before, size, alpha, k, beta, most):
    """scratch (tasks, 2 size + before + 3, tile padded): squares, u, dy s^-beta of the last channels, w and v."""
    channels, length = x.shape[1], x.shape[2]
    tiles = (length + tile - 1) // tile
    tasks = scratch.shape[0]
    step = (x.shape[0] * tiles + tasks - 1) // tasks
    a, shift, exponent = real(alpha), real(k), real(beta)
    along = 2.0 * real(alpha) * real(beta)
    after = size - 1 - before
    for task in prange(tasks):
        z, u = scratch[task, :size], scratch[task, size : 2 * size]
        late = scratch[task, 2 * size : 2 * size + before + 1]
        w, v = scratch[task, 2 * size + before + 1], scratch[task, 2 * size + before + 2]
        good = True
        clear(scratch[task])
        for job in range(task * step, min(x.shape[0] * tiles, task * step + step)):
            n = job // tiles
            lo = (job - n * tiles) * tile
            hi = min(length, lo + tile)
            total = real(0)
            for c in range(-before - 1, after):
                total += enter(x[n], c, lo, hi, z)
            for r in range(size):
                fill(u[r], real(0))
            for c in range(channels + before):
                if c < channels:
                    total += enter(x[n], c + after, lo, hi, z)
                    if size == 5:
                        sum_five(z[0], z[1], z[2], z[3], z[4], w)
                    else:
                        sum_ring(z, w)
                    powers_both(w, v, a, shift, exponent)
                    shares(x[n, c, lo:hi], dy[n, c, lo:hi], w, v, late[c % (before + 1)], u[c % size])
                else:
                    fill(u[c % size], real(0))
                j = c - before
                if j >= 0:
                    t = late[j % (before + 1)]
                    p, d = x[n, j, lo:hi], dx[n, j, lo:hi]
                    if size == 5:
                        input_gradient_five(p, t, u[0], u[1], u[2], u[3], u[4], d, along)
                    else:
                        sum_ring(u, w)
                        input_gradient(p, t, w, d, along)
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


# -- x (M, C), windows along C -----------------------------------------------------------------------------


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


@inline
def shifted_five(z, w):
    count = w.size
    sum_five(z[:count], z[1 : 1 + count], z[2 : 2 + count], z[3 : 3 + count], z[4 : 4 + count], w)


@cpu
def forward_row(x, y, scratch, flags, together, before, size, alpha, k, beta, most):
    """scratch (tasks, 2, line): `together` rows side by side, size - 1 zeros after each; line has size - 1 more."""
    rows, channels = x.shape
    pitch = channels + size - 1
    line = together * pitch
    tasks = scratch.shape[0]
    blocks = (rows + together - 1) // together
    step = (blocks + tasks - 1) // tasks
    a, shift, exponent = real(alpha), real(k), real(beta)
    for task in prange(tasks):
        z, w = scratch[task, 0], scratch[task, 1, :line]
        good = True
        fill(z, real(0))
        for block in range(task * step, min(blocks, task * step + step)):
            total = real(0)
            first = block * together
            count = min(together, rows - first)
            for r in range(count):
                total += square(x[first + r], z[r * pitch + before : r * pitch + before + channels])
            if size == 5:
                powers_five(
                    z[:line], z[1 : 1 + line], z[2 : 2 + line], z[3 : 3 + line], z[4 : 4 + line],
                    w, a, shift, exponent,
                )  # fmt: skip
            else:
                sum_shifted(z, w, size, 1)
                powers(w, a, shift, exponent)
            for r in range(count):
                times(x[first + r], w[r * pitch : r * pitch + channels], y[first + r])
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@cpu
def backward_row(x, dy, dx, scratch, flags, together, before, size, alpha, k, beta, most):
    """scratch (tasks, 5, line): squares, u, w, v and dy s^-beta."""
    rows, channels = x.shape
    pitch = channels + size - 1
    line = together * pitch
    tasks = scratch.shape[0]
    blocks = (rows + together - 1) // together
    step = (blocks + tasks - 1) // tasks
    a, shift, exponent = real(alpha), real(k), real(beta)
    along = 2.0 * real(alpha) * real(beta)
    after = size - 1 - before
    for task in prange(tasks):
        z, u = scratch[task, 0], scratch[task, 1]
        w, v, t = scratch[task, 2, :line], scratch[task, 3, :line], scratch[task, 4]
        good = True
        clear(scratch[task])
        for block in range(task * step, min(blocks, task * step + step)):
            total = real(0)
            first = block * together
            count = min(together, rows - first)
            for r in range(count):
                total += square(x[first + r], z[r * pitch + before : r * pitch + before + channels])
            if size == 5:
                shifted_five(z, w)
            else:
                sum_shifted(z, w, size, 1)
            powers_both(w, v, a, shift, exponent)
            for r in range(count):
                at = r * pitch
                inside = slice_of(u, at + after, channels)
                shares(x[first + r], dy[first + r], w[at:], v[at:], t[at:], inside)
            if size == 5:
                shifted_five(u, w)
            else:
                sum_shifted(u, w, size, 1)
            for r in range(count):
                at = r * pitch
                input_gradient(x[first + r], t[at:], w[at:], dx[first + r], along)
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@inline
def slice_of(a, start, count):
    return a[start : start + count]
