"""sparsemax on CUDA, arrays (O, A, I): a block for each line, or a thread for each column. See sparsemax.py."""

from normcore.kernels import cu, cuda, real
from normcore.kernels.warps import block_sum
from normcore_activation.softmax_cuda import LOWEST, WARPS, block_max
from normcore_activation.sparsemax_cpu import counted, excess, kept, shifted, support_gradient


@cuda
def lines_cuda(x, y):
    scratch = cu.shared.array(WARPS, real)
    size, inner = x.shape[1], x.shape[2]
    o = cu.blockIdx.x // inner
    i = cu.blockIdx.x - o * inner
    m = real(LOWEST)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        m = x[o, a, i] if x[o, a, i] > m else m
    m = block_max(m, scratch)
    tau = real(-1)
    known = real(size + 1)
    shrinking = True
    while shrinking:  # all threads hold the same sums, so all leave together
        total = real(0)
        count = real(0)
        for a in range(cu.threadIdx.x, size, cu.blockDim.x):
            z = shifted(x[o, a, i], m)
            total += kept(z, tau)
            count += counted(z, tau)
        total = block_sum(total, scratch)
        count = block_sum(count, scratch)
        shrinking = count < known
        if shrinking:
            tau = (total - 1.0) / count
            known = count
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        y[o, a, i] = excess(x[o, a, i], m, tau)


@cuda
def columns_cuda(x, y):
    outer, size, inner = x.shape
    for c in range(cu.grid(1), outer * inner, cu.gridsize(1)):
        o = c // inner
        i = c - o * inner
        m = real(LOWEST)
        for a in range(size):
            m = x[o, a, i] if x[o, a, i] > m else m
        tau = real(-1)
        known = real(size + 1)
        shrinking = True
        while shrinking:
            total = real(0)
            count = real(0)
            for a in range(size):
                z = shifted(x[o, a, i], m)
                total += kept(z, tau)
                count += counted(z, tau)
            shrinking = count < known
            if shrinking:
                tau = (total - 1.0) / count
                known = count
        for a in range(size):
            y[o, a, i] = excess(x[o, a, i], m, tau)


@cuda
def lines_backward_cuda(y, dy, dx):
    scratch = cu.shared.array(WARPS, real)
    size, inner = y.shape[1], y.shape[2]
    o = cu.blockIdx.x // inner
    i = cu.blockIdx.x - o * inner
    total = real(0)
    count = real(0)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        out = y[o, a, i] <= 0.0
        total += 0.0 if out else dy[o, a, i]
        count += 0.0 if out else 1.0
    mean = block_sum(total, scratch) / block_sum(count, scratch)
    for a in range(cu.threadIdx.x, size, cu.blockDim.x):
        dx[o, a, i] = support_gradient(y[o, a, i], dy[o, a, i], mean)


@cuda
def columns_backward_cuda(y, dy, dx):
    outer, size, inner = y.shape
    for c in range(cu.grid(1), outer * inner, cu.gridsize(1)):
        o = c // inner
        i = c - o * inner
        total = real(0)
        count = real(0)
        for a in range(size):
            out = y[o, a, i] <= 0.0
            total += 0.0 if out else dy[o, a, i]
            count += 0.0 if out else 1.0
        mean = total / count
        for a in range(size):
            dx[o, a, i] = support_gradient(y[o, a, i], dy[o, a, i], mean)
