"""Local response normalization on CUDA. Arrays are flat; they stand for (A, D, H, W, B), see local_response_scalars.py.

A thread takes COUNT neighbouring elements along B (LANES, 16 bytes at once, where B is a multiple of that, else 1) at
a run of places along W, so that the window's elements are still in the L1 cache when the next place needs them.
Backward's first pass writes t and u, its second adds u up over the boxes that hold an element. Numbers whose s leaves
float32 are rare: they come out as NaN, `flags` tells, and a last pass computes what is NaN again in float64, each
element on its own; it is a kernel of its own because it takes many registers.
"""

import numpy as np

from normcore.kernels import LANES, cu, cuda, inline, real, wide
from normcore.kernels.lanes import give_columns, split, take_columns
from normcore.kernels.packs import PACK_BYTES, aligned, load_one, store_one
from normcore_normalization.local_response_scalars import LEAST, MOST, power, power_wide

COUNT = 1  # elements of a thread's step: 1 or LANES
NAN = float("nan")


@inline
def place(item, shape, run):
    """(row, first w, b): the item-th run of places along W, at the thread's elements of B. A row is an (a, d, h)."""
    _, _, _, width, inner = shape
    rest, slot = split(item, inner // COUNT)
    row, k = split(rest, (width + run - 1) // run)
    return row, k * run, slot * COUNT


@inline
def items(shape, run):
    a, d, h, width, inner = shape
    return a * d * h * ((width + run - 1) // run) * (inner // COUNT)


@inline
def box_of(row, w, shape, before, window):
    """The row of d = h = 0 of the same a, and where the box of an element begins and ends along d, h and w."""
    _, depth, height, width, _ = shape
    rest, h = split(row, height)
    d = rest % depth
    d0, h0, w0 = d - before[0], h - before[1], w - before[2]
    along_d = (max(0, d0), min(depth, d0 + window[0]))
    along_h = (max(0, h0), min(height, h0 + window[1]))
    return row - d * height - h, along_d, along_h, (max(0, w0), min(width, w0 + window[2]))


@inline
def box_sum(x, square, row, w, b, shape, before, window, whole, v, total):
    """total = the sums over the boxes of the thread's elements: of x, or of its squares."""
    _, _, height, width, inner = shape
    first, along_d, along_h, along_w = box_of(row, w, shape, before, window)
    for j in range(COUNT):
        total[j] = 0
    for d in range(along_d[0], along_d[1]):
        for h in range(along_h[0], along_h[1]):
            lo = (first + d * height + h) * width
            for m in range(along_w[0], along_w[1]):
                take_columns(x, (lo + m) * inner + b, COUNT, whole, v)
                for j in range(COUNT):
                    total[j] += v[j] * v[j] if square else v[j]


@inline
def whole_real(t):
    """Whether the thread's elements of an array in the kernel's precision are one load of 16 bytes."""
    return (COUNT == LANES) & (LANES <= 4) & aligned(t, 0)


@inline
def usable(s):
    """Whether no power of s leaves the kernel's precision."""
    return s >= real(LEAST) and s <= real(MOST)


@inline
def scale_and_power(squares, flags, alpha, k, beta):
    """s, and s^-beta: NaN, and the flag is set, where s is not usable."""
    s = k + alpha * squares
    if usable(s):
        return s, power(s, beta)
    flags[0] = 1
    return s, real(NAN)


@cuda
def forward_cuda(x, y, flags, shape, run, before, window, alpha, k, beta):
    v = cu.local.array(LANES, real)
    total = cu.local.array(LANES, real)
    whole = (COUNT == LANES) & aligned(x, 0) & aligned(y, 0)
    for item in range(cu.grid(1), items(shape, run), cu.gridsize(1)):
        row, first, b = place(item, shape, run)
        for w in range(first, min(shape[3], first + run)):
            at = (row * shape[3] + w) * shape[4] + b
            box_sum(x, True, row, w, b, shape, before, window, whole, v, total)
            take_columns(x, at, COUNT, whole, v)
            for j in range(COUNT):
                _, factor = scale_and_power(total[j], flags, alpha, k, beta)
                v[j] *= factor
            give_columns(y, at, COUNT, whole, v)


@cuda
def shares_cuda(x, dy, t, u, flags, shape, run, before, window, alpha, k, beta):
    """t = dy s^-beta, u = dy x s^(-beta - 1)."""
    v = cu.local.array(LANES, real)
    g = cu.local.array(LANES, real)
    total = cu.local.array(LANES, real)
    whole = (COUNT == LANES) & aligned(x, 0) & aligned(dy, 0)
    own = whole_real(t) & whole_real(u)
    for item in range(cu.grid(1), items(shape, run), cu.gridsize(1)):
        row, first, b = place(item, shape, run)
        for w in range(first, min(shape[3], first + run)):
            at = (row * shape[3] + w) * shape[4] + b
            box_sum(x, True, row, w, b, shape, before, window, whole, v, total)
            take_columns(x, at, COUNT, whole, v)
            take_columns(dy, at, COUNT, whole, g)
            for j in range(COUNT):
                s, factor = scale_and_power(total[j], flags, alpha, k, beta)
                g[j] *= factor
                v[j] = g[j] * (v[j] / s)
            give_columns(t, at, COUNT, own, g)
            give_columns(u, at, COUNT, own, v)


@cuda
def gather_cuda(x, t, u, dx, shape, run, before, window, along):
    """along: 2 alpha beta. before: of the boxes that hold an element."""
    v = cu.local.array(LANES, real)
    share = cu.local.array(LANES, real)
    total = cu.local.array(LANES, real)
    whole = (COUNT == LANES) & aligned(x, 0) & aligned(dx, 0)
    own = whole_real(t) & whole_real(u)
    for item in range(cu.grid(1), items(shape, run), cu.gridsize(1)):
        row, first, b = place(item, shape, run)
        for w in range(first, min(shape[3], first + run)):
            at = (row * shape[3] + w) * shape[4] + b
            box_sum(u, False, row, w, b, shape, before, window, own, v, total)
            take_columns(x, at, COUNT, whole, v)
            take_columns(t, at, COUNT, own, share)
            for j in range(COUNT):
                v[j] = share[j] - along * v[j] * total[j]
            give_columns(dx, at, COUNT, whole, v)


# -- in float64, where float32 cannot hold s --------------------------------------------------------------------


@inline
def scale_wide(x, row, w, b, shape, before, window, alpha, k):
    _, _, height, width, inner = shape
    first, along_d, along_h, along_w = box_of(row, w, shape, before, window)
    total = wide(0)
    for d in range(along_d[0], along_d[1]):
        for h in range(along_h[0], along_h[1]):
            for m in range(along_w[0], along_w[1]):
                v = wide(load_one(x, ((first + d * height + h) * width + m) * inner + b))
                total += v * v
    return k + alpha * total


@cuda
def forward_wide_cuda(x, y, flags, shape, before, window, alpha, k, beta):
    if flags[0] != 0:
        for at in range(cu.grid(1), x.size, cu.gridsize(1)):
            v = load_one(y, at)
            if v != v:
                rest, b = split(at, shape[4])
                row, w = split(rest, shape[3])
                s = scale_wide(x, row, w, b, shape, before, window, alpha, k)
                store_one(y, at, real(wide(load_one(x, at)) * power_wide(s, beta)))


@cuda
def backward_wide_cuda(x, dy, dx, flags, shape, before, after, window, alpha, k, beta):
    """after: as `before`, of the boxes that hold an element."""
    if flags[0] != 0:
        _, _, height, width, inner = shape
        for at in range(cu.grid(1), x.size, cu.gridsize(1)):
            v = load_one(dx, at)
            if v != v:
                rest, b = split(at, inner)
                row, w = split(rest, width)
                first, along_d, along_h, along_w = box_of(row, w, shape, after, window)
                total = wide(0)
                for d in range(along_d[0], along_d[1]):
                    for h in range(along_h[0], along_h[1]):
                        other = first + d * height + h
                        for m in range(along_w[0], along_w[1]):
                            q = (other * width + m) * inner + b
                            s = scale_wide(x, other, m, b, shape, before, window, alpha, k)
                            total += wide(load_one(dy, q)) * power_wide(s, beta) * (wide(load_one(x, q)) / s)
                s = scale_wide(x, row, w, b, shape, before, window, alpha, k)
                along = wide(2) * alpha * beta * wide(load_one(x, at))
                store_one(dx, at, real(wide(load_one(dy, at)) * power_wide(s, beta) - along * total))


# -- launching ---------------------------------------------------------------------------------------------


def _constants(g, x, beta):
    """(constants of the kernels, launch extent) for the geometry g."""
    lanes, inner = PACK_BYTES // x.itemsize, g.box[4]
    count = lanes if inner % lanes == 0 else 1
    return {"COUNT": count, "THREE_QUARTERS": beta == 0.75}, g.items // count


def forward(t, g, x, y, alpha, k, beta):
    constants, extent = _constants(g, x, beta)
    t.flags.fill(0)
    how = (g.before, g.window)
    forward_cuda.with_constants(**constants)[t, extent](x, y, t.flags, g.box, g.run, *how, alpha, k, beta)
    exact = forward_wide_cuda.with_constants(THREE_QUARTERS=beta == 0.75)
    exact[t, x.size](x, y, t.flags, g.box, *how, np.float64(alpha), np.float64(k), np.float64(beta))


def backward(t, g, x, dy, dx, alpha, k, beta):
    constants, extent = _constants(g, x, beta)
    t.flags.fill(0)
    after = tuple(size - 1 - front for size, front in zip(g.window, g.before, strict=True))
    real = np.dtype(t.variant.dtype)
    shares, u = t.device.scratch(2 * x.size * real.itemsize).view(real).reshape(2, x.size)
    kernel = shares_cuda.with_constants(**constants)
    kernel[t, extent](x, dy, shares, u, t.flags, g.box, g.run, g.before, g.window, alpha, k, beta)
    kernel = gather_cuda.with_constants(**constants)
    kernel[t, extent](x, shares, u, dx, g.box, g.run, after, g.window, 2.0 * alpha * beta)
    exact = backward_wide_cuda.with_constants(THREE_QUARTERS=beta == 0.75)
    numbers = (np.float64(alpha), np.float64(k), np.float64(beta))
    exact[t, x.size](x, dy, dx, t.flags, g.box, g.before, after, g.window, *numbers)
