"""Channel statistics on CUDA: blocks sum parts of a channel, one block a channel merges them in order, a last pass
normalizes.

A channel's element q lies at (q // inner * C + c) * inner + q % inner of the flat array: inner = L channels first,
1 channels last. Divisions by inner are kept out of the loops by counting along.
"""

import numpy as np

from normcore.kernels import cu, cuda, epilogue, epilogue_gradient, inline, real, wide
from normcore_normalization.channel_planes import (
    keep_statistics,
    move_running,
)
from normcore_normalization.channel_scalars import (
    THREADS,
    affine,
    centered,
    keep_change,
    trusted,
    weight_gradient,
    weights,
)


@inline
def block_total(value, scratch):
    """The sum of the threads' values, to all threads, by a tree of fixed shape."""
    tid = cu.threadIdx.x
    scratch[tid] = value
    cu.syncthreads()
    half = cu.blockDim.x // 2
    while half > 0:
        if tid < half:
            scratch[tid] += scratch[tid + half]
        cu.syncthreads()
        half //= 2
    total = scratch[0]
    cu.syncthreads()
    return total


@cuda
def planes_sums_cuda(x, shift, sums):
    """Block (k, c) sums part k of channel c of x (N, C, L), relative to the channel's first value."""
    batch, channels, length = x.shape
    chunks = sums.shape[0]
    c = cu.blockIdx.x % channels
    k = cu.blockIdx.x // channels
    scratch = cu.shared.array(THREADS, np.float64)
    s = x[0, c, 0]
    count = batch * length
    step = (count + chunks - 1) // chunks
    last = min(count, k * step + step)
    q = k * step + cu.threadIdx.x
    n = q // length
    i = q - n * length
    down = cu.blockDim.x // length
    along = cu.blockDim.x - down * length
    total = wide(0)
    squares = wide(0)
    while q < last:
        u = x[n, c, i] - s
        total += wide(u)
        squares += wide(u * u)
        q += cu.blockDim.x
        n += down
        i += along
        if i >= length:
            i -= length
            n += 1
    total = block_total(total, scratch)
    squares = block_total(squares, scratch)
    if cu.threadIdx.x == 0:
        shift[c] = s
        sums[k, 0, c] = total
        sums[k, 1, c] = squares


