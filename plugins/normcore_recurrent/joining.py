"""Small moves between steps: the sum of both shares, the last state, what truncation cuts."""

import numpy as np

from normcore.kernels import cpu, cu, cuda, prange, real
from normcore_recurrent.gates import copy_row, fill_row, sum_rows


@cpu
def join_cpu(gx, gh, t, out):
    """out (N, W) = gx (N, T, W) at step t + gh (N, W)."""
    for n in prange(gh.shape[0]):
        sum_rows(gx[n, t], gh[n], out[n])


@cuda
def join_cuda(gx, gh, t, out):
    width = gh.shape[1]
    for i in range(cu.grid(1), gh.size, cu.gridsize(1)):
        n = i // width
        j = i - n * width
        out[n, j] = gx[n, t, j] + gh[n, j]


@cpu
def step_cpu(draw, t, step, cut):
    """step (N, W) = draw (N, T, W) at step t, or zero."""
    for n in prange(step.shape[0]):
        if cut:
            fill_row(step[n], real(0))
        else:
            copy_row(draw[n, t], step[n])


@cuda
def step_cuda(draw, t, step, cut):
    width = step.shape[1]
    for i in range(cu.grid(1), step.size, cu.gridsize(1)):
        n = i // width
        step[n, i - n * width] = real(0) if cut else draw[n, t, i - n * width]


@cpu
def columns_cpu(source, source_at, target, target_at, width):
    """`width` columns of every row from one array to another."""
    for row in prange(source.shape[0]):
        n = np.int64(row)
        copy_row(source[n, source_at : source_at + width], target[n, target_at : target_at + width])


@cuda
def columns_cuda(source, source_at, target, target_at, width):
    for i in range(cu.grid(1), source.shape[0] * width, cu.gridsize(1)):
        n = i // width
        target[n, target_at + i - n * width] = source[n, source_at + i - n * width]


@cpu
def fill_cpu(array, value):
    """A flat array."""
    for piece in prange((array.size + 8191) // 8192):
        fill_row(array[np.int64(piece) * 8192 : (np.int64(piece) + 1) * 8192], real(value))


@cuda
def fill_cuda(array, value):
    for i in range(cu.grid(1), array.size, cu.gridsize(1)):
        array[i] = real(value)
