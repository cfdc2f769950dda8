"""Statistics of groups of channels on the CPU, channels first: group_norm, instance_norm, mean_variance_norm.

A group is P neighbouring channels of one sample: P * S contiguous elements, which stay in the cache between the
pass that sums them and the one that normalizes them. Row r = n * G + g of `shift`, `rest`, `scale` belongs to
group g of sample n, row g to group g of all samples where the batch shares its statistics. That case, and few
groups with many elements, go plane by plane: each plane's mean and sum of squares about it into `part`, merged in
order (Chan, Golub and LeVeque 1979), then each plane normalized.

Backward, with h = gamma * g (g: the gradient before the epilogue) over the m elements of a row:
    dx = scale * (h - mean(h) - xhat * mean(h * xhat) * bend)
    dbeta_c = sum of g, dgamma_c = sum of g * xhat over channel c
so the two sums of each plane, kept in `part`, serve the parameters and, weighted by gamma, the row.
"""

from normcore.kernels import cpu, epilogue, epilogue_gradient, inline, prange, real, wide
from normcore.kernels.prefetch import asks_for_next, prefetch_lines
from normcore.kernels.streaming import either_way, leaves_cache
from normcore_normalization.channel_planes import gradient_sums, normalize_either_way
from normcore_normalization.channel_rows import add_wide
from normcore_normalization.channel_scalars import affine, centered, parameter
from normcore_normalization.row_statistics import BLOCK, keep_row, row_statistics


@inline
def merge_row(r, part, positions, per_sample, groups, eps, shift, rest, scale, bend):
    """Row r from part (N, 1, 2, C): mean and sum of squares about it of each plane of `positions` elements."""
    batch, _, _, channels = part.shape
    width = channels // groups
    first = r // groups if per_sample else 0
    last = first + 1 if per_sample else batch
    c0 = r % groups * width
    origin = part[first, 0, 0, c0]
    total = wide(0)
    for n in range(first, last):
        for c in range(c0, c0 + width):
            total += part[n, 0, 0, c] - origin
    planes = wide((last - first) * width)
    mean = origin + total / planes
    squares = wide(0)
    for n in range(first, last):
        for c in range(c0, c0 + width):
            u = part[n, 0, 0, c] - mean
            squares += part[n, 0, 1, c] + wide(positions) * u * u
    keep_row(r, mean, squares / (planes * wide(positions)), eps, shift, rest, scale, bend)


@inline
def normalize_plane(x, y, r, c, gamma, beta, shift, rest, scale, far, e):
    """far: around the caches."""
    a, b = scale[r] * parameter(gamma, c, 1), parameter(beta, c, 0)
    normalize_either_way(x, y, shift[r], rest[r], a, b, e, far)


@inline
def normalize_columns(x, y, gamma, beta, s, d, a, e):
    """A row of single-element planes: gamma and beta (P,) of its channels."""
    for i in range(x.size):
        y[i] = epilogue(affine(x[i], s, d, a * gamma[i], beta[i]), e)


@cpu
def forward_groups(x, flat, y, gamma, beta, shift, rest, scale, bend, groups, eps, e):
    """x, y (R, P, S); flat: x as (R, P * S)."""
    rows, width, positions = x.shape
    far = leaves_cache(y)
    ahead = not far and asks_for_next(x.size, width * positions)
    for r in prange(rows):
        mean, var = row_statistics(flat[r], eps * eps if bend.size > 0 else eps)
        keep_row(r, mean, var, eps, shift, rest, scale, bend)
        c0 = r % groups * width
        if positions == 1 and gamma.size > 0:
            g, b = gamma[c0 : c0 + width], beta[c0 : c0 + width]
            normalize_columns(x[r, :, 0], y[r, :, 0], g, b, shift[r], rest[r], scale[r], e)
        elif gamma.size == 0:
            for p in range(width):
                if ahead:
                    prefetch_lines(x, ((r + 1) * width + p) * positions, positions)
                normalize_plane(x[r, p], y[r, p], r, p, gamma, beta, shift, rest, scale, far, e)
        else:
            for p in range(width):
                if ahead:
                    prefetch_lines(x, ((r + 1) * width + p) * positions, positions)
                normalize_plane(x[r, p], y[r, p], r, c0 + p, gamma, beta, shift, rest, scale, far, e)


@cpu
def plane_statistics(x, part, eps):
    """part (N, 1, 2, C) from x (N, C, S): each plane's mean and sum of squares about it."""
    channels = x.shape[1]
    for j in prange(x.shape[0] * channels):
        n = j // channels
        c = j - n * channels
        mean, var = row_statistics(x[n, c], eps)
        part[n, 0, 0, c] = mean
        part[n, 0, 1, c] = var * wide(x.shape[2])


@cpu
def merge_groups(part, positions, per_sample, groups, eps, shift, rest, scale, bend):
    for r in prange(shift.size):
        merge_row(r, part, positions, per_sample, groups, eps, shift, rest, scale, bend)


@cpu
def normalize_planes(x, y, gamma, beta, shift, rest, scale, per_sample, groups, e):
    """x, y (N, C, S), the statistics given."""
    channels = x.shape[1]
    width = channels // groups
    for j in prange(x.shape[0] * channels):
        n = j // channels
        c = j - n * channels
        r = c // width + (n * groups if per_sample else 0)
        normalize_plane(x[n, c], y[n, c], r, c, gamma, beta, shift, rest, scale, leaves_cache(y), e)


