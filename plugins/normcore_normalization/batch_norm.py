"""Batch normalization: each channel brought to mean 0 and variance 1 over the batch and space, then scaled.

Forward, over the m = N * positions values x_i of one channel (the paper's four equations):
    mu = 1/m sum x_i        var = 1/m sum (x_i - mu)^2
    xhat_i = (x_i - mu) / sqrt(var + eps)        y_i = gamma * xhat_i + beta
Backward, with g_i = dL/dy_i (the paper's six equations; mu and var depend on every x_i, and what they pass on
sums up to two means that are taken out of the gradient):
    dgamma = sum g_i * xhat_i        dbeta = sum g_i
    dx_i = gamma / sqrt(var + eps) * (g_i - dbeta / m - xhat_i * dgamma / m)
Inference normalizes with running statistics, there dx_i = gamma / sqrt(var + eps) * g_i. Training moves them:
    running_mean = (1 - momentum) * running_mean + momentum * mu
    running_var  = (1 - momentum) * running_var + momentum * var * m / (m - 1)
momentum weighs the NEW value, as in PyTorch (TensorFlow and Caffe weigh the old one); None averages all
batches alike. The batch is normalized with the biased variance, the unbiased one is stored (paper,
algorithm 2).

Numerics: values are read as (x - s) - d with a shift s, a number of x's own precision next to the mean, and
the small rest d of the mean; x * a + b would lose every digit that x and the mean share. Sums run in
blocks, relative to a shift taken from the first block; blocks are added in float64. A channel whose sums
are not finite (values near 1e30) or whose shift turns out far from the mean is summed once more in float64.
Channels never mix, so a NaN stays in its own. The order of every sum is a matter of the shape alone.

Shapes: x, y (N, C, *spatial) with any number of spatial dimensions, (N, C) included; gamma, beta,
running_mean, running_var (C,). float32 and float64. Training with one value per channel is a ShapeError.

Source: Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training by reducing internal
covariate shift", arXiv:1502.03167.
"""

import math

import numpy as np

from normcore import Array, Op, ParameterError, Plan, ShapeError, Tensor
from normcore.kernels import cpu, cu, cuda, epilogue, epilogue_gradient, inline, prange, real, wide
from normcore.testing.samples import ErrorSample, Sample

BLOCK = 4096  # values summed in the kernel's own precision before float64 takes over; 16 KB fit the L1 cache
LINES = 128  # the same for channels last, where a line adds one value to each sum
WIDTH = 512  # values of a line, about: 2 KB, so that vectors are long and all a line needs fits the L1 cache
FAR = 64.0  # a shift this many variances (squared distance) off the mean costs two digits: sum again
INFINITY = math.inf
THREADS = 256  # of a CUDA block that sums together; a power of two

# -- scalar mathematics, shared by every device -------------------------------------------------------------


@inline
def centered(x, s, d):
    """x minus the mean s + d; exact next to the mean. A function of its own, so that sums cannot regroup
    it."""
    return (x - s) - d


@inline
def affine(x, s, d, a, b):
    """gamma * xhat + beta, with a = gamma / sqrt(var + eps) and b = beta."""
    return (x - s - d) * a + b


@inline
def trusted(total, squares, count, eps):
    """Whether sums of u and u^2 give the variance: finite, shift near the mean, squares not underflown."""
    shifted = total * total / count
    spread = squares - shifted
    visible = spread > count * wide(1e-30) or eps > wide(1e-20)
    return squares < INFINITY and shifted <= wide(FAR) * spread and visible


@inline
def parameter(array, c, default):
    """array[c], or the default where the op has no such array (size 0)."""
    return array[c] if array.size > 0 else real(default)


# -- CPU, channels first: one channel's planes stay in the L2 cache while it is summed and normalized ------


@inline(reassociate=True)
def block_sums(x, s):
    total = real(0)
    squares = real(0)
    for i in range(x.size):
        u = centered(x[i], s, real(0))
        total += u
        squares += u * u
    return total, squares


