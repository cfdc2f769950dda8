"""Local response normalization on the CPU, for windows along the last axis: x (M, C), windows along C.

Some rows are taken at once, side by side in one long line with zeros between. flags: set where squares add up to more
than `most`, so that their powers might leave float32; the caller then computes in float64.
"""

from normcore.kernels import cpu, inline, prange, real
from normcore.kernels.streaming import leaves_cache
from normcore.kernels.unaliased import unaliased
from normcore_normalization.local_response_lines import (
    clear,
    fill,
    input_gradient_either_way,
    powers,
    powers_both,
    powers_both_five,
    powers_five,
    shares,
    square,
    sum_five,
    sum_shifted,
    times_either_way,
)


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
    a, shift, exponent = real(alpha), real(k), real(beta)
    far = leaves_cache(y)
    for task in prange(tasks):
        z, w = scratch[task, 0], scratch[task, 1, :line]
        good = True
        fill(z, real(0))
        for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
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
                times_either_way(x[first + r], w[r * pitch : r * pitch + channels], y[first + r], far)
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
    a, shift, exponent = real(alpha), real(k), real(beta)
    along = 2.0 * real(alpha) * real(beta)
    after = size - 1 - before
    far = leaves_cache(dx)
    for task in prange(tasks):
        z, u = scratch[task, 0], scratch[task, 1]
        w, v, t = unaliased(scratch[task, 2, :line]), unaliased(scratch[task, 3, :line]), scratch[task, 4]
        good = True
        clear(scratch[task])
        for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
            total = real(0)
            first = block * together
            count = min(together, rows - first)
            for r in range(count):
                total += square(x[first + r], z[r * pitch + before : r * pitch + before + channels])
            if size == 5:
                powers_both_five(
                    z[:line], z[1 : 1 + line], z[2 : 2 + line], z[3 : 3 + line], z[4 : 4 + line],
                    w, v, a, shift, exponent,
                )  # fmt: skip
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
                input_gradient_either_way(x[first + r], t[at:], w[at:], dx[first + r], along, far)
            good = good and total <= real(most)
        flags[task] = 0 if good else 1


@inline
def slice_of(a, start, count):
    return a[start : start + count]
