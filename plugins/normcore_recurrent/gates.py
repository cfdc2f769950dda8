"""What the steps of rnn, lstm and gru share: scalars, rows, and the arguments of their kernels.

A step t of one direction of one layer sees, for N sequences of at most T steps and H units with G gates:
    gx (N, T, G H)      the input's share of the pre-activations, for all steps; gh (N, G H): that of h, this step
    bias, more          vectors that belong to gx and gh, or empty where they are in there already; on the CPU they
                        always are, because the matrix products add them at no cost
    gates (N, T, G H)   activated gates, kept for backward
    h, c (N, H)         hidden state and cell; before, c_before (N, T, H): what they were ahead of step t
    kept (N, T, H)      what else backward needs: tanh(c) of an lstm, the candidate's recurrent share of a gru
    seq (N, T, ..)      outputs of all steps; this direction writes columns `off` to `off + H`; empty: not wanted
    lengths (N,)        step t of a sequence that has ended leaves its state alone and outputs 0
Backward sees in place of these
    dseq, carry, back   gradients of h: from the outputs, around step t + 1, and through its product with the
                        weights; dc (N, H) that of the cell
    dgx (N, T, G H)     to the input's share; dgh (N, T, G H): to that of h, where it is another; step (N, G H): the
                        same for the product that leads to step t - 1, zero where truncation cuts
Loops over rows are forced inline and have few arrays each: a call would pass seven words for each array, and LLVM
gives up vector code where more than eight pairs of arrays could overlap.
"""

import math

from normcore.kernels import inline, real


@inline
def logistic(v):
    """1 / (1 + exp(-v)); exp overflows to infinity, which gives the right 0."""
    return real(1) / (real(1) + math.exp(-v))


@inline(force=True)
def add_logistic(a, b, target):
    for j in range(target.size):
        target[j] = logistic(a[j] + b[j])


@inline(force=True)
def add_tanh(a, b, target):
    for j in range(target.size):
        target[j] = math.tanh(a[j] + b[j])


@inline(force=True)
def tanh_row(v):
    for j in range(v.size):
        v[j] = math.tanh(v[j])


@inline
def fill_row(v, value):
    for j in range(v.size):
        v[j] = value


@inline(force=True)
def copy_row(source, target):
    for j in range(target.size):
        target[j] = source[j]


@inline(force=True)
def add_row(source, target):
    for j in range(target.size):
        target[j] += source[j]


@inline(force=True)
def sum_rows(a, b, target):
    for j in range(target.size):
        target[j] = a[j] + b[j]


@inline
def emit_row(h, seq, n, t, off, live):
    """The output of step t, where it is wanted."""
    if seq.size > 0:
        if live:
            copy_row(h[n], seq[n, t, off : off + h.shape[1]])
        else:
            fill_row(seq[n, t, off : off + h.shape[1]], real(0))


@inline
def arriving_row(carry, back, dseq, n, t, off, live, total):
    """total = gradient of h at step t."""
    sum_rows(carry[n], back[n], total)
    if live and dseq.size > 0:
        add_row(dseq[n, t, off : off + total.size], total)


@inline
def pre_activation(gx, gh, bias, more, n, t, k):
    """gx + bias + gh + more of one element; empty arrays are left out."""
    v = gh[n, k]
    if gx.size > 0:
        v = gx[n, t, k] + v
    if bias.size > 0:
        v += bias[k]
    if more.size > 0:
        v += more[k]
    return v
