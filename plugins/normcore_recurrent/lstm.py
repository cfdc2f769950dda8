"""Long short-term memory, as PyTorch's LSTM.

Forward:  i, f, o = s(a_i), s(a_f), s(a_o)   g = tanh(a_g)   c_t = f c_{t-1} + i g   h_t = o tanh(c_t)
          a = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh, gates in the order i, f, g, o; s = logistic; h_0 = c_0 = 0
Backward: dc_t += dh_t o (1 - tanh(c_t)^2)   da_o = dh_t tanh(c_t) o (1 - o)   da_i = dc_t g i (1 - i)
          da_f = dc_t c_{t-1} f (1 - f)   da_g = dc_t i (1 - g^2)   dc_{t-1} = dc_t f   dh_{t-1} = W_hh^T da
          dx_t = W_ih^T da   dW_ih = sum da x_t^T   dW_hh = sum da h_{t-1}^T   db = sum da

normalization, with norm(v) = gamma * (v - mean) / sqrt(var + eps):
    layer_norm  a = norm(W_ih x_t) + b_ih + norm(W_hh h_{t-1}) + b_hh, h_t = o tanh(norm(c_t) + beta); mean and var
                over the units of a product or of the cell (Ba 2016, supplementary equations 20 to 22)
    batch_norm  the same, mean and var over the batch, apart for each time step (Cooijmans 2016, equations 6 to 8,
                gammas 0.1 to begin with). Running statistics are kept for each time step of the input: a test
                sequence that is longer than those of training has none at its end. That is an error, unless
                longer="last" reuses those of the last step that training has seen.
lengths (a second input, whole numbers from 1 to T): sequence n ends after lengths[n] steps; its state then stays,
its outputs are 0, and no gradient comes from there. A length of 0 is a ShapeError.
padding_value=v (in place of lengths, so that a network needs one input): a sequence ends where only steps follow all
of whose features equal v, and one of padding alone is a ShapeError. v is compared after all data preparation, in the
layer's dtype: choose one that the preparation keeps, such as 0 with `normalize: minmax`. With batch_norm at least two
sequences must reach the batch's last step in training.
truncate=k: where a step is a multiple of k (counted in the direction of the recurrence) no gradient flows to the
step before it, so gradients pass through at most k steps.

Shapes: x (N, T, C), lengths (N,) int64; y (N, T, D H) with return_sequences, else (N, D H), the state after the
last step (of the reverse direction: after the first); D = 2 if bidirectional. weight_ih_l0 (4 H, C),
weight_hh_l0 (4 H, H), bias_ih_l0, bias_hh_l0 (4 H,); with normalization gamma_ih_l0, gamma_hh_l0 (4 H,), gamma_c_l0,
beta_c_l0 (H,); next layers _l1 and on, the reverse direction with _reverse. float32 and float64.

Source: Hochreiter and Schmidhuber 1997, "Long short-term memory"; Ba, Kiros and Hinton 2016, "Layer normalization",
arXiv:1607.06450; Cooijmans et al. 2016, "Recurrent batch normalization", arXiv:1603.09025.
"""

import numpy as np

from normcore.testing.samples import Sample
from normcore_recurrent import lstm_steps as steps
from normcore_recurrent.joining import launcher
from normcore_recurrent.recurrent import Recurrent
from normcore_recurrent.reference import logistic
from normcore_recurrent.samples import COMMON_ERRORS, common

FORWARD = (steps.forward_cpu, steps.forward_cuda)
BACKWARD = (steps.backward_cpu, steps.backward_cuda)


class Lstm(
    Recurrent,
    name="lstm",
    learnable=("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
    source="Hochreiter and Schmidhuber 1997; Ba 2016, arXiv:1607.06450; Cooijmans 2016, arXiv:1603.09025",
):
    """Long short-term memory over sequences (N, T, C), as PyTorch's LSTM.

    hidden_size: units. num_layers, bidirectional: as in PyTorch. normalization: none, layer_norm or batch_norm.
    return_sequences: give all states, not the last. truncate: gradients flow back no further than to the last
    multiple of this many steps. eps, momentum: of the normalization. longer: what batch_norm does in inference with
    more steps than training had, an error or the last step's statistics. padding_value: steps at a sequence's end
    whose features all equal it are no part of the sequence.
    """

    gates = 4
    kept = ("c_before", "tanh_c")
    has_cell = True

    samples = common()
    benchmarks = (
        Sample("digits, row by row", shape=(64, 28, 28), params={"hidden_size": 128}),
        Sample("longer sequences", shape=(32, 100, 128), params={"hidden_size": 256}),
    )
    error_samples = COMMON_ERRORS

    def stepping(self, t, norm, suffix, shares, seq, off):
        gates, before, c_before, kept = self._saved(t, suffix)
        cell = t.c if norm is None else t.cn
        run = launcher(t, FORWARD, t.h.size)
        arguments = (*shares, gates, t.h, t.c, before, c_before, cell, kept, seq, off, t.lengths)
        if norm is None:
            return lambda at: run(*arguments, at, steps.WHOLE)
        beta = getattr(t, f"beta_c_{suffix}")

        def step(at):
            run(*arguments, at, steps.GATES)
            norm.forward("c", t.c[:, None], at, t.cn[:, None], beta)
            run(*arguments, at, steps.OUTPUT)

        return step

    def stepping_back(self, t, norm, suffix, dseq, off):
        gates, _, c_before, kept = self._saved(t, suffix)
        run = launcher(t, BACKWARD, t.h.size)
        arguments = (
            gates,
            c_before,
            kept,
            dseq,
            off,
            t.carry,
            t.back,
            t.dc,
            t.dgx,
            t.dcell,
            t.step,
            t.lengths,
        )
        if norm is None:
            return lambda at, cut: run(*arguments, at, cut, steps.WHOLE)
        size = self.hidden_size

        def step(at, cut):
            run(*arguments, at, cut, steps.OUTPUT)
            self._launch(t, "columns", t.h.size, t.dcell, 0, t.dcells.reshape(t.batch, -1), at * size, size)
            norm.backward("c", t.dcells, at, t.dcell[:, None], 0, 1)
            run(*arguments, at, cut, steps.GATES)

        return step

    def _saved(self, t, suffix):
        return [getattr(t, f"{name}_{suffix}") for name in ("gates", "before", "c_before", "tanh_c")]

    def cell(self, ax, ah, h, c, norm):
        i, f, g, o = np.split(ax + ah, 4, axis=1)
        c = logistic(f) * c + logistic(i) * np.tanh(g)
        if self.normalization == "none":
            return logistic(o) * np.tanh(c), c
        return logistic(o) * np.tanh(norm("c", c)), c

    def cell_in_torch(self, torch, ax, ah, h, c, norm):
        i, f, g, o = (ax + ah).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * norm("c", c).tanh(), c

    def torch_module(self, torch):
        return torch.nn.LSTM
