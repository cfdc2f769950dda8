"""The steps of rnn: h = tanh(a) or relu(a), a = gx + gh. Arguments as in gates.py."""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore_recurrent.gates import (
    copy_row,
    fill_row,
    pre_activation,
    pre_activations,
    tanh_row,
)

RELU = False  # of kernels made by with_constants(RELU=...)


@inline
def slope(v):
    """The activation's derivative, from its value."""
    if RELU:
        return real(1) if v > real(0) else real(0)
    return real(1) - v * v


@inline
def relu_row(v):
    for j in range(v.size):
        v[j] = real(0) if v[j] <= real(0) else v[j]


@inline
def gradient_row(v, total, da):
    for j in range(da.size):
        da[j] = total[j] * slope(v[j])


@inline
def total_row(carry, back, total):
    for j in range(total.size):
        total[j] = carry[j] + back[j]


@inline
def add_gradient(dseq, total):
    for j in range(total.size):
        total[j] += dseq[j]


@cpu
def forward_cpu(gx, gh, bias, more, gates, h, before, seq, off, lengths, t):
    for row in prange(h.shape[0]):
        n = np.int64(row)
        size = h.shape[1]
        copy_row(h[n], before[n, t])
        live = t < lengths[n]
        if live:
            pre_activations(gx[n, t] if gx.size > 0 else gh[n, :0], gh[n], bias, more, gates[n, t])
            if RELU:
                relu_row(gates[n, t])
            else:
                tanh_row(gates[n, t])
            copy_row(gates[n, t], h[n])
        else:
            fill_row(gates[n, t], real(0))
        if seq.size > 0:
            if live:
                copy_row(h[n], seq[n, t, off : off + size])
            else:
                fill_row(seq[n, t, off : off + size], real(0))


@cpu
def backward_cpu(gates, dseq, off, carry, back, dgx, step, lengths, t, cut):
    for row in prange(carry.shape[0]):
        n = np.int64(row)
        size = carry.shape[1]
        total_row(carry[n], back[n], step[n])
        if t < lengths[n]:
            if dseq.size > 0:
                add_gradient(dseq[n, t, off : off + size], step[n])
            gradient_row(gates[n, t], step[n], dgx[n, t])
            copy_row(dgx[n, t], step[n])
            fill_row(carry[n], real(0))
            if cut:
                fill_row(step[n], real(0))
        else:
            copy_row(step[n], carry[n])
            fill_row(dgx[n, t], real(0))
            fill_row(step[n], real(0))


@cuda
def forward_cuda(gx, gh, bias, more, gates, h, before, seq, off, lengths, t):
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
            if RELU:
                v = real(0) if v <= real(0) else v
            else:
                v = math.tanh(v)
            h[n, j] = v
        gates[n, t, j] = v
        if seq.size > 0:
            seq[n, t, off + j] = v


@cuda
def backward_cuda(gates, dseq, off, carry, back, dgx, step, lengths, t, cut):
    size = carry.shape[1]
    for i in range(cu.grid(1), carry.size, cu.gridsize(1)):
        n = i // size
        j = i - n * size
        total = carry[n, j] + back[n, j]
        da = real(0)
        if t < lengths[n]:
            if dseq.size > 0:
                total += dseq[n, t, off + j]
            da = total * slope(gates[n, t, j])
            total = real(0)
        carry[n, j] = total
        dgx[n, t, j] = da
        step[n, j] = real(0) if cut else da
