"""Normalizing rows with a gamma and beta of their own for each element: layer_norm and rms_norm on the CPU.

x (R, L); gamma, beta (L,). With xhat = (x - mean) * scale and h = gamma * g (g: the gradient before the epilogue):
    dx = scale * (h - mean(h) - xhat * mean(h * xhat))
because mean and scale depend on every x of the row; rms_norm has no mean, so mean(h) does not appear.
dgamma = sum of g * xhat and dbeta = sum of g run down the columns: chunks of rows, cut by shape alone, add into
lines of their own, which are added in float64 in order. Rows too long or too few for that are cut into tiles
of columns instead, each of which adds up all rows.

Compile-time constants: CENTERED (a mean is taken out), AFFINE (there is a gamma), BIAS (there is a beta).
"""

from normcore.kernels import cpu, epilogue, epilogue_gradient, inline, prange, real, wide
from normcore.kernels.prefetch import asks_for_next, prefetch_lines
from normcore.kernels.streaming import either_way, leaves_cache
from normcore_normalization.channel_scalars import centered
from normcore_normalization.row_statistics import BLOCK, keep_row, row_mean_square, row_statistics

CENTERED = True
AFFINE = True
BIAS = True
TILE = 1024  # columns; the lines that they need fit the L1 cache


@inline(force=True)
def scaled(xhat, gamma, beta, i):
    """gamma * xhat + beta, with what there is of them."""
    v = xhat
    if AFFINE:
        v = v * gamma[i]
    if BIAS:
        v = v + beta[i]
    return v


@inline(force=True)
def normalize_row(x, y, gamma, beta, s, d, a, e):
    for i in range(x.size):
        y[i] = epilogue(scaled(centered(x[i], s, d) * a, gamma, beta, i), e)


normalize_either_way = either_way(normalize_row, read=["x", "gamma", "beta"], written=["y"], asked=["x"])


@cpu
def forward_rows(x, y, gamma, beta, shift, rest, scale, bend, eps, e):
    far, ahead = leaves_cache(y), asks_for_next(x.size, x.shape[1])
    for r in prange(x.shape[0]):
        if CENTERED:
            mean, var = row_statistics(x[r], eps)
            keep_row(r, mean, var, eps, shift, rest, scale, bend)
        else:
            keep_row(r, wide(0), row_mean_square(x[r], eps), eps, shift, rest, scale, bend)
        if ahead:
            prefetch_lines(x, (r + 1) * x.shape[1], x.shape[1])
        normalize_either_way(x[r], y[r], gamma, beta, shift[r], rest[r], scale[r], e, far)


@inline(force=True)
def before_epilogue(x, dy, gamma, beta, s, d, a, i, e):
    """xhat and g of element i."""
    xhat = centered(x[i], s, d) * a
    z = scaled(xhat, gamma, beta, i)
    return xhat, epilogue_gradient(z, z, dy[i], e)


@inline(reassociate=True, force=True)
def row_gradient_sums(x, dy, gamma, beta, s, d, a, e):
    """Sums of h and h * xhat over one block."""
    total = real(0)
    along = real(0)
    for i in range(x.size):
        xhat, h = before_epilogue(x, dy, gamma, beta, s, d, a, i, e)
        if AFFINE:
            h = h * gamma[i]
        if CENTERED:
            total += h
        along += h * xhat
    return total, along


@inline(force=True)
def row_input_gradient(x, dy, dx, gamma, beta, s, d, a, mean_h, slope, e):
    for i in range(x.size):
        xhat, h = before_epilogue(x, dy, gamma, beta, s, d, a, i, e)
        if AFFINE:
            h = h * gamma[i]
        if CENTERED:
            h = h - mean_h
        dx[i] = a * (h - xhat * slope)


gradient_either_way = either_way(
    row_input_gradient, read=["x", "dy", "gamma", "beta"], written=["dx"], asked=["x", "dy"]
)


@inline(force=True)
def row_gradient(x, dy, dx, gamma, beta, s, d, a, far, ahead, e):
    """dx of one row; far: around the caches; ahead: ask for the row behind it meanwhile."""
    size = x.size
    total = wide(0)
    along = wide(0)
    for lo in range(0, size, BLOCK):
        hi = min(size, lo + BLOCK)
        u, v = row_gradient_sums(x[lo:hi], dy[lo:hi], gamma[lo:hi], beta[lo:hi], s, d, a, e)
        total += wide(u)
        along += wide(v)
    count = wide(size)
    mean_h, slope = real(total / count), real(along / count)
    if ahead:
        prefetch_lines(x, size, size)
        prefetch_lines(dy, size, size)
    gradient_either_way(x, dy, dx, gamma, beta, s, d, a, mean_h, slope, e, far)


@inline(force=True)
def add_row(x, dy, gamma, beta, s, d, a, dgamma, dbeta, e):
    for i in range(x.size):
        xhat, g = before_epilogue(x, dy, gamma, beta, s, d, a, i, e)
        dgamma[i] += g * xhat
        if BIAS:
            dbeta[i] += g


