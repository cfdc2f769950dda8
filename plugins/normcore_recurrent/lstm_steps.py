"""The steps of lstm, gates i, f, g, o in this order. Arguments as in gates.py.

    i, f, o = s(a)   g = tanh(a)   c' = f c + i g   h' = o tanh(c')
Where the cell is normalized, h' = o tanh(normalized c'), and a step is two kernels with the normalization between:
`gate` up to c' and `output` from it; backward runs them the other way round.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore_recurrent.gates import (
    add_row,
    copy_row,
    fill_row,
    logistic,
    logistic_row,
    pre_activation,
    pre_activations,
    tanh_row,
)

SPLIT = False  # the cell is normalized between `gate` and `output`; of kernels made by with_constants


@inline
def cell_row(i, f, g, c):
    for j in range(c.size):
        c[j] = f[j] * c[j] + i[j] * g[j]


@inline
def product_row(o, v, h):
    for j in range(h.size):
        h[j] = o[j] * v[j]


@inline
def output_gradients(o, v, total, da, dcell):
    """total: gradient of h'; da to o's pre-activation, dcell to the argument of the last tanh."""
    for j in range(dcell.size):
        g = total[j]
        da[j] = g * v[j] * o[j] * (real(1) - o[j])
        dcell[j] = g * o[j] * (real(1) - v[j] * v[j])


@inline
def gate_gradients(i, f, g, before, dcell, dc, di, df, dg):
    """dc: gradient of c' from later steps; becomes that of c."""
    for j in range(dc.size):
        d = dc[j] + dcell[j]
        di[j] = d * g[j] * i[j] * (real(1) - i[j])
        df[j] = d * before[j] * f[j] * (real(1) - f[j])
        dg[j] = d * i[j] * (real(1) - g[j] * g[j])
        dc[j] = d * f[j]


@inline
def total_row(carry, back, total):
    for j in range(total.size):
        total[j] = carry[j] + back[j]


@inline
def emit(cell, o, h, kept, seq, off, t, n, live):
    """Row n of h, kept and seq from the (normalized) cell."""
    size = h.shape[1]
    if live:
        copy_row(cell, kept[n, t])
        tanh_row(kept[n, t])
        product_row(o, kept[n, t], h[n])
    else:
        fill_row(kept[n, t], real(0))
    if seq.size > 0:
        if live:
            copy_row(h[n], seq[n, t, off : off + size])
        else:
            fill_row(seq[n, t, off : off + size], real(0))


@cpu
def gate_cpu(gx, gh, bias, more, gates, h, c, before, c_before, kept, seq, off, lengths, t):
    for row in prange(h.shape[0]):
        n = np.int64(row)
        size = h.shape[1]
        copy_row(h[n], before[n, t])
        copy_row(c[n], c_before[n, t])
        live = t < lengths[n]
        g = gates[n, t]
        if live:
            pre_activations(gx[n, t], gh[n], bias, more, g)
            logistic_row(g[: 2 * size])
            tanh_row(g[2 * size : 3 * size])
            logistic_row(g[3 * size :])
            cell_row(g[:size], g[size : 2 * size], g[2 * size : 3 * size], c[n])
        else:
            fill_row(g, real(0))
        if not SPLIT:
            emit(c[n], g[3 * size :], h, kept, seq, off, t, n, live)


@cpu
def output_cpu(cell, gates, h, kept, seq, off, lengths, t):
    for row in prange(h.shape[0]):
        n = np.int64(row)
        emit(cell[n], gates[n, t, 3 * h.shape[1] :], h, kept, seq, off, t, n, t < lengths[n])


@inline
def through_output(gates, kept, dseq, off, carry, back, dgx, dcell, lengths, t, n, total):
    size = carry.shape[1]
    total_row(carry[n], back[n], total)
    if t < lengths[n]:
        if dseq.size > 0:
            add_row(dseq[n, t, off : off + size], total)
        o, da = gates[n, t, 3 * size :], dgx[n, t, 3 * size :]
        output_gradients(o, kept[n, t], total, da, dcell[n])
        fill_row(carry[n], real(0))
    else:
        copy_row(total, carry[n])
        fill_row(dgx[n, t], real(0))
        fill_row(dcell[n], real(0))


@inline
def through_gates(gates, c_before, dcell, dc, dgx, step, lengths, t, cut, n):
    size = dc.shape[1]
    g, d = gates[n, t], dgx[n, t]
    if t < lengths[n]:
        gate_gradients(
            g[:size], g[size : 2 * size], g[2 * size : 3 * size], c_before[n, t], dcell[n], dc[n],
            d[:size], d[size : 2 * size], d[2 * size : 3 * size],
        )  # fmt: skip
        copy_row(d, step[n])
        if cut:
            fill_row(step[n], real(0))
            fill_row(dc[n], real(0))
    else:
        fill_row(step[n], real(0))


@cpu
def backward_cpu(
    gates, c_before, kept, dseq, off, carry, back, dc, dgx, dcell, step, lengths, t, cut
):  # fmt: skip
    for row in prange(carry.shape[0]):
        n = np.int64(row)
        total = step[n, : carry.shape[1]]
        through_output(gates, kept, dseq, off, carry, back, dgx, dcell, lengths, t, n, total)
        through_gates(gates, c_before, dcell, dc, dgx, step, lengths, t, cut, n)