@inline
def plane_sums(x, dy, part, r, c, gamma, beta, shift, rest, scale, e):
    """part (2, C): the sums of g and g * xhat over the plane of channel c."""
    s, d = shift[r], rest[r]
    a = scale[r] * parameter(gamma, c, 1)
    b = parameter(beta, c, 0)
    total = wide(0)
    along = wide(0)
    for lo in range(0, x.size, BLOCK):
        hi = min(x.size, lo + BLOCK)
        g, gu = gradient_sums(x[lo:hi], dy[lo:hi], s, d, a, b, e)
        total += wide(g)
        along += wide(gu)
    part[0, c] = total
    part[1, c] = along * wide(scale[r])


@inline(force=True)
def input_gradient(x, dy, dx, s, d, a, b, inverse, factor, mean_h, slope, e):
    for i in range(x.size):
        z = affine(x[i], s, d, a, b)
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = inverse * (factor * g - mean_h - centered(x[i], s, d) * slope)


gradient_either_way = either_way(input_gradient, read=["x", "dy"], written=["dx"])


@inline
def plane_gradient(x, dy, dx, r, c, gamma, beta, shift, rest, scale, mean_h, slope, far, e):
    """slope: the mean of h * xhat, times bend / sigma; far: around the caches."""
    factor = parameter(gamma, c, 1)
    a = scale[r] * factor
    b = parameter(beta, c, 0)
    s, d, inverse = shift[r], rest[r], scale[r]
    gradient_either_way(x, dy, dx, s, d, a, b, inverse, factor, mean_h, slope, e, far)


@inline
def row_means(r, part, count, per_sample, groups, gamma, scale, bend):
    """mean(h), and mean(h * xhat) * bend * scale, of row r from part (N, K, 2, C)."""
    batch, chunks, _, channels = part.shape
    width = channels // groups
    first = r // groups if per_sample else 0
    last = first + 1 if per_sample else batch
    c0 = r % groups * width
    total = wide(0)
    along = wide(0)
    for n in range(first, last):
        for k in range(chunks):
            for c in range(c0, c0 + width):
                factor = wide(parameter(gamma, c, 1))
                total += factor * part[n, k, 0, c]
                along += factor * part[n, k, 1, c]
    m = wide((last - first) * width) * count
    slope = along / m * wide(scale[r])
    return real(total / m), real(slope * wide(bend[r]) if bend.size > 0 else slope)


@inline
def parameter_sums(part, dgamma, dbeta):
    """dgamma and dbeta (C,) from part, in the order of samples and chunks. Adds up in part[0, 0]."""
    if dgamma.size > 0:
        for n in range(part.shape[0]):
            for k in range(part.shape[1]):
                if n + k > 0:
                    add_wide(part[n, k, 0], part[0, 0, 0])
                    add_wide(part[n, k, 1], part[0, 0, 1])
        for c in range(dgamma.size):
            dbeta[c] = real(part[0, 0, 0, c])
            dgamma[c] = real(part[0, 0, 1, c])


@cpu
def backward_planes(
    x,
    dy,
    dx,
    gamma,
    beta,
    dgamma,
    dbeta,
    shift,
    rest,
    scale,
    bend,
    part,
    means,
    per_sample,
    groups,
    fixed,
    wanted,
    e,
):
    """x, dy, dx (N, C, S); part (N, 1, 2, C), means (R, 2): scratch. fixed: the statistics were running ones."""
    batch, channels, positions = x.shape
    width = channels // groups
    far = leaves_cache(dx)
    ahead = not far and asks_for_next(2 * x.size, 2 * width * positions)
    if per_sample and shift.size >= 8:  # a row's planes stay in the cache from one pass to the next
        for r in prange(shift.size):
            n = r // groups
            c0 = r % groups * width
            for c in range(c0, c0 + width):
                plane_sums(x[n, c], dy[n, c], part[n, 0], r, c, gamma, beta, shift, rest, scale, e)
            if wanted:
                mean_h, slope = row_means(r, part, wide(positions), True, groups, gamma, scale, bend)
                if fixed:
                    mean_h, slope = real(0), real(0)
                for c in range(c0, c0 + width):
                    if ahead:
                        prefetch_lines(x, (n * channels + c + width) * positions, positions)
                        prefetch_lines(dy, (n * channels + c + width) * positions, positions)
                    p, q, o = x[n, c], dy[n, c], dx[n, c]
                    plane_gradient(p, q, o, r, c, gamma, beta, shift, rest, scale, mean_h, slope, far, e)
    else:
        for j in prange(batch * channels):
            n = j // channels
            c = j - n * channels
            r = c // width + (n * groups if per_sample else 0)
            plane_sums(x[n, c], dy[n, c], part[n, 0], r, c, gamma, beta, shift, rest, scale, e)
        if wanted:
            for r in prange(shift.size):
                mean_h, slope = row_means(r, part, wide(positions), per_sample, groups, gamma, scale, bend)
                means[r, 0] = real(0) if fixed else mean_h
                means[r, 1] = real(0) if fixed else slope
            for j in prange(batch * channels):
                n = j // channels
                c = j - n * channels
                r = c // width + (n * groups if per_sample else 0)
                p, q, o = x[n, c], dy[n, c], dx[n, c]
                plane_gradient(
                    p, q, o, r, c, gamma, beta, shift, rest, scale, means[r, 0], means[r, 1], far, e
                )
    parameter_sums(part, dgamma, dbeta)
