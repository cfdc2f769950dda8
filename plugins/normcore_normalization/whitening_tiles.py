"""Passes of decorrelated_batch_norm over the data on the CPU. x (A, C, L) channels first or (A, L, C) channels last.

A tile of positions is centered in float64, channel by channel, in the cache; products are sums over a tile.
"""

import math

from normcore.kernels import cpu, inline, prange, real, wide

TILE = 128
LAST = False  # a constant of each kernel: channels last


@inline
def load_row(x, mean, z):
    for i in range(x.size):
        z[i] = wide(x[i]) - mean


@inline
def load(x, n, lo, hi, mean, z):
    """z (C, TILE) = positions lo to hi of sample n, centered."""
    for c in range(mean.size):
        if LAST:
            load_row(x[n, lo:hi, c], mean[c], z[c])
        else:
            load_row(x[n, c, lo:hi], mean[c], z[c])


@inline(reassociate=True)
def dot(a, b):
    total = wide(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@inline(reassociate=True)
def total_of(a):
    total = wide(0)
    for i in range(a.size):
        total += a[i]
    return total


@inline
def add_scaled(a, factor, y):
    for i in range(y.size):
        y[i] += factor * a[i]


@inline
def fill(y, value):
    for i in range(y.size):
        y[i] = value


@inline
def store_row(z, y, a, b):
    for i in range(y.size):
        y[i] = real(a * z[i] + b)


@inline
def store(z, y, n, lo, hi, c, a, b):
    if LAST:
        store_row(z, y[n, lo:hi, c], a, b)
    else:
        store_row(z, y[n, c, lo:hi], a, b)


@inline
def merge(partial):
    """The first of the parts gets the sum of all, in order."""
    first = partial[0].reshape(-1)
    for k in range(1, partial.shape[0]):
        add_scaled(partial[k].reshape(-1), wide(1), first)


@inline
def length_of(x):
    return x.shape[1] if LAST else x.shape[2]


@cpu
def means(x, zero, z, sums, mean):
    """z (tasks, 2, C, TILE), sums (tasks, C), zero (C,) zeros."""
    length = length_of(x)
    tiles = (length + TILE - 1) // TILE
    tasks, channels = sums.shape
    jobs = x.shape[0] * tiles
    for c in range(channels):
        mean[c] = wide(x[0, 0, c]) if LAST else wide(x[0, c, 0])
    for task in prange(tasks):
        fill(sums[task], wide(0))
        for job in range(jobs * task // tasks, jobs * (task + 1) // tasks):
            n = job // tiles
            lo = (job - n * tiles) * TILE
            hi = min(length, lo + TILE)
            load(x, n, lo, hi, mean, z[task, 0])
            for c in range(channels):
                sums[task, c] += total_of(z[task, 0, c, : hi - lo])
    merge(sums)
    for c in range(channels):
        mean[c] += sums[0, c] / wide(x.shape[0] * length)


@cpu
def products(x, dy, zero, mean, z, cross, sums, same):
    """cross[0] (G, d, d) = sum of dy x^T over centered x, or of x x^T (`same`); sums[0] (C,) = sum of dy."""
    length = length_of(x)
    tiles = (length + TILE - 1) // TILE
    tasks, groups, d = cross.shape[0], cross.shape[1], cross.shape[2]
    jobs = x.shape[0] * tiles
    for task in prange(tasks):
        fill(cross[task].reshape(-1), wide(0))
        fill(sums[task], wide(0))
        p, g = z[task, 0], z[task, 1]
        for job in range(jobs * task // tasks, jobs * (task + 1) // tasks):
            n = job // tiles
            lo = (job - n * tiles) * TILE
            hi = min(length, lo + TILE)
            load(x, n, lo, hi, mean, p)
            if same:
                g = p
            else:
                load(dy, n, lo, hi, zero, g)
            for c in range(mean.size):
                row = g[c, : hi - lo]
                k = c // d
                i = c - k * d
                sums[task, c] += total_of(row)
                for j in range(i + 1 if same else d):
                    cross[task, k, i, j] += dot(row, p[k * d + j, : hi - lo])
        if same:
            for k in range(groups):
                for i in range(d):
                    for j in range(i):
                        cross[task, k, j, i] = cross[task, k, i, j]
    merge(cross)
    merge(sums)


@cpu
def apply(x, mean, root, gamma, beta, z, y):
    length = length_of(x)
    tiles = (length + TILE - 1) // TILE
    tasks, d = z.shape[0], root.shape[1]
    jobs = x.shape[0] * tiles
    for task in prange(tasks):
        for job in range(jobs * task // tasks, jobs * (task + 1) // tasks):
            n = job // tiles
            lo = (job - n * tiles) * TILE
            hi = min(length, lo + TILE)
            load(x, n, lo, hi, mean, z[task, 0])
            line = z[task, 1, 0, : hi - lo]
            for c in range(mean.size):
                k = c // d
                fill(line, wide(0))
                for j in range(d):
                    add_scaled(z[task, 0, k * d + j], root[k, c - k * d, j], line)
                a = wide(gamma[c]) if gamma.size > 0 else wide(1)
                b = wide(beta[c]) if beta.size > 0 else wide(0)
                store(line, y, n, lo, hi, c, a, b)


@cpu
def input_gradient(x, dy, zero, mean, through, along, offset, z, dx):
    """dx = through dy + along (x - mean) + offset."""
    length = length_of(x)
    tiles = (length + TILE - 1) // TILE
    tasks, d = z.shape[0], through.shape[1]
    jobs = x.shape[0] * tiles
    for task in prange(tasks):
        for job in range(jobs * task // tasks, jobs * (task + 1) // tasks):
            n = job // tiles
            lo = (job - n * tiles) * TILE
            hi = min(length, lo + TILE)
            load(x, n, lo, hi, mean, z[task, 0])
            load(dy, n, lo, hi, zero, z[task, 1])
            line = z[task, 2, 0, : hi - lo]
            for c in range(mean.size):
                k = c // d
                fill(line, offset[c])
                for j in range(d):
                    add_scaled(z[task, 1, k * d + j], through[k, c - k * d, j], line)
                    add_scaled(z[task, 0, k * d + j], along[k, c - k * d, j], line)
                store(line, dx, n, lo, hi, c, wide(1), wide(0))


def flat_view(t):
    """x's shape for the kernels and their constant: (N, C, L), or with LAST (A, L, C)."""
    shape = t.x.shape
    if len(shape) == 2:
        return (1, *shape), {"LAST": True}
    if t.format == "channels_last":
        return (shape[0], math.prod(shape[1:-1]), shape[-1]), {"LAST": True}
    return (*shape[:2], math.prod(shape[2:])), {"LAST": False}