@cpu
def output_gradient_cpu(gates, kept, dseq, off, carry, back, dgx, dcell, step, lengths, t):
    for row in prange(carry.shape[0]):
        n = np.int64(row)
        total = step[n, : carry.shape[1]]
        through_output(gates, kept, dseq, off, carry, back, dgx, dcell, lengths, t, n, total)


@cpu
def gate_gradient_cpu(gates, c_before, dcell, dc, dgx, step, lengths, t, cut):
    for row in prange(dc.shape[0]):
        through_gates(gates, c_before, dcell, dc, dgx, step, lengths, t, cut, np.int64(row))


# -- CUDA: a thread a unit -----------------------------------------------------------------------------------


@inline
def emit_one(cell, o, h, kept, seq, off, t, n, j, live):
    v, new = real(0), real(0)
    if live:
        v = math.tanh(cell)
        new = o * v
        h[n, j] = new
    kept[n, t, j] = v
    if seq.size > 0:
        seq[n, t, off + j] = new


@cuda
def gate_cuda(gx, gh, bias, more, gates, h, c, before, c_before, kept, seq, off, lengths, t):
    size = h.shape[1]
    for k in range(cu.grid(1), h.size, cu.gridsize(1)):
        n = k // size
        j = k - n * size
        live = t < lengths[n]
        old = c[n, j]
        before[n, t, j] = h[n, j]
        c_before[n, t, j] = old
        i, f, g, o, new = real(0), real(0), real(0), real(0), old
        if live:
            i = logistic(pre_activation(gx, gh, bias, more, n, t, j))
            f = logistic(pre_activation(gx, gh, bias, more, n, t, size + j))
            g = math.tanh(pre_activation(gx, gh, bias, more, n, t, 2 * size + j))
            o = logistic(pre_activation(gx, gh, bias, more, n, t, 3 * size + j))
            new = f * old + i * g
            c[n, j] = new
        gates[n, t, j] = i
        gates[n, t, size + j] = f
        gates[n, t, 2 * size + j] = g
        gates[n, t, 3 * size + j] = o
        if not SPLIT:
            emit_one(new, o, h, kept, seq, off, t, n, j, live)


@cuda
def output_cuda(cell, gates, h, kept, seq, off, lengths, t):
    size = h.shape[1]
    for k in range(cu.grid(1), h.size, cu.gridsize(1)):
        n = k // size
        j = k - n * size
        emit_one(cell[n, j], gates[n, t, 3 * size + j], h, kept, seq, off, t, n, j, t < lengths[n])


@inline
def output_gradient_one(gates, kept, dseq, off, carry, back, dgx, dcell, lengths, t, n, j):
    size = carry.shape[1]
    total = carry[n, j] + back[n, j]
    da, d = real(0), real(0)
    if t < lengths[n]:
        if dseq.size > 0:
            total += dseq[n, t, off + j]
        o, v = gates[n, t, 3 * size + j], kept[n, t, j]
        da = total * v * o * (real(1) - o)
        d = total * o * (real(1) - v * v)
        total = real(0)
    carry[n, j] = total
    dgx[n, t, 3 * size + j] = da
    dcell[n, j] = d


@inline
def gate_gradient_one(gates, c_before, dcell, dc, dgx, step, lengths, t, cut, n, j):
    size = dc.shape[1]
    di, df, dg = real(0), real(0), real(0)
    live = t < lengths[n]
    if live:
        i, f, g = gates[n, t, j], gates[n, t, size + j], gates[n, t, 2 * size + j]
        d = dc[n, j] + dcell[n, j]
        di = d * g * i * (real(1) - i)
        df = d * c_before[n, t, j] * f * (real(1) - f)
        dg = d * i * (real(1) - g * g)
        dc[n, j] = real(0) if cut else d * f
    dgx[n, t, j] = di
    dgx[n, t, size + j] = df
    dgx[n, t, 2 * size + j] = dg
    flows = live and not cut
    step[n, j] = di if flows else real(0)
    step[n, size + j] = df if flows else real(0)
    step[n, 2 * size + j] = dg if flows else real(0)
    step[n, 3 * size + j] = dgx[n, t, 3 * size + j] if flows else real(0)


@cuda
def backward_cuda(gates, c_before, kept, dseq, off, carry, back, dc, dgx, dcell, step, lengths, t, cut):
    size = carry.shape[1]
    for k in range(cu.grid(1), carry.size, cu.gridsize(1)):
        n = k // size
        j = k - n * size
        output_gradient_one(gates, kept, dseq, off, carry, back, dgx, dcell, lengths, t, n, j)
        gate_gradient_one(gates, c_before, dcell, dc, dgx, step, lengths, t, cut, n, j)


@cuda
def output_gradient_cuda(gates, kept, dseq, off, carry, back, dgx, dcell, step, lengths, t):
    size = carry.shape[1]
    for k in range(cu.grid(1), carry.size, cu.gridsize(1)):
        output_gradient_one(
            gates, kept, dseq, off, carry, back, dgx, dcell, lengths, t, k // size, k % size
        )  # fmt: skip


@cuda
def gate_gradient_cuda(gates, c_before, dcell, dc, dgx, step, lengths, t, cut):
    size = dc.shape[1]
    for k in range(cu.grid(1), dc.size, cu.gridsize(1)):
        gate_gradient_one(gates, c_before, dcell, dc, dgx, step, lengths, t, cut, k // size, k % size)
