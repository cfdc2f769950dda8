"""Local response normalization on CUDA. x, y, dx (A, D, H, W, B), see local_response_scalars.py.

Forward and the first pass of backward: a thread an element, or a run of channels at one position, so that the
window's elements are still in the L1 cache when the next channel needs them. Backward's first pass writes t and u,
its second adds u up over the boxes that hold an element. Numbers too large for float32's squares are rare: those
elements take the float64 path, each on its own.
"""

from normcore.kernels import cu, cuda, inline, real, wide
from normcore_normalization.local_response_scalars import (
    box_scale,
    gradient_wide,
    power,
    power_wide,
    scale_wide,
)

NAN = float("nan")


@inline
def _write(x, y, n, d, h, w, b, before, window, alpha, k, beta):
    s = box_scale(x, n, d, h, w, b, before, window, alpha, k)
    v = x[n, d, h, w, b]
    if s > real(0):
        y[n, d, h, w, b] = v * power(s, beta)
    else:
        s = scale_wide(x, n, d, h, w, b, before, window, wide(alpha), wide(k))
        y[n, d, h, w, b] = real(wide(v) * power_wide(s, wide(beta)))


@cuda
def forward_cuda(x, y, run, before, window, alpha, k, beta):
    """A thread takes `run` elements along W; neighbouring threads neighbouring elements of B."""
    inner, runs = x.shape[4], (x.shape[3] + run - 1) // run
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    for item in range(cu.grid(1), rows * runs * inner, cu.gridsize(1)):
        rest = item // inner
        b = item - rest * inner
        row = rest // runs
        first = (rest - row * runs) * run
        h = row % x.shape[2]
        d = row // x.shape[2] % x.shape[1]
        n = row // (x.shape[2] * x.shape[1])
        for w in range(first, min(x.shape[3], first + run)):
            _write(x, y, n, d, h, w, b, before, window, alpha, k, beta)


@cuda
def shares_cuda(x, dy, t, u, run, before, window, alpha, k, beta):
    """t = dy s^-beta, u = dy x s^(-beta - 1); u = NaN tells the second pass to compute in float64."""
    inner, runs = x.shape[4], (x.shape[3] + run - 1) // run
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    for item in range(cu.grid(1), rows * runs * inner, cu.gridsize(1)):
        rest = item // inner
        b = item - rest * inner
        row = rest // runs
        first = (rest - row * runs) * run
        h = row % x.shape[2]
        d = row // x.shape[2] % x.shape[1]
        n = row // (x.shape[2] * x.shape[1])
        for w in range(first, min(x.shape[3], first + run)):
            s = box_scale(x, n, d, h, w, b, before, window, alpha, k)
            g = dy[n, d, h, w, b]
            p = power(s, beta) if s > real(0) else real(NAN)
            t[n, d, h, w, b] = g * p
            u[n, d, h, w, b] = g * p * (x[n, d, h, w, b] / s)


@cuda
def gather_cuda(x, dy, u, dx, run, before, window, alpha, k, beta):
    """dx holds t. A sum that is not a number is taken again in float64."""
    inner, runs = x.shape[4], (x.shape[3] + run - 1) // run
    rows = x.shape[0] * x.shape[1] * x.shape[2]
    along = 2.0 * alpha * beta
    for item in range(cu.grid(1), rows * runs * inner, cu.gridsize(1)):
        rest = item // inner
        b = item - rest * inner
        row = rest // runs
        first = (rest - row * runs) * run
        h = row % x.shape[2]
        d = row // x.shape[2] % x.shape[1]
        n = row // (x.shape[2] * x.shape[1])
        d0 = d + before[0] - window[0] + 1
        h0 = h + before[1] - window[1] + 1
        for w in range(first, min(x.shape[3], first + run)):
            w0 = w + before[2] - window[2] + 1
            total = real(0)
            for i in range(max(0, d0), min(x.shape[1], d0 + window[0])):
                for j in range(max(0, h0), min(x.shape[2], h0 + window[1])):
                    for m in range(max(0, w0), min(x.shape[3], w0 + window[2])):
                        total += u[n, i, j, m, b]
            v = dx[n, d, h, w, b] - along * x[n, d, h, w, b] * total
            if v != v:
                v = gradient_wide(x, dy, n, d, h, w, b, before, window, wide(alpha), wide(k), wide(beta))
            dx[n, d, h, w, b] = v
