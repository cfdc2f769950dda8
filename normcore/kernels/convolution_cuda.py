"""Convolution of channels-last arrays and dense layers on the GPU: windows laid out as rows, products by
cuBLAS.

    columns (M, K) of x: a row for each output pixel, K = taps * channels of the group, channels fastest
    y = columns weight^T        dweight = g^T columns        dx = the sum, for each input element, of the
                                                             elements of g weight that came from it (a gather)

Groups are a batch of products. A pointwise convolution, and so a dense layer, needs no columns: x is them.
Samples are taken in portions that bound the columns' memory, which is the device's scratch: one buffer for
all layers. Products run in full precision (no TF32), sums over portions in order, so the same bits come out
every time.
"""

import math
from typing import Any

import numpy as np

from normcore.kernels import cu, cuda, epilogue, epilogue_gradient, inline, real
from normcore.kernels.accumulate import accumulate
from normcore.kernels.convolution import Convolution, told_from

PORTION = 1 << 25  # elements of columns held at once: 128 MB of float32


@inline
def source_index(out, tap, stride, before, dilation):
    """Where along one dimension a tap of an output pixel's window lies in the input; maybe outside."""
    return out * stride - before + tap * dilation


@inline
def target_index(at, tap, stride, before, dilation, size):
    """The output pixel whose tap lies at an input pixel, or -1."""
    far = at + before - tap * dilation
    if far < 0 or far % stride != 0 or far // stride >= size:
        return -1
    return far // stride


