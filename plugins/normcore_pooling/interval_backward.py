"""The gradients of interval_forward.py: to the input, and to the mixture's weight.

    MAX    an element gets dy of the windows whose maximum it was
    MIXED  mix times that and 1 - mix times dy / count of every window that holds it; dmix = sum of dy * (max - mean)

Where windows overlap an element adds up what it gets, in the order of the windows: on CUDA a thread owns an element and
collects from its windows. The CPU has other kernels for that (positions.py, max_planes.py, fractional_planes.py). No
atomics: the same bits every time.
"""

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import block_sum
from normcore_pooling.interval_forward import MIXED, MODE
from normcore_pooling.interval_windows import first_of, offset_of, start_of, stop_of
from normcore_pooling.max_rows import TAP

CHUNK = 8192  # values of a partial sum of dmix
THREADS = 256


# -- CPU ---------------------------------------------------------------------------------------------------


@inline(reassociate=True)
def product_sum(a, b):
    total = real(0)
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@cpu
def mix_gradient_cpu(dy, rest, partial, dmix):
    """dy, rest flat; partial (chunks,) float64."""
    for chunk in prange(partial.size):
        low = np.int64(chunk) * CHUNK
        partial[chunk] = wide(product_sum(dy[low : low + CHUNK], rest[low : low + CHUNK]))
    total = wide(0)
    for chunk in range(partial.size):
        total += partial[chunk]
    dmix[0] = real(total)


# -- CUDA --------------------------------------------------------------------------------------------------


@inline
def even_share(v, count, mix):
    """What every element of a window gets of a mixture."""
    return (real(1) - mix[0]) * v / real(count)


@inline
def winners_share(v, mix):
    if MODE == MIXED:
        return mix[0] * v
    return v


@cuda
def backward_cuda(dy, arg, dx, mix, offsets, size, out, kernel, stride):
    inner = dx.shape[4]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        place = i // inner
        b = i - place * inner
        row = place // size[2]
        w = place - row * size[2]
        layer = row // size[1]
        h = row - layer * size[1]
        a = layer // size[0]
        d = layer - a * size[0]
        plane = a * inner + b
        u0, u1, u2 = offset_of(offsets, plane, 0), offset_of(offsets, plane, 1), offset_of(offsets, plane, 2)
        first_d = first_of(d, size[0], out[0], kernel[0], stride[0], u0)
        first_h = first_of(h, size[1], out[1], kernel[1], stride[1], u1)
        first_w = first_of(w, size[2], out[2], kernel[2], stride[2], u2)
        total = real(0)
        for od in range(first_d, out[0]):
            d0 = start_of(od, size[0], out[0], kernel[0], stride[0], u0)
            if d0 > d:
                break
            d1 = stop_of(od, size[0], out[0], kernel[0], stride[0], u0)
            for oh in range(first_h, out[1]):
                h0 = start_of(oh, size[1], out[1], kernel[1], stride[1], u1)
                if h0 > h:
                    break
                h1 = stop_of(oh, size[1], out[1], kernel[1], stride[1], u1)
                for ow in range(first_w, out[2]):
                    w0 = start_of(ow, size[2], out[2], kernel[2], stride[2], u2)
                    if w0 > w:
                        break
                    w1 = stop_of(ow, size[2], out[2], kernel[2], stride[2], u2)
                    v = dy[a, od, oh, ow, b]
                    # A window of the fractional rule that ends before the element is passed by.
                    if d < d1 and h < h1 and w < w1:
                        if MODE == MIXED:
                            total += even_share(v, (d1 - d0) * (h1 - h0) * (w1 - w0), mix)
                        tap = ((d - d0) * kernel[1] + h - h0) * kernel[2] + w - w0
                        if arg[a, od, oh, ow, b] == TAP(tap):
                            total += winners_share(v, mix)
        dx[a, d, h, w, b] = total


@cuda
def mix_partials_cuda(dy, rest, partial):
    """A block a chunk."""
    scratch = cu.shared.array(32, np.float64)
    for chunk in range(cu.blockIdx.x, partial.size, cu.gridDim.x):
        total = wide(0)
        for i in range(chunk * CHUNK + cu.threadIdx.x, min(dy.size, chunk * CHUNK + CHUNK), cu.blockDim.x):
            total += wide(dy[i] * rest[i])
        total = block_sum(total, scratch)
        if cu.threadIdx.x == 0:
            partial[chunk] = total


@cuda
def mix_total_cuda(partial, dmix):
    if cu.grid(1) == 0:
        total = wide(0)
        for chunk in range(partial.size):
            total += partial[chunk]
        dmix[0] = real(total)
