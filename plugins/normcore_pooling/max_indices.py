"""Where the tap that max pooling recorded lies in its map."""

import numpy as np

from normcore.kernels import cpu, inline, prange


@inline
def window_at(i, k, out, stride, before, dilation):
    """The window in which element i is tap k, or -1."""
    start = i + before - k * dilation
    o = start // stride
    return o if start >= 0 and o * stride == start and o < out else -1


@inline
def flat_index(tap, d0, h0, w0, height, width, kernel, dilation):
    kw = tap % kernel[2]
    kh = tap // kernel[2] % kernel[1]
    kd = tap // kernel[2] // kernel[1]
    d = d0 + kd * dilation[0]
    h = h0 + kh * dilation[1]
    return (d * height + h) * width + w0 + kw * dilation[2]


@cpu
def flat_indices(arg, indices, height, width, kernel, stride, before, dilation):
    """arg and indices (A, OD, OH, OW, B), where B is 1 or the channels."""
    for n in prange(arg.shape[0]):
        for od in range(arg.shape[1]):
            for oh in range(arg.shape[2]):
                for ow in range(arg.shape[3]):
                    d0 = od * stride[0] - before[0]
                    h0 = oh * stride[1] - before[1]
                    w0 = ow * stride[2] - before[2]
                    for c in range(arg.shape[4]):
                        tap = np.int64(arg[n, od, oh, ow, c])
                        indices[n, od, oh, ow, c] = flat_index(
                            tap, d0, h0, w0, height, width, kernel, dilation
                        )
