"""The gated recurrent unit, in PyTorch's form (the reset gate multiplies W_hn h + b_hn, not h).

Forward:  r = s(a_r)   z = s(a_z)   n = tanh(ax_n + r * ah_n)   h_t = (1 - z) * n + z * h_{t-1}
          a = ax + ah, ax = W_ih x_t + b_ih, ah = W_hh h_{t-1} + b_hh, gates in the order r, z, n; s = logistic
Backward: dn = dh (1 - z) (1 - n^2)   dz = dh (h_{t-1} - n) z (1 - z)   dr = dn ah_n r (1 - r)   d ah_n = dn r
          dh_{t-1} = dh z + W_hh^T (dr, dz, d ah_n); the weights as in rnn

normalization: layer_norm normalizes ax and ah each by itself, r and z together and n apart (Ba 2016, supplementary
equations 23 to 25); batch_norm the same over the batch, with statistics of each time step. gamma_ih_l0 and
gamma_hh_l0 scale them, PyTorch's biases are added behind. See normcore_recurrent/lstm.py for lengths and truncation.

Shapes: x (N, T, C), lengths (N,) int64; y (N, T, D H) with return_sequences, else (N, D H). weight_ih_l0 (3 H, C),
weight_hh_l0 (3 H, H), bias_ih_l0, bias_hh_l0 (3 H,), ... float32 and float64.

Source: Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder", arXiv:1406.1078; gate order and
parameters as PyTorch's GRU.
"""

import numpy as np

from normcore.testing.samples import Sample
from normcore_recurrent import gru_steps as steps
from normcore_recurrent.joining import launcher
from normcore_recurrent.recurrent import Recurrent
from normcore_recurrent.reference import logistic
from normcore_recurrent.samples import COMMON_ERRORS, common

FORWARD = (steps.forward_cpu, steps.forward_cuda)
BACKWARD = (steps.backward_cpu, steps.backward_cuda)


class Gru(
    Recurrent,
    name="gru",
    learnable=("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
    source="Cho et al. 2014, arXiv:1406.1078; Ba 2016, arXiv:1607.06450",
):
    """A gated recurrent unit over sequences (N, T, C), as PyTorch's GRU.

    hidden_size: units. num_layers, bidirectional: as in PyTorch. normalization: none, layer_norm or batch_norm.
    return_sequences: give all states, not the last. truncate: gradients flow back no further than to the last
    multiple of this many steps. eps, momentum: of the normalization. longer: what batch_norm does in inference with
    more steps than training had, an error or the last step's statistics. padding_value: steps at a sequence's end
    whose features all equal it are no part of the sequence.
    """

    gates = 3
    apart = 2
    kept = ("candidate",)

    samples = common()
    benchmarks = (Sample("digits, row by row", shape=(64, 28, 28), params={"hidden_size": 128}),)
    error_samples = COMMON_ERRORS

    def stepping(self, t, norm, suffix, shares, seq, off):
        gates, before, kept = self._saved(t, suffix)
        run = launcher(t, FORWARD, t.h.size)
        return lambda at: run(*shares, gates, t.h, before, kept, seq, off, t.lengths, at)

    def stepping_back(self, t, norm, suffix, dseq, off):
        run = launcher(t, BACKWARD, t.h.size)
        arguments = (*self._saved(t, suffix), dseq, off, t.carry, t.back, t.dgx, t.dgh, t.step, t.lengths)
        return lambda at, cut: run(*arguments, at, cut)

    def _saved(self, t, suffix):
        return [getattr(t, f"{name}_{suffix}") for name in ("gates", "before", "candidate")]

    def cell(self, ax, ah, h, c, norm):
        (xr, xz, xn), (hr, hz, hn) = np.split(ax, 3, axis=1), np.split(ah, 3, axis=1)
        z = logistic(xz + hz)
        return (1 - z) * np.tanh(xn + logistic(xr + hr) * hn) + z * h, c

    def cell_in_torch(self, torch, ax, ah, h, c, norm):
        (xr, xz, xn), (hr, hz, hn) = ax.chunk(3, 1), ah.chunk(3, 1)
        z = (xz + hz).sigmoid()
        return (1 - z) * (xn + (xr + hr).sigmoid() * hn).tanh() + z * h, c

    def torch_module(self, torch):
        return torch.nn.GRU
