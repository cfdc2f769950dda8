"""lp_norm on CUDA. x (A, M, B), norms along M: a warp a row where B is 1, else a thread an element of (A, B),
neighbouring threads along B. Sums are in float64."""

from normcore.kernels import cu, cuda, real, wide
from normcore.kernels.warps import warp_sum
from normcore_normalization.lp_scalars import KIND, inverse, norm_of, slope_at, term, ties


@cuda
def forward_cuda(x, y, norm, lanes, p, eps):
    """lanes: threads that share a vector, 32 or 1."""
    lane = cu.threadIdx.x % lanes
    for v in range(cu.grid(1) // lanes, norm.size, cu.gridsize(1) // lanes):
        a = v // x.shape[2]
        b = v - a * x.shape[2]
        total = wide(0)
        if KIND == 1 or KIND == 2:
            for m in range(lane, x.shape[1], lanes):
                total += wide(term(x[a, m, b]))
            if lanes > 1:
                total = warp_sum(total)
        n = norm_of(x, a, b, p, total)
        if lane == 0:
            norm[a, b] = n
        r = inverse(n, eps)
        for m in range(lane, x.shape[1], lanes):
            y[a, m, b] = x[a, m, b] * r


@cuda
def backward_cuda(x, dy, dx, norm, lanes, p, eps):
    lane = cu.threadIdx.x % lanes
    for v in range(cu.grid(1) // lanes, norm.size, cu.gridsize(1) // lanes):
        a = v // x.shape[2]
        b = v - a * x.shape[2]
        n = norm[a, b]
        r = inverse(n, eps)
        along = wide(0)
        for m in range(lane, x.shape[1], lanes):
            along += wide(dy[a, m, b] * (x[a, m, b] * r))
        if lanes > 1:
            along = warp_sum(along)
        c = real(0)
        if not n < eps and n != wide(0):
            c = real(along / n / ties(x, a, b, n))
        for m in range(lane, x.shape[1], lanes):
            dx[a, m, b] = dy[a, m, b] * r - slope_at(x[a, m, b], n, p) * c