@cuda
def _columns_cuda(x, columns, size, out, kernel, stride, before, dilation):
    """x (N, D, H, W, C) into columns (G, M, K)."""
    groups, rows, width = columns.shape
    inner = x.shape[4] // groups
    for i in range(cu.grid(1), columns.size, cu.gridsize(1)):
        k = i % width
        m = i // width % rows
        g = i // width // rows
        tap = k // inner
        c = g * inner + k - tap * inner
        w = source_index(m % out[2], tap % kernel[2], stride[2], before[2], dilation[2])
        h = source_index(
            m // out[2] % out[1], tap // kernel[2] % kernel[1], stride[1], before[1], dilation[1]
        )
        pixel = m // out[2] // out[1]
        d = source_index(pixel % out[0], tap // kernel[2] // kernel[1], stride[0], before[0], dilation[0])
        inside = d >= 0 and d < size[0] and h >= 0 and h < size[1] and w >= 0 and w < size[2]
        columns[g, m, k] = x[pixel // out[0], d, h, w, c] if inside else real(0)


@cuda
def _gather_cuda(columns, dx, size, out, kernel, stride, before, dilation):
    """dx (N, D, H, W, C): the sum of the columns' elements that _columns_cuda took from each place."""
    groups = columns.shape[0]
    channels = dx.shape[4]
    inner = channels // groups
    for i in range(cu.grid(1), dx.size, cu.gridsize(1)):
        c = i % channels
        w = i // channels % size[2]
        h = i // channels // size[2] % size[1]
        pixel = i // channels // size[2] // size[1]
        d = pixel % size[0]
        n = pixel // size[0]
        g = c // inner
        total = real(0)
        for a in range(kernel[0]):
            od = target_index(d, a, stride[0], before[0], dilation[0], out[0])
            if od >= 0:
                for b in range(kernel[1]):
                    oh = target_index(h, b, stride[1], before[1], dilation[1], out[1])
                    if oh >= 0:
                        for e in range(kernel[2]):
                            ow = target_index(w, e, stride[2], before[2], dilation[2], out[2])
                            if ow >= 0:
                                m = ((n * out[0] + od) * out[1] + oh) * out[2] + ow
                                tap = (a * kernel[1] + b) * kernel[2] + e
                                total += columns[g, m, tap * inner + c - g * inner]
        dx[n, d, h, w, c] = total


@cuda
def _finish_cuda(product, bias, z, y, e):
    """z (M, O) = product (G, M, O / G) + bias and y (M, O) = epilogue(z); an empty z is not kept.

    product may be the memory of z, or of y where z is empty, when G is 1.
    """
    outer = product.shape[2]
    for i in range(cu.grid(1), y.size, cu.gridsize(1)):
        o = i % y.shape[1]
        m = i // y.shape[1]
        g = o // outer
        v = product[g, m, o - g * outer]
        if bias.size > 0:
            v += bias[o]
        if z.size > 0:
            z[m, o] = v
        y[m, o] = epilogue(v, e)


@cuda
def _output_gradient_cuda(known, dy, g, e):
    for i in range(cu.grid(1), g.size, cu.gridsize(1)):
        g[i] = epilogue_gradient(known[i], known[i], dy[i], e)


@cuda
def _swap_cuda(source, target):
    """(O, A, B) to (O, B, A): weights between channels first and taps first."""
    a, b = source.shape[1], source.shape[2]
    for i in range(cu.grid(1), source.size, cu.gridsize(1)):
        p = i // b % a
        target[i // b // a, i % b, p] = source[i // b // a, p, i % b]


@cuda
def _grouped_cuda(flat, grouped):
    """(M, O) to (G, M, O / G)."""
    rows, outer = grouped.shape[1], grouped.shape[2]
    for i in range(cu.grid(1), grouped.size, cu.gridsize(1)):
        m = i // outer % rows
        g = i // outer // rows
        grouped[g, m, i % outer] = flat[m, g * outer + i % outer]


class _Sizes:
    """The sizes of the products for a convolution, and how many samples a portion takes."""

    def __init__(self, c: Convolution):
        self.groups, self.taps, self.pixels = c.groups, math.prod(c.kernel), math.prod(c.out)
        self.inner, self.outer = c.in_channels // c.groups, c.out_channels // c.groups
        self.width = self.taps * self.inner
        whole = c.kernel == c.stride == (1, 1, 1) and c.before == (0, 0, 0) and c.out == c.size
        self.direct = whole and c.groups == 1  # x is its own columns
        self.samples = c.batch
        if not self.direct:
            self.samples = max(1, min(c.batch, PORTION // max(1, self.pixels * self.groups * self.width)))
        self.rows = self.samples * self.pixels

    def portions(self, batch: int) -> list[tuple[int, int]]:
        return [(n, min(batch, n + self.samples)) for n in range(0, batch, self.samples)]

    def matrix(self, array: Any) -> Any:
        return array.reshape(self.groups, self.outer, self.width)


def _carve(t: Any, dtype: str, *sizes: int) -> list[Any]:
    """Arrays of these numbers of elements from the device's scratch."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // 64) * 64)  # cuBLAS likes aligned operands
    memory = t.device.scratch(starts[-1] * np.dtype(dtype).itemsize).view(dtype)
    return [memory[start : start + size] for start, size in zip(starts, sizes, strict=False)]


def _weights(t: Any, c: Convolution, s: _Sizes, target: Any) -> Any:
    """The weights (G, O / G, K), taps first; their own memory where that is the same."""
    if s.taps == 1 or s.inner == 1:
        return s.matrix(t.weight)
    _swap_cuda[t, t.weight.size](
        t.weight.reshape(c.out_channels, s.inner, s.taps), target.reshape(c.out_channels, s.taps, s.inner)
    )
    return s.matrix(target)


def _columns(t: Any, c: Convolution, s: _Sizes, memory: Any, low: int, high: int) -> Any:
    """The columns (G, M, K) of samples low to high."""
    rows = (high - low) * s.pixels
    x = t.x.reshape(c.batch, *c.size, c.in_channels)[low:high]
    if s.direct:
        return x.reshape(1, rows, s.width)
    columns = memory[: s.groups * rows * s.width].reshape(s.groups, rows, s.width)
    _columns_cuda[t, columns.size](x, columns, c.size, c.out, c.kernel, c.stride, c.before, c.dilation)
    return columns


def _product(t: Any, a: Any, b: Any, out: Any) -> None:
    """Batched where there are groups; single matrices take cuBLAS's plain call."""
    if len(a) == 1:
        t.device.matmul(a[0], b[0], out[0])
    else:
        t.device.matmul(a, b, out)


def forward(t: Any, c: Convolution) -> None:
    """t.y from t.x, t.weight and t.bias, with the fused epilogue."""
    if not t.y.size:
        return
    s = _Sizes(c)
    single = s.groups == 1
    held = 0 if s.direct else s.groups * s.rows * s.width
    memory, weight, product = _carve(
        t, c.dtype, held, t.weight.size, 0 if single else s.rows * c.out_channels
    )
    weights = _weights(t, c, s, weight).transpose(0, 2, 1)
    y = t.y.reshape(c.batch * s.pixels, c.out_channels)
    kept = t.variant.chain is not None and t.z is not None
    z = t.z.reshape(y.shape) if kept else y[:0]
    bias = t.bias if c.bias else y[0][:0]
    for low, high in s.portions(c.batch):
        columns = _columns(t, c, s, memory, low, high)
        rows = columns.shape[1]
        part = y[low * s.pixels : high * s.pixels]
        before = z[low * s.pixels : high * s.pixels]  # empty where none is kept
        grouped = (before if kept else part).reshape(1, rows, s.outer) if single else None
        if grouped is None:
            grouped = product[: part.size].reshape(s.groups, rows, s.outer)
        _product(t, columns, weights, grouped)
        if not single or c.bias or t.variant.chain is not None:
            _finish_cuda[t, part.size](grouped, bias, before, part, t.e)


def backward(t: Any, c: Convolution) -> None:
    """t.dx (unless None), t.dweight and t.dbias from t.x, t.dy and t.weight, and t.y or t.z where
    an epilogue is fused."""
    if not t.dy.size:
        t.dweight[...] = 0
        if c.bias:
            t.dbias[...] = 0
        if t.dx is not None:
            t.dx[...] = 0
        return
    s = _Sizes(c)
    gradient = t.dy.reshape(-1)
    if t.variant.chain is not None:
        before = t.gradient[: gradient.size]  # dense.py asks for more
        _output_gradient_cuda[t, gradient.size](told_from(t), gradient, before, t.e)
        gradient = before
    gradient = gradient.reshape(c.batch * s.pixels, c.out_channels)
    held = 0 if s.direct and t.dx is None else s.groups * s.rows * s.width
    count = t.weight.size
    memory, weight, total, more, grouped, ones = _carve(
        *(t, c.dtype, held, count, count, count, 0 if s.groups == 1 else s.rows * c.out_channels),
        len(gradient) if c.bias else 0,
    )
    if c.bias:
        ones[...] = 1
        t.device.matmul(ones.reshape(1, -1), gradient, t.dbias.reshape(1, -1))
    weights = _weights(t, c, s, weight)
    for low, high in s.portions(c.batch):
        part = gradient[low * s.pixels : high * s.pixels]
        if s.groups == 1:
            g = part.reshape(1, len(part), s.outer)
        else:
            g = grouped[: part.size].reshape(s.groups, len(part), s.outer)
            _grouped_cuda[t, part.size](part, g)
        columns = _columns(t, c, s, memory, low, high)
        _product(t, g.transpose(0, 2, 1), columns, s.matrix(more if low else total))
        if low:
            accumulate(t, (total, more), total)
        if t.dx is not None:
            _input_gradient(t, c, s, g, weights, memory, low, high)
    if s.taps == 1 or s.inner == 1:
        t.dweight.reshape(-1)[...] = total
    else:
        _swap_cuda[t, count](
            total.reshape(c.out_channels, s.taps, s.inner), t.dweight.reshape(c.out_channels, s.inner, s.taps)
        )


def _input_gradient(
    t: Any, c: Convolution, s: _Sizes, g: Any, weights: Any, memory: Any, low: int, high: int
) -> None:
    dx = t.dx.reshape(c.batch, *c.size, c.in_channels)[low:high]
    rows = g.shape[1]
    if s.direct:
        t.device.matmul(g[0], weights[0], dx.reshape(rows, s.width))
        return
    columns = memory[: s.groups * rows * s.width].reshape(s.groups, rows, s.width)
    _product(t, g, weights, columns)
    _gather_cuda[t, dx.size](columns, dx, c.size, c.out, c.kernel, c.stride, c.before, c.dilation)
