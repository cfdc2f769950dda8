"""What the steps of rnn, lstm and gru share: scalars, rows, and the arguments of their kernels.

A step t of one direction of one layer sees, for N sequences of at most T steps and H units with G gates:
    gx (N, T, G H)      the input's share of the pre-activations, for all steps; gh (N, G H): that of h, this step
    bias, more          vectors that belong to gx and gh, or empty where they are in there already
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
The order of operations on an element is the same on both devices.
"""

import math

from normcore.kernels import inline, real


@inline
def logistic(v):
    """1 / (1 + exp(-v)), without overflow."""
    return real(0.5) * math.tanh(real(0.5) * v) + real(0.5)


@inline
def logistic_row(v):
    for j in range(v.size):
        v[j] = logistic(v[j])


@inline
def tanh_row(v):
    for j in range(v.size):
        v[j] = math.tanh(v[j])


@inline
def fill_row(v, value):
    for j in range(v.size):
        v[j] = value


@inline
def copy_row(source, target):
    for j in range(target.size):
        target[j] = source[j]


@inline
def add_row(source, target):
    for j in range(target.size):
        target[j] += source[j]


@inline
def sum_rows(a, b, target):
    for j in range(target.size):
        target[j] = a[j] + b[j]


@inline
def pre_activations(gx, gh, bias, more, target):
    """target = gx + bias + gh + more; empty vectors are left out."""
    if gx.size > 0:
        sum_rows(gx, gh, target)
    else:
        copy_row(gh, target)
    if bias.size > 0:
        add_row(bias, target)
    if more.size > 0:
        add_row(more, target)


@inline
def pre_activation(gx, gh, bias, more, n, t, k):
    """The same for one element."""
    v = gh[n, k]
    if gx.size > 0:
        v = gx[n, t, k] + v
    if bias.size > 0:
        v += bias[k]
    if more.size > 0:
        v += more[k]
    return v
