"""The steps of gru, gates r, z, n in this order. Arguments as in gates.py.

r = s(ar)   z = s(az)   n = tanh(gx_n + r q)   q = gh_n (kept)   h' = (1 - z) n + z h
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore_recurrent.gates import (
    add_logistic,
    arriving_row,
    copy_row,
    emit_row,
    fill_row,
    logistic,
    pre_activation,
    tanh_row,
)


@inline(force=True)
def candidate_row(xn, r, q, target):
    for j in range(target.size):
        target[j] = xn[j] + r[j] * q[j]


@inline(force=True)
def mix_row(z, n, h):
    for j in range(h.size):
        h[j] = n[j] + z[j] * (h[j] - n[j])


@inline(force=True)
def candidate_gradients(g, z, n, r, dn, dq):
    """g: gradient of h'. dn: to the candidate's pre-activation, dq: to q."""
    for j in range(g.size):
        a = g[j] * (real(1) - z[j]) * (real(1) - n[j] * n[j])
        dn[j] = a
        dq[j] = a * r[j]


@inline(force=True)
def update_gradient(g, z, n, before, dz):
    for j in range(g.size):
        dz[j] = g[j] * (before[j] - n[j]) * z[j] * (real(1) - z[j])


@inline(force=True)
def reset_gradient(dn, q, r, dr):
    for j in range(dr.size):
        dr[j] = dn[j] * q[j] * r[j] * (real(1) - r[j])


@inline(force=True)
def around_row(total, z, carry):
    for j in range(carry.size):
        carry[j] = total[j] * z[j]


@cpu
def forward_cpu(gx, gh, gates, h, before, kept, seq, off, lengths, t):
    for row in prange(h.shape[0]):
        n = np.int64(row)
        size = h.shape[1]
        two = 2 * size
        copy_row(h[n], before[n, t])
        live = t < lengths[n]
        if live:
            g = gates[n, t]
            add_logistic(gx[n, t, :two], gh[n, :two], g[:two])
            copy_row(gh[n, two:], kept[n, t])
            candidate_row(gx[n, t, two:], g[:size], kept[n, t], g[two:])
            tanh_row(g[two:])
            mix_row(g[size:two], g[two:], h[n])
        else:
            fill_row(gates[n, t], real(0))
            fill_row(kept[n, t], real(0))
        emit_row(h, seq, n, t, off, live)


@cpu
def backward_cpu(gates, before, kept, dseq, off, carry, back, dgx, dgh, step, lengths, t, cut):
    for row in prange(carry.shape[0]):
        n = np.int64(row)
        size = carry.shape[1]
        two = 2 * size
        total = step[n, :size]
        live = t < lengths[n]
        arriving_row(carry, back, dseq, n, t, off, live, total)
        if live:
            g, d, e = gates[n, t], dgx[n, t], dgh[n, t]
            around_row(total, g[size:two], carry[n])
            candidate_gradients(total, g[size:two], g[two:], g[:size], d[two:], e[two:])
            update_gradient(total, g[size:two], g[two:], before[n, t], d[size:two])
            reset_gradient(d[two:], kept[n, t], g[:size], d[:size])
            copy_row(d[:two], e[:two])
            copy_row(e, step[n])
            if cut:
                fill_row(carry[n], real(0))
        else:
            copy_row(total, carry[n])
            fill_row(dgx[n, t], real(0))
            fill_row(dgh[n, t], real(0))
        if cut or not live:
            fill_row(step[n], real(0))


@cuda
def forward_cuda(gx, gh, bias, more, gates, h, before, kept, seq, off, lengths, t):
    """A thread a unit."""
    size = h.shape[1]
    for i in range(cu.grid(1), h.size, cu.gridsize(1)):
        n = i // size
        j = i - n * size
        live = t < lengths[n]
        old = h[n, j]
        before[n, t, j] = old
        r, z, v, q, new = real(0), real(0), real(0), real(0), real(0)
        if live:
            k = 2 * size + j
            r = logistic(pre_activation(gx, gh, bias, more, n, t, j))
            z = logistic(pre_activation(gx, gh, bias, more, n, t, size + j))
            q = gh[n, k]
            if more.size > 0:
                q += more[k]
            v = gx[n, t, k] + r * q
            if bias.size > 0:
                v += bias[k]
            v = math.tanh(v)
            new = v + z * (old - v)
            h[n, j] = new
        gates[n, t, j] = r
        gates[n, t, size + j] = z
        gates[n, t, 2 * size + j] = v
        kept[n, t, j] = q
        if seq.size > 0:
            seq[n, t, off + j] = new


@cuda
def backward_cuda(gates, before, kept, dseq, off, carry, back, dgx, dgh, step, lengths, t, cut):
    size = carry.shape[1]
    for i in range(cu.grid(1), carry.size, cu.gridsize(1)):
        n = i // size
        j = i - n * size
        g = carry[n, j] + back[n, j]
        dr, dz, dn, dq = real(0), real(0), real(0), real(0)
        if t < lengths[n]:
            if dseq.size > 0:
                g += dseq[n, t, off + j]
            r, z, v = gates[n, t, j], gates[n, t, size + j], gates[n, t, 2 * size + j]
            dn = g * (real(1) - z) * (real(1) - v * v)
            dz = g * (before[n, t, j] - v) * z * (real(1) - z)
            dq = dn * r
            dr = dn * kept[n, t, j] * r * (real(1) - r)
            g = real(0) if cut else g * z
        carry[n, j] = g
        dgx[n, t, j] = dr
        dgx[n, t, size + j] = dz
        dgx[n, t, 2 * size + j] = dn
        dgh[n, t, j] = dr
        dgh[n, t, size + j] = dz
        dgh[n, t, 2 * size + j] = dq
        live = t < lengths[n] and not cut
        step[n, j] = dr if live else real(0)
        step[n, size + j] = dz if live else real(0)
        step[n, 2 * size + j] = dq if live else real(0)