@inline(force=True)
def add_four_rows(x, dy, gamma, beta, r, lo, hi, shift, rest, scale, dgamma, dbeta, e):
    """Rows r to r + 3, columns lo to hi, so that the sums are read and written once for four rows."""
    four_lines(
        x[r, lo:hi],
        x[r + 1, lo:hi],
        x[r + 2, lo:hi],
        x[r + 3, lo:hi],
        dy[r, lo:hi],
        dy[r + 1, lo:hi],
        dy[r + 2, lo:hi],
        dy[r + 3, lo:hi],
        gamma,
        beta,
        shift[r : r + 4],
        rest[r : r + 4],
        scale[r : r + 4],
        dgamma,
        dbeta,
        e,
    )


@inline(force=True)
def four_lines(x0, x1, x2, x3, dy0, dy1, dy2, dy3, gamma, beta, s, d, a, dgamma, dbeta, e):
    s0, s1, s2, s3 = s[0], s[1], s[2], s[3]
    d0, d1, d2, d3 = d[0], d[1], d[2], d[3]
    a0, a1, a2, a3 = a[0], a[1], a[2], a[3]
    for i in range(dgamma.size):
        p0, g0 = before_epilogue(x0, dy0, gamma, beta, s0, d0, a0, i, e)
        p1, g1 = before_epilogue(x1, dy1, gamma, beta, s1, d1, a1, i, e)
        p2, g2 = before_epilogue(x2, dy2, gamma, beta, s2, d2, a2, i, e)
        p3, g3 = before_epilogue(x3, dy3, gamma, beta, s3, d3, a3, i, e)
        dgamma[i] += (g0 * p0 + g1 * p1) + (g2 * p2 + g3 * p3)
        if BIAS:
            dbeta[i] += (g0 + g1) + (g2 + g3)


@inline(force=True)
def clear(line):
    for i in range(line.size):
        line[i] = real(0)


@inline
def column_sums(x, dy, gamma, beta, first, last, lo, hi, shift, rest, scale, dgamma, dbeta, e):
    """Add rows first to last, columns lo to hi, to dgamma and dbeta (hi - lo,)."""
    whole = first + (last - first) // 4 * 4
    for r in range(first, whole, 4):
        add_four_rows(x, dy, gamma, beta, r, lo, hi, shift, rest, scale, dgamma, dbeta, e)
    for r in range(whole, last):
        add_row(x[r, lo:hi], dy[r, lo:hi], gamma, beta, shift[r], rest[r], scale[r], dgamma, dbeta, e)


@inline
def merge_lines(partial, j, lo, hi, line, target):
    """target[lo:hi] = the sum of partial[k, j, lo:hi] over k; line: float64 scratch."""
    total = line[lo:hi]
    for i in range(total.size):
        total[i] = wide(0)
    for k in range(partial.shape[0]):
        part = partial[k, j, lo:hi]
        for i in range(total.size):
            total[i] += wide(part[i])
    for i in range(total.size):
        target[lo + i] = real(total[i])


@cpu
def backward_rows(x, dy, dx, gamma, beta, dgamma, dbeta, shift, rest, scale, partial, line, wanted, tiles, e):
    """partial (K, 2, L), line (L,) float64: scratch. tiles: cut columns rather than rows for dgamma."""
    rows, size = x.shape
    blocks = (size + TILE - 1) // TILE
    chunks = partial.shape[0]
    step = (rows + chunks - 1) // chunks
    far, ahead = leaves_cache(dx), asks_for_next(2 * x.size, 2 * size)
    if not AFFINE or tiles:
        if wanted:
            for r in prange(rows):
                row_gradient(x[r], dy[r], dx[r], gamma, beta, shift[r], rest[r], scale[r], far, ahead, e)
        if AFFINE:
            for j in prange(blocks):
                lo = j * TILE
                hi = min(size, lo + TILE)
                p, q = partial[0, 0, lo:hi], partial[0, 1, lo:hi]
                clear(p)
                clear(q)
                b = beta[lo : min(beta.size, hi)]
                column_sums(x, dy, gamma[lo:hi], b, 0, rows, lo, hi, shift, rest, scale, p, q, e)
                for i in range(hi - lo):
                    dgamma[lo + i] = p[i]
                    if BIAS:
                        dbeta[lo + i] = q[i]
    else:
        for k in prange(chunks):
            p, q = partial[k, 0], partial[k, 1]
            clear(p)
            clear(q)
            last = min(rows, k * step + step)
            for r in range(k * step, last, 4):
                end = min(last, r + 4)
                if wanted:
                    for i in range(r, end):
                        row_gradient(
                            x[i], dy[i], dx[i], gamma, beta, shift[i], rest[i], scale[i], far, ahead, e
                        )
                column_sums(x, dy, gamma, beta, r, end, 0, size, shift, rest, scale, p, q, e)
        for j in prange(blocks):
            lo = j * TILE
            hi = min(size, lo + TILE)
            merge_lines(partial, 0, lo, hi, line, dgamma)
            if BIAS:
                merge_lines(partial, 1, lo, hi, line, dbeta)
