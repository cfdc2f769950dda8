"""Small moves between steps: the sum of both shares, the last state, what truncation cuts, where padding begins.

They move a few kilobytes each, for which NumPy is as fast on the CPU as a kernel, and needs no compiling.
"""

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real


def join_cpu(gx, gh, t, out):
    """out (N, W) = gx (N, T, W) at step t + gh (N, W)."""
    np.add(gx[:, t], gh, out=out)


@cuda
def join_cuda(gx, gh, t, out):
    width = gh.shape[1]
    for i in range(cu.grid(1), gh.size, cu.gridsize(1)):
        n = i // width
        j = i - n * width
        out[n, j] = gx[n, t, j] + gh[n, j]


def step_cpu(draw, t, step, cut):
    """step (N, W) = draw (N, T, W) at step t, or zero."""
    if cut:
        step.fill(0)
    else:
        np.copyto(step, draw[:, t])


@cuda
def step_cuda(draw, t, step, cut):
    width = step.shape[1]
    for i in range(cu.grid(1), step.size, cu.gridsize(1)):
        n = i // width
        step[n, i - n * width] = real(0) if cut else draw[n, t, i - n * width]


def columns_cpu(source, source_at, target, target_at, width):
    """`width` columns of every row from one array to another."""
    np.copyto(target[:, target_at : target_at + width], source[:, source_at : source_at + width])


@cuda
def columns_cuda(source, source_at, target, target_at, width):
    for i in range(cu.grid(1), source.shape[0] * width, cu.gridsize(1)):
        n = i // width
        target[n, target_at + i - n * width] = source[n, source_at + i - n * width]


def fill_cpu(array, value):
    """A flat array."""
    array.fill(value)


@cuda
def fill_cuda(array, value):
    for i in range(cu.grid(1), array.size, cu.gridsize(1)):
        array[i] = real(value)


@inline
def steps_before_padding(x, padding):
    """The steps of x (T, C) up to the last one with a feature that is not `padding`; NaN is none."""
    for t in range(x.shape[0] - 1, -1, -1):
        for c in range(x.shape[1]):
            if x[t, c] != padding:
                return t + 1
    return 0


@cpu
def ends_cpu(x, padding, lengths):
    for row in prange(x.shape[0]):
        n = np.int64(row)
        lengths[n] = steps_before_padding(x[n], real(padding))


@cuda
def ends_cuda(x, padding, lengths):
    """A thread a sequence: it mostly looks at a step or two."""
    for n in range(cu.grid(1), x.shape[0], cu.gridsize(1)):
        lengths[n] = steps_before_padding(x[n], real(padding))


def launcher(t, kernels, extent):
    """What runs the CPU or the CUDA kernel of a pair; to be looked up once, not at every step."""
    return kernels[0][t] if t.device.name == "cpu" else kernels[1][t, extent]
