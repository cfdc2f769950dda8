"""The steps of rnn: h = tanh(a) or relu(a), a = gx + gh. Arguments as in gates.py."""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.select import select
from normcore_recurrent.gates import (
    arriving_row,
    copy_row,
    emit_row,
    fill_row,
    pre_activation,
    sum_rows,
    tanh_row,
)


@inline
def slope(v, relu):
    """The activation's derivative, from its value."""
    if relu:
        return real(1) if v > real(0) else real(0)
    return real(1) - v * v


@inline(force=True)
def relu_row(v):
    for j in range(v.size):
        v[j] = select(v[j] <= real(0), real(0), v[j])


@inline(force=True)
def gradient_row(v, total, da, relu):
    for j in range(da.size):
        da[j] = total[j] * slope(v[j], relu)


@cpu
def forward_cpu(gx, gh, gates, h, before, seq, off, lengths, t, relu):
    for row in prange(h.shape[0]):
        n = np.int64(row)
        copy_row(h[n], before[n, t])
        live = t < lengths[n]
        if live:
            if gx.size > 0:
                sum_rows(gx[n, t], gh[n], gates[n, t])
            else:
                copy_row(gh[n], gates[n, t])
            if relu:
                relu_row(gates[n, t])
            else:
                tanh_row(gates[n, t])
            copy_row(gates[n, t], h[n])
        else:
            fill_row(gates[n, t], real(0))
        emit_row(h, seq, n, t, off, live)


@cpu
def backward_cpu(gates, dseq, off, carry, back, dgx, step, lengths, t, cut, relu):
    for row in prange(carry.shape[0]):
        n = np.int64(row)
        live = t < lengths[n]
        arriving_row(carry, back, dseq, n, t, off, live, step[n])
        if live:
            gradient_row(gates[n, t], step[n], dgx[n, t], relu)
            copy_row(dgx[n, t], step[n])
            fill_row(carry[n], real(0))
        else:
            copy_row(step[n], carry[n])
            fill_row(dgx[n, t], real(0))
        if cut or not live:
            fill_row(step[n], real(0))


@cuda
def forward_cuda(gx, gh, bias, more, gates, h, before, seq, off, lengths, t, relu):
    """A thread a unit."""
    size = h.shape[1]
    for i in range(cu.grid(1), h.size, cu.gridsize(1)):
        n = i // size
        j = i - n * size
        live = t < lengths[n]
        before[n, t, j] = h[n, j]
        v = real(0)
        if live:
            v = pre_activation(gx, gh, bias, more, n, t, j)
            if relu:
                v = real(0) if v <= real(0) else v
            else:
                v = math.tanh(v)
            h[n, j] = v
        gates[n, t, j] = v
        if seq.size > 0:
            seq[n, t, off + j] = v


@cuda
def backward_cuda(gates, dseq, off, carry, back, dgx, step, lengths, t, cut, relu):
    size = carry.shape[1]
    for i in range(cu.grid(1), carry.size, cu.gridsize(1)):
        n = i // size
        j = i - n * size
        total = carry[n, j] + back[n, j]
        da = real(0)
        if t < lengths[n]:
            if dseq.size > 0:
                total += dseq[n, t, off + j]
            da = total * slope(gates[n, t, j], relu)
            total = real(0)
        carry[n, j] = total
        dgx[n, t, j] = da
        step[n, j] = real(0) if cut else da
