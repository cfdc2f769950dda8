"""Max pooling on CUDA: a thread an output (forward) or an input (backward); neighbouring threads, neighbouring
numbers."""

import numpy as np

from normcore.kernels import cu, cuda, real
from normcore_pooling.max_indices import flat_index, window_at
from normcore_pooling.max_rows import TAP, better

# Both formats are (A, D, H, W, B): A = N * C and B = 1 channels first, A = N and B = C channels last.


@cuda
def forward_cuda(x, y, arg, kernel, stride, before, dilation):
    depth, height, width, inner = y.shape[1], y.shape[2], y.shape[3], y.shape[4]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // width
        ow = rest - row * width
        w0 = ow * stride[2] - before[2]
        rest = row // height
        oh = row - rest * height
        h0 = oh * stride[1] - before[1]
        n = rest // depth
        od = rest - n * depth
        d0 = od * stride[0] - before[0]
        best = real(0)
        tap = 0
        fresh = True
        for kd in range(kernel[0]):
            d = d0 + kd * dilation[0]
            for kh in range(kernel[1]):
                h = h0 + kh * dilation[1]
                if d >= 0 and d < x.shape[1] and h >= 0 and h < x.shape[2]:
                    for kw in range(kernel[2]):
                        w = w0 + kw * dilation[2]
                        if w >= 0 and w < x.shape[3]:
                            v = x[n, d, h, w, b]
                            if fresh or better(v, best):
                                best = v
                                tap = (kd * kernel[1] + kh) * kernel[2] + kw
                                fresh = False
        y[n, od, oh, ow, b] = best
        arg[n, od, oh, ow, b] = TAP(tap)


@cuda
def backward_cuda(dy, arg, dx, kernel, stride, before, dilation):
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
        total = real(0)
        for kd in range(kernel[0] - 1, -1, -1):
            od = window_at(d, kd, dy.shape[1], stride[0], before[0], dilation[0])
            for kh in range(kernel[1] - 1, -1, -1):
                oh = window_at(h, kh, dy.shape[2], stride[1], before[1], dilation[1])
                if od >= 0 and oh >= 0:
                    for kw in range(kernel[2] - 1, -1, -1):
                        ow = window_at(w, kw, dy.shape[3], stride[2], before[2], dilation[2])
                        tap = (kd * kernel[1] + kh) * kernel[2] + kw
                        if ow >= 0 and arg[n, od, oh, ow, b] == TAP(tap):
                            total += dy[n, od, oh, ow, b]
        dx[n, d, h, w, b] = total


@cuda
def flat_indices_cuda(arg, indices, height, width, kernel, stride, before, dilation):
    out_d, out_h, out_w, inner = arg.shape[1], arg.shape[2], arg.shape[3], arg.shape[4]
    for i in range(cu.grid(1), arg.size, cu.gridsize(1)):
        rest = i // inner
        b = i - rest * inner
        row = rest // out_w
        ow = rest - row * out_w
        rest = row // out_h
        oh = row - rest * out_h
        n = rest // out_d
        od = rest - n * out_d
        d0 = od * stride[0] - before[0]
        h0 = oh * stride[1] - before[1]
        w0 = ow * stride[2] - before[2]
        tap = np.int64(arg[n, od, oh, ow, b])
        indices[n, od, oh, ow, b] = flat_index(tap, d0, h0, w0, height, width, kernel, dilation)
