"""The steps of lstm, gates i, f, g, o in this order. Arguments as in gates.py.

    i, f, o = s(a)   g = tanh(a)   c' = f c + i g   h' = o tanh(c')
Where the cell is normalized, h' = o tanh(normalized c'), and a step is two launches with the normalization between:
`part` GATES up to c' and OUTPUT from it; backward runs them the other way round. cell (N, H): the argument of tanh;
dcell (N, H): the gradient to it. A step without normalization is one launch, with cell = c and WHOLE.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore_recurrent.gates import (
    add_logistic,
    add_row,
    add_tanh,
    arriving_row,
    copy_row,
    emit_row,
    fill_row,
    logistic,
    pre_activation,
)

WHOLE, GATES, OUTPUT = 0, 1, 2


@inline(force=True)
def cell_row(i, f, g, c):
    for j in range(c.size):
        c[j] = f[j] * c[j] + i[j] * g[j]


@inline(force=True)
def output_row(cell, o, kept, h):
    for j in range(h.size):
        v = math.tanh(cell[j])
        kept[j] = v
        h[j] = o[j] * v


@inline(force=True)
def output_gradients(o, v, total, da, dcell):
    """total: gradient of h'; da to o's pre-activation, dcell to the argument of the last tanh."""
    for j in range(dcell.size):
        g = total[j] * o[j]
        da[j] = g * v[j] * (real(1) - o[j])
        dcell[j] = g * (real(1) - v[j] * v[j])


@inline(force=True)
def factor_gradient(d, other, s, da):
    """To the pre-activation of a logistic s that multiplies `other` in c'; d: gradient of c'."""
    for j in range(da.size):
        da[j] = d[j] * other[j] * s[j] * (real(1) - s[j])


@inline(force=True)
def input_gradient(d, i, g, da):
    for j in range(da.size):
        da[j] = d[j] * i[j] * (real(1) - g[j] * g[j])


@inline(force=True)
def scale_row(factor, v):
    for j in range(v.size):
        v[j] *= factor[j]


@cpu
def forward_cpu(gx, gh, gates, h, c, before, c_before, cell, kept, seq, off, lengths, t, part):
    for row in prange(h.shape[0]):
        n = np.int64(row)
        size = h.shape[1]
        two, three = 2 * size, 3 * size
        live = t < lengths[n]
        g = gates[n, t]
        if part != OUTPUT:
            copy_row(h[n], before[n, t])
            copy_row(c[n], c_before[n, t])
            if live:
                x, y = gx[n, t], gh[n]
                add_logistic(x[:two], y[:two], g[:two])
                add_tanh(x[two:three], y[two:three], g[two:three])
                add_logistic(x[three:], y[three:], g[three:])
                cell_row(g[:size], g[size:two], g[two:three], c[n])
            else:
                fill_row(g, real(0))
        if part != GATES:
            if live:
                output_row(cell[n], g[three:], kept[n, t], h[n])
            else:
                fill_row(kept[n, t], real(0))
            emit_row(h, seq, n, t, off, live)


@cpu
def backward_cpu(gates, c_before, kept, dseq, off, carry, back, dc, dgx, dcell, step, lengths, t, cut, part):
    """GATES turns dc, the gradient of c', into that of c."""
    for row in prange(carry.shape[0]):
        n = np.int64(row)
        size = carry.shape[1]
        two, three = 2 * size, 3 * size
        live = t < lengths[n]
        g, d = gates[n, t], dgx[n, t]
        if part != GATES:
            total = step[n, :size]
            arriving_row(carry, back, dseq, n, t, off, live, total)
            if live:
                output_gradients(g[three:], kept[n, t], total, d[three:], dcell[n])
                fill_row(carry[n], real(0))
            else:
                copy_row(total, carry[n])
                fill_row(d, real(0))
                fill_row(dcell[n], real(0))
        if part != OUTPUT:
            if live:
                add_row(dcell[n], dc[n])
                factor_gradient(dc[n], g[two:three], g[:size], d[:size])
                factor_gradient(dc[n], c_before[n, t], g[size:two], d[size:two])
                input_gradient(dc[n], g[:size], g[two:three], d[two:three])
                scale_row(g[size:two], dc[n])
                copy_row(d, step[n])
                if cut:
                    fill_row(dc[n], real(0))
            if cut or not live:
                fill_row(step[n], real(0))


# -- CUDA: a thread a unit -----------------------------------------------------------------------------------


@cuda
def forward_cuda(
    gx, gh, bias, more, gates, h, c, before, c_before, cell, kept, seq, off, lengths, t, part
):  # fmt: skip
    size = h.shape[1]
    for k in range(cu.grid(1), h.size, cu.gridsize(1)):
        n = k // size
        j = k - n * size
        live = t < lengths[n]
        if part != OUTPUT:
            old = c[n, j]
            before[n, t, j] = h[n, j]
            c_before[n, t, j] = old
            i, f, g, o = real(0), real(0), real(0), real(0)
            if live:
                i = logistic(pre_activation(gx, gh, bias, more, n, t, j))
                f = logistic(pre_activation(gx, gh, bias, more, n, t, size + j))
                g = math.tanh(pre_activation(gx, gh, bias, more, n, t, 2 * size + j))
                o = logistic(pre_activation(gx, gh, bias, more, n, t, 3 * size + j))
                c[n, j] = f * old + i * g
            gates[n, t, j] = i
            gates[n, t, size + j] = f
            gates[n, t, 2 * size + j] = g
            gates[n, t, 3 * size + j] = o
        if part != GATES:
            v, new = real(0), real(0)
            if live:
                v = math.tanh(cell[n, j])
                new = gates[n, t, 3 * size + j] * v
                h[n, j] = new
            kept[n, t, j] = v
            if seq.size > 0:
                seq[n, t, off + j] = new


@cuda
def backward_cuda(gates, c_before, kept, dseq, off, carry, back, dc, dgx, dcell, step, lengths, t, cut, part):
    size = carry.shape[1]
    for k in range(cu.grid(1), carry.size, cu.gridsize(1)):
        n = k // size
        j = k - n * size
        live = t < lengths[n]
        if part != GATES:
            total = carry[n, j] + back[n, j]
            da, d = real(0), real(0)
            if live:
                if dseq.size > 0:
                    total += dseq[n, t, off + j]
                o, v = gates[n, t, 3 * size + j], kept[n, t, j]
                da = total * o * v * (real(1) - o)
                d = total * o * (real(1) - v * v)
                total = real(0)
            carry[n, j] = total
            dgx[n, t, 3 * size + j] = da
            dcell[n, j] = d
        if part != OUTPUT:
            di, df, dg = real(0), real(0), real(0)
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