@inline(reassociate=True)
def block_sum_wide(x, s):
    total = wide(0)
    for i in range(x.size):
        total += wide(x[i]) - s
    return total


@inline(reassociate=True)
def block_squares_wide(x, mean):
    squares = wide(0)
    for i in range(x.size):
        u = wide(x[i]) - mean
        squares += u * u
    return squares


@inline
def plane_statistics(x, c, eps):
    """Mean and biased variance of channel c of x (N, C, L), in float64."""
    length = x.shape[2]
    count = wide(x.shape[0] * length)
    first = x[0, c, : min(length, BLOCK)]
    s = first[0] + block_sums(first, first[0])[0] / real(first.size)
    total = wide(0)
    squares = wide(0)
    for n in range(x.shape[0]):
        for lo in range(0, length, BLOCK):
            u, uu = block_sums(x[n, c, lo : min(length, lo + BLOCK)], s)
            total += wide(u)
            squares += wide(uu)
    if trusted(total, squares, count, eps):
        return wide(s) + total / count, (squares - total * total / count) / count
    total = wide(0)
    for n in range(x.shape[0]):
        total += block_sum_wide(x[n, c], wide(first[0]))
    mean = wide(first[0]) + total / count
    squares = wide(0)
    for n in range(x.shape[0]):
        squares += block_squares_wide(x[n, c], mean)
    return mean, squares / count


@inline
def keep_statistics(c, mean, var, eps, shift, rest, scale):
    """What normalizing and backward need of one channel: s, d and 1 / sqrt(var + eps)."""
    shift[c] = real(mean)
    rest[c] = real(mean - wide(shift[c]))
    scale[c] = real(wide(1) / math.sqrt(var + eps))


@inline
def move_running(c, mean, var, count, momentum, running_mean, running_var):
    if running_mean.size > 0:
        keep = wide(1) - momentum
        running_mean[c] = real(keep * wide(running_mean[c]) + momentum * mean)
        running_var[c] = real(keep * wide(running_var[c]) + momentum * var * (count / (count - wide(1))))


@inline
def normalize_block(x, y, s, d, a, b, e):
    for i in range(x.size):
        y[i] = epilogue(affine(x[i], s, d, a, b), e)


@inline
def normalize_channel(x, y, c, gamma, beta, shift, rest, scale, e):
    a = scale[c] * parameter(gamma, c, 1)
    b = parameter(beta, c, 0)
    for n in range(x.shape[0]):
        normalize_block(x[n, c], y[n, c], shift[c], rest[c], a, b, e)


@cpu
def _forward_planes(x, y, gamma, beta, running_mean, running_var, shift, rest, scale, eps, momentum, e):
    """x, y (N, C, L); momentum weighs this batch in the running statistics."""
    count = wide(x.shape[0] * x.shape[2])
    for c in prange(x.shape[1]):
        mean, var = plane_statistics(x, c, eps)
        keep_statistics(c, mean, var, eps, shift, rest, scale)
        move_running(c, mean, var, count, momentum, running_mean, running_var)
        normalize_channel(x, y, c, gamma, beta, shift, rest, scale, e)


@cpu
def _infer_planes(x, y, gamma, beta, running_mean, running_var, shift, rest, scale, eps, e):
    for c in range(x.shape[1]):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)
    for j in prange(x.shape[0] * x.shape[1]):
        n = j // x.shape[1]
        c = j - n * x.shape[1]
        a = scale[c] * parameter(gamma, c, 1)
        normalize_block(x[n, c], y[n, c], shift[c], rest[c], a, parameter(beta, c, 0), e)


@inline(reassociate=True)
def gradient_sums(x, dy, s, d, a, b, e):
    """Sums of g and g * (x - mean) over one block; g is dy before the epilogue."""
    total = real(0)
    along = real(0)
    for i in range(x.size):
        z = affine(x[i], s, d, a, b)
        g = epilogue_gradient(z, z, dy[i], e)
        total += g
        along += g * centered(x[i], s, d)
    return total, along


