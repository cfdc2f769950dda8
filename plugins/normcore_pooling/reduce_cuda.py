"""Sums and extremes over windows and bins on CUDA: a thread a target, which gathers; neighbouring threads,
neighbouring numbers in both formats.

Arrays are (A, D, H, W, B): A = N * C and B = 1 channels first, A = N and B = C channels last. Along each dimension
geometry is the tuples size, out, kernel, stride, before and after; bins have no use for the last four.
"""

import numpy as np

from normcore.kernels import cu, cuda, inline, real, wide

BINS = False  # True in kernels made for adaptive pooling: bins in place of windows
COUNTED = 1  # what an average divides by: 0 elements in the input, 1 those in the padding too, 2 nothing
FRESH = True  # False in kernels made to add to the gradients that dx holds
TAP = np.uint32


@inline
def low_input(o, size, out, stride, before):
    return o * size // out if BINS else max(0, o * stride - before)


@inline
def high_input(o, size, out, kernel, stride, before):
    return ((o + 1) * size + out - 1) // out if BINS else min(size, o * stride - before + kernel)


@inline
def low_output(i, size, out, kernel, stride, before):
    return i * out // size if BINS else max(0, (i + before - kernel + stride) // stride)


@inline
def high_output(i, size, out, stride, before):
    return ((i + 1) * out + size - 1) // size if BINS else min(out, (i + before) // stride + 1)


@inline
def counted(o, size, out, kernel, stride, before, after):
    """What output o divides by along one dimension."""
    if COUNTED == 2:
        return 1
    if BINS or COUNTED == 0:
        return high_input(o, size, out, kernel, stride, before) - low_input(o, size, out, stride, before)
    return min(kernel, size + after - (o * stride - before))


@cuda
def average_cuda(x, y, size, out, kernel, stride, before, after, divisor):
    depth, height, width, inner = y.shape[1], y.shape[2], y.shape[3], y.shape[4]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        w = rest - row * width
        rest = row // height
        h = row - rest * height
        n = rest // depth
        d = rest - n * depth
        total = wide(0)
        d_end = high_input(d, size[0], out[0], kernel[0], stride[0], before[0])
        h_end = high_input(h, size[1], out[1], kernel[1], stride[1], before[1])
        w_end = high_input(w, size[2], out[2], kernel[2], stride[2], before[2])
        for di in range(low_input(d, size[0], out[0], stride[0], before[0]), d_end):
            for hi in range(low_input(h, size[1], out[1], stride[1], before[1]), h_end):
                part = real(0)
                for wi in range(low_input(w, size[2], out[2], stride[2], before[2]), w_end):
                    part += x[n, di, hi, wi, b]
                total += wide(part)
        count = divisor
        count *= counted(d, size[0], out[0], kernel[0], stride[0], before[0], after[0])
        count *= counted(h, size[1], out[1], kernel[1], stride[1], before[1], after[1])
        count *= counted(w, size[2], out[2], kernel[2], stride[2], before[2], after[2])
        y[n, d, h, w, b] = real(total) / real(count)


@cuda
def spread_cuda(dy, dx, size, out, kernel, stride, before, after, divisor):
    depth, height, width, inner = dx.shape[1], dx.shape[2], dx.shape[3], dx.shape[4]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        w = rest - row * width
        rest = row // height
        h = row - rest * height
        n = rest // depth
        d = rest - n * depth
        total = real(0) if FRESH else dx[n, d, h, w, b]
        d_end = high_output(d, size[0], out[0], stride[0], before[0])
        h_end = high_output(h, size[1], out[1], stride[1], before[1])
        w_end = high_output(w, size[2], out[2], stride[2], before[2])
        for od in range(low_output(d, size[0], out[0], kernel[0], stride[0], before[0]), d_end):
            over_d = divisor * counted(od, size[0], out[0], kernel[0], stride[0], before[0], after[0])
            for oh in range(low_output(h, size[1], out[1], kernel[1], stride[1], before[1]), h_end):
                over_h = over_d * counted(oh, size[1], out[1], kernel[1], stride[1], before[1], after[1])
                for ow in range(low_output(w, size[2], out[2], kernel[2], stride[2], before[2]), w_end):
                    over = over_h * counted(ow, size[2], out[2], kernel[2], stride[2], before[2], after[2])
                    total += dy[n, od, oh, ow, b] / real(over)
        dx[n, d, h, w, b] = total


@cuda
def extreme_cuda(x, y, arg, size, out):
    """The extreme of each bin; arg: its position in the map."""
    depth, height, width, inner = y.shape[1], y.shape[2], y.shape[3], y.shape[4]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        w = rest - row * width
        rest = row // height
        h = row - rest * height
        n = rest // depth
        d = rest - n * depth
        best = real(0)
        tap = 0
        fresh = True
        for di in range(d * size[0] // out[0], ((d + 1) * size[0] + out[0] - 1) // out[0]):
            for hi in range(h * size[1] // out[1], ((h + 1) * size[1] + out[1] - 1) // out[1]):
                for wi in range(w * size[2] // out[2], ((w + 1) * size[2] + out[2] - 1) // out[2]):
                    v = x[n, di, hi, wi, b]
                    if fresh or v > best or v != v:
                        best = v
                        tap = (di * size[1] + hi) * size[2] + wi
                        fresh = False
        y[n, d, h, w, b] = best
        arg[n, d, h, w, b] = TAP(tap)


@cuda
def route_cuda(dy, arg, dx, size, out):
    """Each input adds up the gradients of the bins whose extreme it is."""
    depth, height, width, inner = dx.shape[1], dx.shape[2], dx.shape[3], dx.shape[4]
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        w = rest - row * width
        rest = row // height
        h = row - rest * height
        n = rest // depth
        d = rest - n * depth
        here = (d * size[1] + h) * size[2] + w
        total = real(0) if FRESH else dx[n, d, h, w, b]
        for od in range(d * out[0] // size[0], ((d + 1) * out[0] + size[0] - 1) // size[0]):
            for oh in range(h * out[1] // size[1], ((h + 1) * out[1] + size[1] - 1) // size[1]):
                for ow in range(w * out[2] // size[2], ((w + 1) * out[2] + size[2] - 1) // size[2]):
                    if arg[n, od, oh, ow, b] == TAP(here):
                        total += dy[n, od, oh, ow, b]
        dx[n, d, h, w, b] = total
