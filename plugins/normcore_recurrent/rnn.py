"""The simple recurrent network (Elman).

Forward:  h_t = act(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), act = tanh or relu, h_0 = 0
Backward: through time, with a_t the argument of act and dh_t the sum of what the output and step t + 1 send:
          da_t = dh_t act'(a_t)    dx_t = W_ih^T da_t    dh_{t-1} = W_hh^T da_t
          dW_ih = sum da_t x_t^T   dW_hh = sum da_t h_{t-1}^T   db_ih = db_hh = sum da_t

normalization: layer_norm puts gamma (a_t - mean) / sqrt(var + eps) in place of the sum of both products (Ba 2016,
section 3.1; mean and var over the units). batch_norm normalizes each product by itself, over the batch and with
statistics of each time step (Cooijmans 2016). See normcore_recurrent/lstm.py for both, for lengths and truncation.

Shapes: x (N, T, C), lengths (N,) int64; y (N, T, D H) with return_sequences, else (N, D H), the state after the
last step (of the reverse direction: after the first); D = 2 if bidirectional. Parameters as PyTorch's:
weight_ih_l0 (H, C), weight_hh_l0 (H, H), bias_ih_l0, bias_hh_l0 (H,), ..., those of the reverse direction with
_reverse. float32 and float64.

Source: Elman 1990, "Finding structure in time"; parameters as PyTorch's RNN.
"""

from typing import Literal

import numpy as np

from normcore import ParameterError
from normcore.testing.samples import ErrorSample, Sample
from normcore_recurrent import rnn_steps as steps
from normcore_recurrent.joining import launcher
from normcore_recurrent.recurrent import Recurrent
from normcore_recurrent.samples import COMMON_ERRORS, common

FORWARD = (steps.forward_cpu, steps.forward_cuda)
BACKWARD = (steps.backward_cpu, steps.backward_cuda)


class Rnn(
    Recurrent,
    name="rnn",
    learnable=("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"),
    source="Elman 1990; Ba 2016, arXiv:1607.06450, section 3.1",
):
    """A recurrent network over sequences (N, T, C): h_t = tanh(W_ih x_t + W_hh h_{t-1} + biases).

    hidden_size: units. num_layers, bidirectional: as in PyTorch. normalization: none, layer_norm or batch_norm.
    return_sequences: give all states, not the last. truncate: gradients flow back no further than to the last
    multiple of this many steps. eps, momentum: of the normalization. longer: what batch_norm does in inference with
    more steps than training had, an error or the last step's statistics. padding_value: steps at a sequence's end
    whose features all equal it are no part of the sequence. nonlinearity: tanh or relu.
    """

    nonlinearity: Literal["tanh", "relu"] = "tanh"

    samples = common()
    benchmarks = (
        Sample("digits, row by row", shape=(64, 28, 28), params={"hidden_size": 128}),
        Sample("longer sequences", shape=(32, 100, 128), params={"hidden_size": 256}),
    )
    error_samples = (
        *COMMON_ERRORS,
        ErrorSample("an unknown activation", {"hidden_size": 2, "nonlinearity": "elu"}),
    )

    def check(self):
        super().check()
        if self.nonlinearity not in ("tanh", "relu"):
            raise ParameterError("nonlinearity", "tanh or relu", self.nonlinearity)

    def stepping(self, t, norm, suffix, shares, seq, off):
        run, relu = launcher(t, FORWARD, t.h.size), self.nonlinearity == "relu"
        saved = (getattr(t, f"gates_{suffix}"), t.h, getattr(t, f"before_{suffix}"))
        return lambda at: run(*shares, *saved, seq, off, t.lengths, at, relu)

    def stepping_back(self, t, norm, suffix, dseq, off):
        run, relu = launcher(t, BACKWARD, t.h.size), self.nonlinearity == "relu"
        arguments = (getattr(t, f"gates_{suffix}"), dseq, off, t.carry, t.back, t.dgx, t.step, t.lengths)
        return lambda at, cut: run(*arguments, at, cut, relu)

    def cell(self, ax, ah, h, c, norm):
        a = ax + ah
        return (np.maximum(a, 0) if self.nonlinearity == "relu" else np.tanh(a)), c

    def cell_in_torch(self, torch, ax, ah, h, c, norm):
        a = ax + ah
        return (a.relu() if self.nonlinearity == "relu" else a.tanh()), c

    def torch_module(self, torch):
        return torch.nn.RNN

    def torch_options(self):
        return {"nonlinearity": self.nonlinearity}