@inline
def input_gradient(x, dy, dx, s, d, a, b, mean_g, slope, e):
    """slope: the mean of g * xhat, over the standard deviation."""
    for i in range(x.size):
        z = affine(x[i], s, d, a, b)
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a * (g - mean_g - centered(x[i], s, d) * slope)


@cpu
def _backward_planes(x, dy, dx, gamma, beta, dgamma, dbeta, shift, rest, scale, share, wanted, e):
    """share: 1/m, or 0 when running statistics were used; wanted: whether dx is to be written."""
    length = x.shape[2]
    for c in prange(x.shape[1]):
        s, d, inverse = shift[c], rest[c], scale[c]
        a = inverse * parameter(gamma, c, 1)
        b = parameter(beta, c, 0)
        total = wide(0)
        along = wide(0)
        for n in range(x.shape[0]):
            for lo in range(0, length, BLOCK):
                hi = min(length, lo + BLOCK)
                g, gu = gradient_sums(x[n, c, lo:hi], dy[n, c, lo:hi], s, d, a, b, e)
                total += wide(g)
                along += wide(gu)
        along *= wide(inverse)
        if dgamma.size > 0:
            dgamma[c] = real(along)
            dbeta[c] = real(total)
        if wanted:
            mean_g, slope = real(total * share), real(along * share * wide(inverse))
            for n in range(x.shape[0]):
                input_gradient(x[n, c], dy[n, c], dx[n, c], s, d, a, b, mean_g, slope, e)


# -- CPU, channels last: lines of some rows are summed for all channels at once, then merged in order ------
# x (M, C) comes as lines (R, W) of W / C rows each, so that few channels make long vectors too, and a tail
# shorter than a line; what belongs to a channel is repeated W / C times in `line` (6, W).


@inline
def four_line_sums(p, q, r, s, shift, total, squares):
    for i in range(total.size):
        t = p[i] - shift[i]
        u = q[i] - shift[i]
        v = r[i] - shift[i]
        w = s[i] - shift[i]
        total[i] += (t + u) + (v + w)
        squares[i] += (t * t + u * u) + (v * v + w * w)


@inline
def line_sums(p, shift, total, squares):
    for i in range(p.size):
        u = p[i] - shift[i]
        total[i] += u
        squares[i] += u * u


@inline
def line_at(x, tail, r):
    """Line r, or the tail behind the last one."""
    return x[r] if r < x.shape[0] else tail


@inline
def sum_lines(x, tail, first, last, shift, total, squares):
    whole = first + max(0, min(last, x.shape[0]) - first) // 4 * 4
    for r in range(first, whole, 4):
        four_line_sums(x[r], x[r + 1], x[r + 2], x[r + 3], shift, total, squares)
    for r in range(whole, last):
        line_sums(line_at(x, tail, r), shift, total, squares)


@inline
def set_zero(target):
    for i in range(target.size):
        target[i] = wide(0)


@inline
def add_wide(source, target):
    for c in range(source.size):
        target[c] += wide(source[c])


@inline
def clear_sums(partial, sums):
    set_zero(sums[0])
    set_zero(sums[1])
    set_zero(partial[0])
    set_zero(partial[1])


@inline
def fold(line, target):
    """Add the repetitions of each channel in a line (W,) to target (C,) float64, and clear the line."""
    for lo in range(0, line.size, target.size):
        add_wide(line[lo : lo + target.size], target)
    set_zero(line)


@inline
def repeat(source, line):
    for lo in range(0, line.size, source.size):
        part = line[lo : lo + source.size]
        for c in range(part.size):
            part[c] = source[c]


@inline
def merge(sums):
    for k in range(1, sums.shape[0]):
        add_wide(sums[k, 0], sums[0, 0])
        add_wide(sums[k, 1], sums[0, 1])


@inline
def value_at(x, tail, i):
    """Element i of the flat array that x and tail make up."""
    r = i // x.shape[1]
    return x[r, i - r * x.shape[1]] if r < x.shape[0] else tail[i - x.size]


