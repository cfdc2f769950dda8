"""Normalization inside a step: over a row's segments (layer_norm) or over the sequences at one time (batch_norm).

Arrays hold `steps` time steps: raw and out (N, S, W); what is kept for backward has all of them, (N, T, W), and is
read and written from step t0 on.
    hat = (raw - mean) * scale, scale = 1 / sqrt(var + eps)      out = gamma * hat + bias
    layer_norm: mean and var of each segment of a row, [0, split) and [split, W), the second if there is one;
                scale (N, T, segments)
    batch_norm: mean and var of each column over the sequences that have not ended; mean, scale (T, W). Training
                moves running_mean and running_var (T, W) by momentum; inference normalizes with them.
Backward, with g = dout * gamma and means over the same elements (inference of batch_norm: without the means):
    draw = scale * (g - mean(g) - hat * mean(g * hat))
Both passes go over the data twice, the second time relative to the mean.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import warp_sum

BLOCK = 64  # columns of a task
THREADS = 128


@inline(reassociate=True)
def row_sum(x):
    total = real(0)
    for j in range(x.size):
        total += x[j]
    return total


@inline(reassociate=True)
def square_sum(x, mean):
    total = real(0)
    for j in range(x.size):
        d = x[j] - mean
        total += d * d
    return total


@inline(reassociate=True)
def product_sum(a, b):
    total = real(0)
    for j in range(a.size):
        total += a[j] * b[j]
    return total


@inline(reassociate=True)
def triple_sum(a, b, c):
    total = real(0)
    for j in range(a.size):
        total += a[j] * b[j] * c[j]
    return total


@inline
def centre(x, mean, scale, hat):
    for j in range(hat.size):
        hat[j] = (x[j] - mean) * scale


@inline
def affine(hat, gamma, bias, out):
    for j in range(out.size):
        out[j] = hat[j] * gamma[j] + bias[j]


@inline
def row_gradient(d, gamma, hat, scale, a, b, draw):
    for j in range(draw.size):
        draw[j] = scale * (d[j] * gamma[j] - a - hat[j] * b)


@inline
def segment(k, split, width):
    """The ends of segment k."""
    return (0, split) if k == 0 else (split, width)


# -- layer_norm on the CPU -----------------------------------------------------------------------------------


@cpu
def layer_cpu(raw, hat, t0, scale, gamma, bias, out, eps, split):
    steps = raw.shape[1]
    for row in prange(raw.shape[0] * steps):
        n = np.int64(row) // steps
        s = np.int64(row) - n * steps
        for k in range(scale.shape[2]):
            lo, hi = segment(k, split, hat.shape[2])
            x = raw[n, s, lo:hi]
            size = real(hi - lo)
            mean = row_sum(x) / size
            r = real(1) / math.sqrt(square_sum(x, mean) / size + real(eps))
            scale[n, t0 + s, k] = r
            centre(x, mean, r, hat[n, t0 + s, lo:hi])
            affine(hat[n, t0 + s, lo:hi], gamma[lo:hi], bias[lo:hi], out[n, s, lo:hi])


@cpu
def layer_gradient_cpu(dout, d0, hat, t0, scale, gamma, draw, r0, steps, split):
    """Reads dout from step d0 on and writes draw from r0 on."""
    for row in prange(dout.shape[0] * steps):
        n = np.int64(row) // steps
        s = np.int64(row) - n * steps
        for k in range(scale.shape[2]):
            lo, hi = segment(k, split, hat.shape[2])
            d, x, g = dout[n, d0 + s, lo:hi], hat[n, t0 + s, lo:hi], gamma[lo:hi]
            a = product_sum(d, g) / real(hi - lo)
            b = triple_sum(d, g, x) / real(hi - lo)
            row_gradient(d, g, x, scale[n, t0 + s, k], a, b, draw[n, r0 + s, lo:hi])


# -- batch_norm on the CPU -----------------------------------------------------------------------------------


@inline
def add_column_values(x, total):
    for j in range(total.size):
        total[j] += x[j]


@inline
def add_squares(x, mean, total):
    for j in range(total.size):
        d = x[j] - mean[j]
        total[j] += d * d


@inline
def add_products(a, b, total):
    for j in range(total.size):
        total[j] += a[j] * b[j]


@inline
def set_all(v, value):
    for j in range(v.size):
        v[j] = value


@inline
def divide_all(v, by):
    for j in range(v.size):
        v[j] = v[j] / by


@inline
def move(running, v, factor, momentum):
    for j in range(v.size):
        running[j] = (real(1) - momentum) * running[j] + momentum * (v[j] * factor)


@inline
def invert(v, eps):
    for j in range(v.size):
        v[j] = real(1) / math.sqrt(v[j] + eps)


@inline
def centre_columns(x, mean, scale, hat):
    for j in range(hat.size):
        hat[j] = (x[j] - mean[j]) * scale[j]


@inline
def column_gradient(d, gamma, hat, scale, a, b, draw):
    for j in range(draw.size):
        draw[j] = scale[j] * gamma[j] * (d[j] - a[j] - hat[j] * b[j])


@cpu
def batch_cpu(
    raw, hat, t0, mean, scale, gamma, bias, out, running_mean, running_var, lengths, last, training, momentum, eps
):  # fmt: skip
    """last: the last step with running statistics, for inference."""
    batch, steps, width = raw.shape
    blocks = (width + BLOCK - 1) // BLOCK
    for task in prange(steps * blocks):
        s = np.int64(task) // blocks
        lo = (np.int64(task) - s * blocks) * BLOCK
        hi = min(width, lo + BLOCK)
        t = t0 + s
        m, v = mean[t, lo:hi], scale[t, lo:hi]
        if training:
            count = 0
            set_all(m, real(0))
            set_all(v, real(0))
            for n in range(batch):
                if t < lengths[n]:
                    count += 1
                    add_column_values(raw[n, s, lo:hi], m)
            divide_all(m, real(max(count, 1)))
            for n in range(batch):
                if t < lengths[n]:
                    add_squares(raw[n, s, lo:hi], m, v)
            divide_all(v, real(max(count, 1)))
            if count > 1:
                move(running_mean[t, lo:hi], m, real(1), real(momentum))
                move(running_var[t, lo:hi], v, real(count) / real(count - 1), real(momentum))
        else:
            for j in range(hi - lo):
                m[j] = running_mean[min(t, last), lo + j]
                v[j] = running_var[min(t, last), lo + j]
        invert(v, real(eps))
        for n in range(batch):
            if t < lengths[n]:
                centre_columns(raw[n, s, lo:hi], m, v, hat[n, t, lo:hi])
            else:
                set_all(hat[n, t, lo:hi], real(0))
            affine(hat[n, t, lo:hi], gamma[lo:hi], bias[lo:hi], out[n, s, lo:hi])


@cpu
def batch_gradient_cpu(dout, d0, hat, t0, scale, gamma, draw, r0, steps, sums, lengths, training):
    """sums (2, T, W): scratch for the two means. dout is zero where a sequence has ended."""
    batch, _, width = dout.shape
    blocks = (width + BLOCK - 1) // BLOCK
    for task in prange(steps * blocks):
        s = np.int64(task) // blocks
        lo = (np.int64(task) - s * blocks) * BLOCK
        hi = min(width, lo + BLOCK)
        t = t0 + s
        a, b = sums[0, t, lo:hi], sums[1, t, lo:hi]
        set_all(a, real(0))
        set_all(b, real(0))
        if training:
            count = 0
            for n in range(batch):
                if t < lengths[n]:
                    count += 1
                    add_column_values(dout[n, d0 + s, lo:hi], a)
                    add_products(dout[n, d0 + s, lo:hi], hat[n, t, lo:hi], b)
            divide_all(a, real(max(count, 1)))
            divide_all(b, real(max(count, 1)))
        for n in range(batch):
            if t < lengths[n]:
                column_gradient(
                    dout[n, d0 + s, lo:hi], gamma[lo:hi], hat[n, t, lo:hi], scale[t, lo:hi], a, b,
                    draw[n, r0 + s, lo:hi],
                )  # fmt: skip
            else:
                set_all(draw[n, r0 + s, lo:hi], real(0))


@cpu
def parameters_cpu(dout, hat, dgamma, dbias):
    """dgamma = sum of dout * hat, dbias = sum of dout, over all rows of (R, W)."""
    rows, width = dout.shape
    for block in prange((width + BLOCK - 1) // BLOCK):
        lo = np.int64(block) * BLOCK
        hi = min(width, lo + BLOCK)
        a, b = dgamma[lo:hi], dbias[lo:hi]
        set_all(a, real(0))
        set_all(b, real(0))
        for r in range(rows):
            add_products(dout[r, lo:hi], hat[r, lo:hi], a)
            add_column_values(dout[r, lo:hi], b)


# -- CUDA: a warp takes a row's segment (layer_norm), a thread a column (the others) -------------------------


@cuda
def layer_cuda(raw, hat, t0, scale, gamma, bias, out, eps, split):
    steps = raw.shape[1]
    parts = scale.shape[2]
    warps = cu.blockDim.x // 32
    lane = cu.threadIdx.x % 32
    for job in range(
        cu.blockIdx.x * warps + cu.threadIdx.x // 32, raw.shape[0] * steps * parts, cu.gridDim.x * warps
    ):
        k = job % parts
        s = job // parts % steps
        n = job // parts // steps
        lo, hi = segment(k, split, hat.shape[2])
        total = wide(0)
        for j in range(lo + lane, hi, 32):
            total += wide(raw[n, s, j])
        mean = real(warp_sum(total) / wide(hi - lo))
        total = wide(0)
        for j in range(lo + lane, hi, 32):
            d = raw[n, s, j] - mean
            total += wide(d * d)
        r = real(1) / math.sqrt(real(warp_sum(total) / wide(hi - lo)) + real(eps))
        if lane == 0:
            scale[n, t0 + s, k] = r
        for j in range(lo + lane, hi, 32):
            v = (raw[n, s, j] - mean) * r
            hat[n, t0 + s, j] = v
            out[n, s, j] = v * gamma[j] + bias[j]


@cuda
def layer_gradient_cuda(dout, d0, hat, t0, scale, gamma, draw, r0, steps, split):
    parts = scale.shape[2]
    warps = cu.blockDim.x // 32
    lane = cu.threadIdx.x % 32
    for job in range(
        cu.blockIdx.x * warps + cu.threadIdx.x // 32, dout.shape[0] * steps * parts, cu.gridDim.x * warps
    ):
        k = job % parts
        s = job // parts % steps
        n = job // parts // steps
        lo, hi = segment(k, split, hat.shape[2])
        one = wide(0)
        two = wide(0)
        for j in range(lo + lane, hi, 32):
            g = dout[n, d0 + s, j] * gamma[j]
            one += wide(g)
            two += wide(g * hat[n, t0 + s, j])
        a = real(warp_sum(one) / wide(hi - lo))
        b = real(warp_sum(two) / wide(hi - lo))
        r = scale[n, t0 + s, k]
        for j in range(lo + lane, hi, 32):
            draw[n, r0 + s, j] = r * (dout[n, d0 + s, j] * gamma[j] - a - hat[n, t0 + s, j] * b)


@cuda
def batch_cuda(
    raw, hat, t0, mean, scale, gamma, bias, out, running_mean, running_var, lengths, last, training, momentum, eps
):  # fmt: skip
    batch, steps, width = raw.shape
    for i in range(cu.grid(1), steps * width, cu.gridsize(1)):
        s = i // width
        j = i - s * width
        t = t0 + s
        m, v = real(0), real(0)
        if training:
            count = 0
            total = wide(0)
            for n in range(batch):
                if t < lengths[n]:
                    count += 1
                    total += wide(raw[n, s, j])
            m = real(total / wide(max(count, 1)))
            total = wide(0)
            for n in range(batch):
                if t < lengths[n]:
                    d = raw[n, s, j] - m
                    total += wide(d * d)
            v = real(total / wide(max(count, 1)))
            if count > 1:
                rate = real(momentum)
                unbiased = v * (real(count) / real(count - 1))
                running_mean[t, j] = (real(1) - rate) * running_mean[t, j] + rate * m
                running_var[t, j] = (real(1) - rate) * running_var[t, j] + rate * unbiased
        else:
            m, v = running_mean[min(t, last), j], running_var[min(t, last), j]
        r = real(1) / math.sqrt(v + real(eps))
        mean[t, j] = m
        scale[t, j] = r
        for n in range(batch):
            x = real(0)
            if t < lengths[n]:
                x = (raw[n, s, j] - m) * r
            hat[n, t, j] = x
            out[n, s, j] = x * gamma[j] + bias[j]


@cuda
def batch_gradient_cuda(dout, d0, hat, t0, scale, gamma, draw, r0, steps, sums, lengths, training):
    batch, width = dout.shape[0], dout.shape[2]
    for i in range(cu.grid(1), steps * width, cu.gridsize(1)):
        s = i // width
        j = i - s * width
        t = t0 + s
        count = 0
        one = wide(0)
        two = wide(0)
        if training:
            for n in range(batch):
                if t < lengths[n]:
                    count += 1
                    one += wide(dout[n, d0 + s, j])
                    two += wide(dout[n, d0 + s, j] * hat[n, t, j])
        a = real(one / wide(max(count, 1)))
        b = real(two / wide(max(count, 1)))
        for n in range(batch):
            v = real(0)
            if t < lengths[n]:
                v = scale[t, j] * gamma[j] * (dout[n, d0 + s, j] - a - hat[n, t, j] * b)
            draw[n, r0 + s, j] = v


@cuda
def parameters_cuda(dout, hat, dgamma, dbias):
    for j in range(cu.grid(1), dout.shape[1], cu.gridsize(1)):
        one = wide(0)
        two = wide(0)
        for r in range(dout.shape[0]):
            one += wide(dout[r, j] * hat[r, j])
            two += wide(dout[r, j])
        dgamma[j] = real(one)
        dbias[j] = real(two)