@cuda
def rows_sums_cuda(x, shift, sums):
    """The same for x (M, C): a block takes 32 channels of a chunk of rows, a warp a row, a thread a
    channel."""
    rows, channels = x.shape
    chunks = sums.shape[0]
    tiles = (channels + 31) // 32
    k = cu.blockIdx.x // tiles
    c = (cu.blockIdx.x - k * tiles) * 32 + cu.threadIdx.x % 32
    scratch = cu.shared.array((2, THREADS), np.float64)
    step = (rows + chunks - 1) // chunks
    warps = cu.blockDim.x // 32
    total = wide(0)
    squares = wide(0)
    if c < channels:
        s = x[0, c]
        for r in range(k * step + cu.threadIdx.x // 32, min(rows, k * step + step), warps):
            u = x[r, c] - s
            total += wide(u)
            squares += wide(u * u)
    scratch[0, cu.threadIdx.x] = total
    scratch[1, cu.threadIdx.x] = squares
    cu.syncthreads()
    if cu.threadIdx.x < 32 and c < channels:
        for w in range(1, warps):
            total += scratch[0, cu.threadIdx.x + 32 * w]
            squares += scratch[1, cu.threadIdx.x + 32 * w]
        shift[c] = x[0, c]
        sums[k, 0, c] = total
        sums[k, 1, c] = squares


@cuda
def finish_cuda(
    x, inner, sums, running_mean, running_var, num_batches, shift, rest, scale, change, eps, momentum
):
    """One block a channel: merge the parts; where they cannot be trusted, sum again in float64.

    momentum < 0: all batches weigh the same, this one 1 / num_batches.
    """
    c = cu.blockIdx.x
    channels = shift.size
    scratch = cu.shared.array(THREADS, np.float64)
    count = x.size // channels
    m = wide(count)
    total = wide(0)
    squares = wide(0)
    for k in range(sums.shape[0]):
        total += sums[k, 0, c]
        squares += sums[k, 1, c]
    mean = wide(shift[c]) + total / m
    var = (squares - total * total / m) / m
    if not trusted(total, squares, m, eps):
        first = wide(x[c * inner])
        total = wide(0)
        for q in range(cu.threadIdx.x, count, cu.blockDim.x):
            total += wide(x[(q // inner * channels + c) * inner + q % inner]) - first
        mean = first + block_total(total, scratch) / m
        squares = wide(0)
        for q in range(cu.threadIdx.x, count, cu.blockDim.x):
            u = wide(x[(q // inner * channels + c) * inner + q % inner]) - mean
            squares += u * u
        var = block_total(squares, scratch) / m
    cu.syncthreads()
    if cu.threadIdx.x == 0:
        keep_statistics(c, mean, var, eps, shift, rest, scale)
        keep_change(c, mean, var, eps, running_mean, running_var, change)
        weight = momentum if momentum >= 0 else wide(1) / wide(num_batches[0])
        move_running(c, mean, var, m, weight, running_mean, running_var)


@cuda
def count_cuda(num_batches):
    if cu.grid(1) == 0:
        num_batches[0] += 1


@cuda
def running_cuda(running_mean, running_var, shift, rest, scale, eps):
    for c in range(cu.grid(1), shift.size, cu.gridsize(1)):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)


@cuda
def normalize_cuda(x, y, inner, gamma, beta, shift, rest, scale, change, e):
    """x, y flat."""
    channels = shift.size
    step = cu.gridsize(1)
    i = cu.grid(1)
    plane = i // inner
    at = i - plane * inner
    c = plane % channels
    planes = step // inner
    along = step - planes * inner
    down = planes % channels
    while i < x.size:
        a, b = weights(c, gamma, beta, scale, change)
        y[i] = epilogue(affine(x[i], shift[c], rest[c], a, b), e)
        i += step
        at += along
        c += down
        if at >= inner:
            at -= inner
            c += 1
        if c >= channels:
            c -= channels


@inline
def element_gradient(x, dy, c, gamma, beta, shift, rest, scale, change, e):
    """g, the gradient before the epilogue, and xhat of one element."""
    a, b = weights(c, gamma, beta, scale, change)
    z = affine(x, shift[c], rest[c], a, b)
    return epilogue_gradient(z, z, dy, e), centered(x, shift[c], rest[c]) * scale[c]


@cuda
def planes_gradient_sums_cuda(x, dy, gamma, beta, shift, rest, scale, change, sums, e):
    batch, channels, length = x.shape
    chunks = sums.shape[0]
    c = cu.blockIdx.x % channels
    k = cu.blockIdx.x // channels
    scratch = cu.shared.array(THREADS, np.float64)
    count = batch * length
    step = (count + chunks - 1) // chunks
    last = min(count, k * step + step)
    q = k * step + cu.threadIdx.x
    n = q // length
    i = q - n * length
    down = cu.blockDim.x // length
    along = cu.blockDim.x - down * length
    total = wide(0)
    products = wide(0)
    while q < last:
        g, xhat = element_gradient(x[n, c, i], dy[n, c, i], c, gamma, beta, shift, rest, scale, change, e)
        total += wide(g)
        products += wide(g * xhat)
        q += cu.blockDim.x
        n += down
        i += along
        if i >= length:
            i -= length
            n += 1
    total = block_total(total, scratch)
    products = block_total(products, scratch)
    if cu.threadIdx.x == 0:
        sums[k, 0, c] = total
        sums[k, 1, c] = products


@cuda
def rows_gradient_sums_cuda(x, dy, gamma, beta, shift, rest, scale, change, sums, e):
    rows, channels = x.shape
    chunks = sums.shape[0]
    tiles = (channels + 31) // 32
    k = cu.blockIdx.x // tiles
    c = (cu.blockIdx.x - k * tiles) * 32 + cu.threadIdx.x % 32
    scratch = cu.shared.array((2, THREADS), np.float64)
    step = (rows + chunks - 1) // chunks
    warps = cu.blockDim.x // 32
    total = wide(0)
    products = wide(0)
    if c < channels:
        for r in range(k * step + cu.threadIdx.x // 32, min(rows, k * step + step), warps):
            g, xhat = element_gradient(x[r, c], dy[r, c], c, gamma, beta, shift, rest, scale, change, e)
            total += wide(g)
            products += wide(g * xhat)
    scratch[0, cu.threadIdx.x] = total
    scratch[1, cu.threadIdx.x] = products
    cu.syncthreads()
    if cu.threadIdx.x < 32 and c < channels:
        for w in range(1, warps):
            total += scratch[0, cu.threadIdx.x + 32 * w]
            products += scratch[1, cu.threadIdx.x + 32 * w]
        sums[k, 0, c] = total
        sums[k, 1, c] = products


@cuda
def parameter_gradients_cuda(sums, dgamma, dbeta, change, a, b, share):
    """Merge the parts; a and b get what dx takes out, the means of g and of g * xhat."""
    for c in range(cu.grid(1), a.size, cu.gridsize(1)):
        total = wide(0)
        products = wide(0)
        for k in range(sums.shape[0]):
            total += sums[k, 0, c]
            products += sums[k, 1, c]
        if dgamma.size > 0:
            dgamma[c] = real(weight_gradient(c, total, products, change))
            dbeta[c] = real(total)
        a[c] = real(total * share)
        b[c] = real(products * share)


@cuda
def input_gradient_cuda(x, dy, dx, inner, gamma, beta, shift, rest, scale, change, a, b, e):
    """x, dy, dx flat; a, b from parameter_gradients_cuda."""
    channels = shift.size
    step = cu.gridsize(1)
    i = cu.grid(1)
    plane = i // inner
    at = i - plane * inner
    c = plane % channels
    planes = step // inner
    along = step - planes * inner
    down = planes % channels
    while i < x.size:
        g, xhat = element_gradient(x[i], dy[i], c, gamma, beta, shift, rest, scale, change, e)
        dx[i] = weights(c, gamma, beta, scale, change)[0] * (g - a[c] - xhat * b[c])
        i += step
        at += along
        c += down
        if at >= inner:
            at -= inner
            c += 1
        if c >= channels:
            c -= channels