@inline
def column_statistics_wide(x, tail, c, channels):
    """The statistics of one channel once more, in float64."""
    size = x.size + tail.size
    count = wide(size // channels)
    first = wide(value_at(x, tail, c))
    total = wide(0)
    for i in range(c, size, channels):
        total += wide(value_at(x, tail, i)) - first
    mean = first + total / count
    squares = wide(0)
    for i in range(c, size, channels):
        u = wide(value_at(x, tail, i)) - mean
        squares += u * u
    return mean, squares / count


@inline
def first_shift(x, tail, shift, line, partial, sums):
    """A shift for each channel: the mean of its first few values."""
    lines = min(4, x.shape[0]) if x.shape[0] > 0 else 1
    for c in range(shift.size):
        shift[c] = line_at(x, tail, 0)[c]
    repeat(shift, line[0])
    clear_sums(partial[0], sums[0])
    sum_lines(x, tail, 0, lines, line[0], partial[0, 0], partial[0, 1])
    fold(partial[0, 0], sums[0, 0])
    count = lines * line_at(x, tail, 0).size // shift.size
    for c in range(shift.size):
        shift[c] += real(sums[0, 0, c] / wide(count))
    repeat(shift, line[0])


@inline
def repeat_parameters(gamma, beta, shift, rest, scale, line):
    """Rows 0 to 3 of line: s, d, a and b of each channel, over and over."""
    repeat(shift, line[0])
    repeat(rest, line[1])
    for c in range(scale.size):
        line[2, c] = scale[c] * parameter(gamma, c, 1)
        line[3, c] = parameter(beta, c, 0)
    repeat(line[2, : scale.size], line[2])
    repeat(line[3, : scale.size], line[3])


@inline
def normalize_line(x, y, shift, rest, a, b, e):
    for i in range(x.size):
        y[i] = epilogue(affine(x[i], shift[i], rest[i], a[i], b[i]), e)


@cpu
def _forward_lines(
    x,
    tail,
    y,
    y_tail,
    gamma,
    beta,
    running_mean,
    running_var,
    shift,
    rest,
    scale,
    line,
    partial,
    sums,
    eps,
    momentum,
    e,
):
    """partial (chunks, 2, W) and sums (chunks, 2, C) float64 are scratch. A chunk is some lines, the last
    has the tail too."""
    channels = shift.size
    chunks = sums.shape[0]
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    first_shift(x, tail, shift, line, partial, sums)
    for k in prange(chunks):
        clear_sums(partial[k], sums[k])
        last = min(lines, k * step + step)
        for lo in range(k * step, last, LINES):
            sum_lines(x, tail, lo, min(last, lo + LINES), line[0], partial[k, 0], partial[k, 1])
            fold(partial[k, 0], sums[k, 0])
            fold(partial[k, 1], sums[k, 1])
    merge(sums)
    count = wide((x.size + tail.size) // channels)
    for c in range(channels):
        total, squares = sums[0, 0, c], sums[0, 1, c]
        mean = wide(shift[c]) + total / count
        var = (squares - total * total / count) / count
        if not trusted(total, squares, count, eps):
            mean, var = column_statistics_wide(x, tail, c, channels)
        keep_statistics(c, mean, var, eps, shift, rest, scale)
        move_running(c, mean, var, count, momentum, running_mean, running_var)
    repeat_parameters(gamma, beta, shift, rest, scale, line)
    for k in prange(chunks):
        j = chunks - 1 - k  # what was read last is still in the cache
        for r in range(j * step, min(lines, j * step + step)):
            source, target = line_at(x, tail, r), line_at(y, y_tail, r)
            normalize_line(source, target, line[0], line[1], line[2], line[3], e)


@cpu
def _infer_lines(
    x, tail, y, y_tail, gamma, beta, running_mean, running_var, shift, rest, scale, line, chunks, eps, e
):
    for c in range(shift.size):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)
    repeat_parameters(gamma, beta, shift, rest, scale, line)
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    for k in prange(chunks):
        for r in range(k * step, min(lines, k * step + step)):
            source, target = line_at(x, tail, r), line_at(y, y_tail, r)
            normalize_line(source, target, line[0], line[1], line[2], line[3], e)


@inline
def line_gradient_sums(x, dy, shift, rest, a, b, total, along, e):
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        total[i] += g
        along[i] += g * centered(x[i], shift[i], rest[i])


@inline
def line_input_gradient(x, dy, dx, shift, rest, a, b, mean_g, slope, e):
    for i in range(x.size):
        z = affine(x[i], shift[i], rest[i], a[i], b[i])
        g = epilogue_gradient(z, z, dy[i], e)
        dx[i] = a[i] * (g - mean_g[i] - centered(x[i], shift[i], rest[i]) * slope[i])


@cpu
def _backward_lines(
    x,
    tail,
    dy,
    dy_tail,
    dx,
    dx_tail,
    gamma,
    beta,
    dgamma,
    dbeta,
    shift,
    rest,
    scale,
    line,
    partial,
    sums,
    share,
    wanted,
    e,
):
    channels = shift.size
    chunks = sums.shape[0]
    lines = x.shape[0] + min(1, tail.size)
    step = (lines + chunks - 1) // chunks
    repeat_parameters(gamma, beta, shift, rest, scale, line)
    for k in prange(chunks):
        clear_sums(partial[k], sums[k])
        last = min(lines, k * step + step)
        for lo in range(k * step, last, LINES):
            for r in range(lo, min(last, lo + LINES)):
                p, g = line_at(x, tail, r), line_at(dy, dy_tail, r)
                line_gradient_sums(p, g, line[0], line[1], line[2], line[3], partial[k, 0], partial[k, 1], e)
            fold(partial[k, 0], sums[k, 0])
            fold(partial[k, 1], sums[k, 1])
    merge(sums)
    for c in range(channels):
        total, along = sums[0, 0, c], sums[0, 1, c] * wide(scale[c])
        if dgamma.size > 0:
            dgamma[c] = real(along)
            dbeta[c] = real(total)
        line[4, c] = real(total * share)
        line[5, c] = real(along * share * wide(scale[c]))
    if wanted:
        repeat(line[4, :channels], line[4])
        repeat(line[5, :channels], line[5])
        for k in prange(chunks):
            j = chunks - 1 - k
            for r in range(j * step, min(lines, j * step + step)):
                p, g, d = line_at(x, tail, r), line_at(dy, dy_tail, r), line_at(dx, dx_tail, r)
                line_input_gradient(p, g, d, line[0], line[1], line[2], line[3], line[4], line[5], e)


# -- CUDA: blocks sum parts of a channel, one block a channel merges them in order, a last pass normalizes -
# A channel's element q lies at (q // inner * C + c) * inner + q % inner of the flat array: inner = L channels
# first, 1 channels last. Divisions by inner are kept out of the loops by counting along.


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
def _planes_sums_cuda(x, shift, sums):
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
def _rows_sums_cuda(x, shift, sums):
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
def _finish_cuda(x, inner, sums, running_mean, running_var, num_batches, shift, rest, scale, eps, momentum):
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
        weight = momentum if momentum >= 0 else wide(1) / wide(num_batches[0])
        move_running(c, mean, var, m, weight, running_mean, running_var)


@cuda
def _count_cuda(num_batches):
    if cu.grid(1) == 0:
        num_batches[0] += 1


@cuda
def _running_cuda(running_mean, running_var, shift, rest, scale, eps):
    for c in range(cu.grid(1), shift.size, cu.gridsize(1)):
        keep_statistics(c, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale)


@cuda
def _normalize_cuda(x, y, inner, gamma, beta, shift, rest, scale, e):
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
        a = scale[c] * parameter(gamma, c, 1)
        y[i] = epilogue(affine(x[i], shift[c], rest[c], a, parameter(beta, c, 0)), e)
        i += step
        at += along
        c += down
        if at >= inner:
            at -= inner
            c += 1
        if c >= channels:
            c -= channels


@inline
def element_gradient(x, dy, c, gamma, beta, shift, rest, scale, e):
    """g, the gradient before the epilogue, and xhat of one element."""
    a = scale[c] * parameter(gamma, c, 1)
    z = affine(x, shift[c], rest[c], a, parameter(beta, c, 0))
    return epilogue_gradient(z, z, dy, e), centered(x, shift[c], rest[c]) * scale[c]


@cuda
def _planes_gradient_sums_cuda(x, dy, gamma, beta, shift, rest, scale, sums, e):
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
        g, xhat = element_gradient(x[n, c, i], dy[n, c, i], c, gamma, beta, shift, rest, scale, e)
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
def _rows_gradient_sums_cuda(x, dy, gamma, beta, shift, rest, scale, sums, e):
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
            g, xhat = element_gradient(x[r, c], dy[r, c], c, gamma, beta, shift, rest, scale, e)
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
def _parameter_gradients_cuda(sums, dgamma, dbeta, a, b, share):
    """Merge the parts; a and b get what dx takes out, the means of g and of g * xhat."""
    for c in range(cu.grid(1), a.size, cu.gridsize(1)):
        total = wide(0)
        products = wide(0)
        for k in range(sums.shape[0]):
            total += sums[k, 0, c]
            products += sums[k, 1, c]
        if dgamma.size > 0:
            dgamma[c] = real(products)
            dbeta[c] = real(total)
        a[c] = real(total * share)
        b[c] = real(products * share)


@cuda
def _input_gradient_cuda(x, dy, dx, inner, gamma, beta, shift, rest, scale, a, b, e):
    """x, dy, dx flat; a, b from _parameter_gradients_cuda."""
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
        g, xhat = element_gradient(x[i], dy[i], c, gamma, beta, shift, rest, scale, e)
        dx[i] = scale[c] * parameter(gamma, c, 1) * (g - a[c] - xhat * b[c])
        i += step
        at += along
        c += down
        if at >= inner:
            at -= inner
            c += 1
        if c >= channels:
            c -= channels


# -- the op ------------------------------------------------------------------------------------------------


class BatchNorm(
    Op,
    name="batch_norm",
    aliases=("bn",),
    learnable=("gamma", "beta"),
    source="Ioffe and Szegedy 2015, arXiv:1502.03167",
):
    """Normalize each channel over the batch and space: gamma * (x - mean) / sqrt(var + eps) + beta.

    eps: added to the variance. momentum: weight of the new batch in the running statistics, None for the
    average of all batches. affine: learn gamma and beta. track_running_stats: False normalizes with the
    batch's own statistics in inference too.
    """

    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    formats = ("channels_first", "channels_last")
    backward_needs = ("x",)
    needs_batch = True
    epilogue = "input"

    samples = (
        Sample("feature maps; rows and channels leave vector remainders", shape=(3, 5, 4, 7)),
        Sample("dense features", shape=(7, 6)),
        Sample("one image: its m is the map's size", shape=(1, 3, 5, 6)),
        Sample("sequences of prime length, no parameters", shape=(4, 3, 11), params={"affine": False}),
        Sample("volumes", shape=(2, 3, 2, 4, 3), params={"eps": 1e-3}),
        Sample("the average of all batches", shape=(4, 3, 5), params={"momentum": None}),
        Sample("batch statistics in inference too", shape=(4, 3, 5), params={"track_running_stats": False}),
        Sample("running statistics", shape=(4, 3, 5, 3), training=False),
    )
    error_samples = (
        ErrorSample("one value per channel", {}, (1, 4), "more than one value per channel", training=True),
        ErrorSample("no channel axis", {}, (4,), "(N, C)"),
        ErrorSample("eps below 0", {"eps": -1.0}, None, "eps"),
        ErrorSample("momentum above 1", {"momentum": 2.0}, None, "momentum"),
    )

    def check(self):
        if not self.eps >= 0:
            raise ParameterError("eps", "a number of at least 0", self.eps)
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ParameterError(
                "momentum", "a number from 0 to 1, or null to weigh all batches alike", self.momentum
            )

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"batch_norm: expected an input (N, C) or (N, C, *spatial), got {x.shape}")
        channels = x.shape[1]
        rows = x.size // max(1, channels)
        chunks = max(1, min(64, rows // 32, x.size // 8192))
        width = channels * max(1, min(rows, WIDTH // max(1, channels)))
        per_channel = Array((channels,))
        state = {}
        if self.track_running_stats:
            state = {"running_mean": per_channel, "running_var": Array((channels,), init="ones")}
            if self.momentum is None:
                state["num_batches"] = Array((1,), "int64")
        return Plan(
            y=x.shape,
            parameters={"gamma": Array((channels,), init="ones"), "beta": per_channel} if self.affine else {},
            state=state,
            saved={"shift": per_channel, "rest": per_channel, "scale": per_channel},
            workspace={
                "a": per_channel,
                "b": per_channel,
                "line": Array((6, width)),
                "partial": Array((chunks, 2, width)),
                "sums": Array((chunks, 2, channels), "float64"),
            },
            flops=8 * x.size,
        )

    def forward_cpu(self, t):
        x, y, rows = _flat(t.x, t.y, t.format)
        none = t.shift[:0]
        gamma, beta = (t.gamma, t.beta) if self.affine else (none, none)
        saved = (t.shift, t.rest, t.scale)
        if self._uses_batch(t):
            self._check_count(t.x, t.shift.size)
            running = (t.running_mean, t.running_var) if self._moves(t) else (none, none)
            momentum = self._momentum(t)
            if rows:
                lines = (*_lines(t.x, t.line), *_lines(t.y, t.line))
                scratch = (t.line, t.partial, t.sums)
                _forward_lines[t](*lines, gamma, beta, *running, *saved, *scratch, self.eps, momentum, t.e)
            else:
                _forward_planes[t](x, y, gamma, beta, *running, *saved, self.eps, momentum, t.e)
        elif rows:
            lines = (*_lines(t.x, t.line), *_lines(t.y, t.line))
            running, chunks = (t.running_mean, t.running_var), t.sums.shape[0]
            _infer_lines[t](*lines, gamma, beta, *running, *saved, t.line, chunks, self.eps, t.e)
        else:
            _infer_planes[t](x, y, gamma, beta, t.running_mean, t.running_var, *saved, self.eps, t.e)

    def backward_cpu(self, t):
        wanted = t.dx is not None
        x, dy, rows = _flat(t.x, t.dy, t.format)
        dx = t.dx.reshape(x.shape) if wanted else dy
        none = t.shift[:0]
        parameters = (t.gamma, t.beta, t.dgamma, t.dbeta) if self.affine else (none,) * 4
        share = 1.0 / max(1, t.x.size // t.shift.size) if self._uses_batch(t) else 0.0
        if rows:
            lines = [part for array in (x, dy, dx) for part in _lines(array, t.line)]
            scratch = (t.line, t.partial, t.sums)
            _backward_lines[t](*lines, *parameters, t.shift, t.rest, t.scale, *scratch, share, wanted, t.e)
        else:
            _backward_planes[t](x, dy, dx, *parameters, t.shift, t.rest, t.scale, share, wanted, t.e)

    def forward_cuda(self, t):
        x, y, rows = _flat(t.x, t.y, t.format)
        inner = 1 if rows else x.shape[2]
        none = t.shift[:0]
        gamma, beta = (t.gamma, t.beta) if self.affine else (none, none)
        saved = (t.shift, t.rest, t.scale)
        eps = np.float64(self.eps)
        channels = t.shift.size
        if self._uses_batch(t):
            self._check_count(t.x, channels)
            chunks = t.sums.shape[0]
            if rows:
                _rows_sums_cuda[t, (chunks * -(-channels // 32), THREADS)](x, t.shift, t.sums)
            else:
                _planes_sums_cuda[t, (chunks * channels, THREADS)](x, t.shift, t.sums)
            running, counter = (none, none), t.sums.reshape(-1)
            momentum = np.float64(self.momentum or 0.0)
            if self._moves(t):
                running = (t.running_mean, t.running_var)
                if self.momentum is None:
                    counter, momentum = t.num_batches, np.float64(-1.0)
                    _count_cuda[t, 1](counter)
            flat = x.reshape(-1)
            _finish_cuda[t, (channels, THREADS)](
                flat, inner, t.sums, *running, counter, *saved, eps, momentum
            )
        else:
            _running_cuda[t, channels](t.running_mean, t.running_var, *saved, eps)
        if x.size:
            _normalize_cuda[t, x.size](x.reshape(-1), y.reshape(-1), inner, gamma, beta, *saved, t.e)

    def backward_cuda(self, t):
        x, dy, rows = _flat(t.x, t.dy, t.format)
        inner = 1 if rows else x.shape[2]
        none = t.shift[:0]
        gamma, beta, dgamma, dbeta = (t.gamma, t.beta, t.dgamma, t.dbeta) if self.affine else (none,) * 4
        saved = (t.shift, t.rest, t.scale)
        channels, chunks = t.shift.size, t.sums.shape[0]
        if rows:
            extent = (chunks * -(-channels // 32), THREADS)
            _rows_gradient_sums_cuda[t, extent](x, dy, gamma, beta, *saved, t.sums, t.e)
        else:
            _planes_gradient_sums_cuda[t, (chunks * channels, THREADS)](
                x, dy, gamma, beta, *saved, t.sums, t.e
            )
        share = np.float64(1.0 / max(1, x.size // channels) if self._uses_batch(t) else 0.0)
        _parameter_gradients_cuda[t, channels](t.sums, dgamma, dbeta, t.a, t.b, share)
        if t.dx is not None and x.size:
            flat = (x.reshape(-1), dy.reshape(-1), t.dx.reshape(-1))
            _input_gradient_cuda[t, x.size](*flat, inner, gamma, beta, *saved, t.a, t.b, t.e)

    def _uses_batch(self, t):
        return t.training or not self.track_running_stats

    def _moves(self, t):
        return t.training and self.track_running_stats

    def _momentum(self, t):
        """The weight of this batch; counts it when all batches weigh the same."""
        if self.momentum is not None or not self._moves(t):
            return self.momentum or 0.0
        t.num_batches[0] += 1
        return 1.0 / t.num_batches[0]

    def _check_count(self, x, channels):
        if x.size <= channels:
            raise ShapeError(
                "batch_norm: training needs more than one value per channel (the variance of one is 0); "
                f"got an input of {x.size} values in {channels} channels; use a larger batch (data.drop_last "
                "leaves out a last batch of one), or layer_norm, which does not look at the batch"
            )

    def reference(self, x, gamma=None, beta=None, running_mean=None, running_var=None, training=True, **_):
        values = np.moveaxis(np.asarray(x, np.float64), 1, 0).reshape(x.shape[1], -1)
        if training or not self.track_running_stats:
            mean, var = np.mean(values, axis=1), np.var(values, axis=1)
        else:
            mean, var = running_mean, running_var
        shape = (1, -1) + (1,) * (np.ndim(x) - 2)
        y = (x - np.reshape(mean, shape)) / np.sqrt(np.reshape(var, shape) + self.eps)
        if gamma is not None:
            y = np.reshape(gamma, shape) * y + np.reshape(beta, shape)
        return y


def _flat(x, y, format):
    """x and y as (M, C) when a row holds all channels, else as (N, C, L); and which of the two."""
    if format == "channels_last" or x.ndim == 2:
        shape = (math.prod(x.shape[:-1]), x.shape[-1])
        return x.reshape(shape), y.reshape(shape), True
    shape = (x.shape[0], x.shape[1], math.prod(x.shape[2:]))
    return x.reshape(shape), y.reshape(shape), False


def _lines(x, line):
    """A channels-last array as whole lines (R, W) and the shorter tail."""
    flat = x.reshape(-1)
    width = line.shape[1]
    whole = flat.size // width
    return flat[: whole * width].reshape(whole, width), flat[whole * width :]
