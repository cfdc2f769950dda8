"""Local response normalization on the CPU, for windows along the middle axis: x (A, C, L), windows along C.

For a tile of positions the kernels walk along the channels and keep the squares of one window in `size` rows, each
overwritten when it leaves the window, so that all rows together always are the window. Powers are taken of whole
padded lines, never of the odd end of a row. flags: set where squares add up to more than `most`, so that their powers
might leave float32; the caller then computes in float64.
"""

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.prefetch import prefetch_lines
from normcore.kernels.streaming import leaves_cache
from normcore.kernels.unaliased import unaliased
from normcore_normalization.local_response_lines import (
    add_one,
    add_two,
    clear,
    fill,
    input_gradient_either_way,
    input_gradient_five_either_way,
    powers,
    powers_both,
    powers_both_five,
    powers_five,
    shares,
    square,
    times_either_way,
)

AHEAD = 2  # channels between what is computed and what is asked for: a tile of the next lies too far off to be guessed


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
    a, shift, exponent = real(alpha), real(k), real(beta)
    after = size - 1 - before
    far = leaves_cache(y)
    for task in prange(tasks):
        z, w = scratch[task, :size], scratch[task, size]
        good = True
        clear(scratch[task])
        for job in range(x.shape[0] * tiles * task // tasks, x.shape[0] * tiles * (task + 1) // tasks):
            n = job // tiles
            lo = (job - n * tiles) * tile
            hi = min(length, lo + tile)
            total = real(0)
            for c in range(-before - 1, after):
                total += enter(x[n], c, lo, hi, z)
            for c in range(channels):
                prefetch_lines(x, (n * channels + c + after + AHEAD) * length + lo, hi - lo)
                total += enter(x[n], c + after, lo, hi, z)
                if size == 5:
                    powers_five(z[0], z[1], z[2], z[3], z[4], w, a, shift, exponent)
                else:
                    sum_ring(z, w)
                    powers(w, a, shift, exponent)
                times_either_way(x[n, c, lo:hi], w, y[n, c, lo:hi], far)
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@cpu
def backward_ring(x, dy, dx, scratch, flags, tile, before, size, alpha, k, beta, most):
    """scratch (tasks, 2 size + before + 3, tile padded): squares, u, dy s^-beta of the last channels, w and v."""
    channels, length = x.shape[1], x.shape[2]
    tiles = (length + tile - 1) // tile
    tasks = scratch.shape[0]
    a, shift, exponent = real(alpha), real(k), real(beta)
    along = 2.0 * real(alpha) * real(beta)
    after = size - 1 - before
    far = leaves_cache(dx)
    for task in prange(tasks):
        z, u = scratch[task, :size], scratch[task, size : 2 * size]
        late = scratch[task, 2 * size : 2 * size + before + 1]
        w = unaliased(scratch[task, 2 * size + before + 1])
        v = unaliased(scratch[task, 2 * size + before + 2])
        good = True
        clear(scratch[task])
        for job in range(x.shape[0] * tiles * task // tasks, x.shape[0] * tiles * (task + 1) // tasks):
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
                    prefetch_lines(x, (n * channels + c + after + AHEAD) * length + lo, hi - lo)
                    prefetch_lines(dy, (n * channels + c + AHEAD) * length + lo, hi - lo)
                    total += enter(x[n], c + after, lo, hi, z)
                    if size == 5:
                        powers_both_five(z[0], z[1], z[2], z[3], z[4], w, v, a, shift, exponent)
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
                        input_gradient_five_either_way(p, t, u[0], u[1], u[2], u[3], u[4], d, along, far)
                    else:
                        sum_ring(u, w)
                        input_gradient_either_way(p, t, w, d, along, far)
            good = good and total <= real(most)
        flags[task] = 0 if good else 1
