"""The recurrent ops in plain NumPy, one sequence set after the other, for the conformance suite."""

import numpy as np


def logistic(v):
    return 1 / (1 + np.exp(-v))


def ends(x, padding):
    """The lengths of sequences (N, T, C) that end in steps full of `padding`."""
    return x.shape[1] - (np.asarray(x) != padding).any(2)[:, ::-1].argmax(1)


def run(op, x, lengths, arrays, training):
    """The output for x (N, T, C); arrays: parameters and state by name."""
    batch, steps, _ = x.shape
    lengths = np.full(batch, steps) if lengths is None else np.asarray(lengths)
    source, last = x, []
    for layer in range(op.num_layers):
        outs, last = [], []
        for way in range(2 if op.bidirectional else 1):
            suffix = f"l{layer}" + "_reverse" * way
            seq, h = _direction(op, source, lengths, arrays, suffix, way, training)
            outs.append(seq)
            last.append(h)
        source = np.concatenate(outs, axis=2)
    return source if op.return_sequences else np.concatenate(last, axis=1)


def _direction(op, x, lengths, arrays, suffix, way, training):
    batch, steps, _ = x.shape
    weight_ih, weight_hh = arrays[f"weight_ih_{suffix}"], arrays[f"weight_hh_{suffix}"]
    bias_ih, bias_hh = arrays[f"bias_ih_{suffix}"], arrays[f"bias_hh_{suffix}"]
    h = np.zeros((batch, op.hidden_size))
    c = np.zeros((batch, op.hidden_size))
    seq = np.zeros((batch, steps, op.hidden_size))
    for t in range(steps)[:: -1 if way else 1]:
        live = t < lengths
        if not live.any():
            continue

        def norm(side, values, t=t, live=live):
            return _normalize(op, side, values, t, live, arrays, suffix, training)

        ax, ah = x[:, t] @ weight_ih.T, h @ weight_hh.T
        if op.joint:
            ax, ah = np.zeros_like(ah), norm("hh", ax + ah)
        elif op.normalization != "none":
            ax, ah = norm("ih", ax), norm("hh", ah)
        new_h, new_c = op.cell(ax + bias_ih, ah + bias_hh, h, c, norm)
        h, c = np.where(live[:, None], new_h, h), np.where(live[:, None], new_c, c)
        seq[:, t] = np.where(live[:, None], h, 0)
    return seq, h


def _normalize(op, side, values, t, live, arrays, suffix, training):
    gamma = arrays[f"gamma_{side}_{suffix}"]
    beta = arrays.get(f"beta_{side}_{suffix}", 0.0)
    if op.normalization == "batch_norm":
        if training:
            mean, var = values[live].mean(0), values[live].var(0)
        else:
            at = min(t, len(arrays[f"running_mean_{side}_{suffix}"]) - 1)
            mean = arrays[f"running_mean_{side}_{suffix}"][at]
            var = arrays[f"running_var_{side}_{suffix}"][at]
        return gamma * (values - mean) / np.sqrt(var + op.eps) + beta
    split = next(split for s, _, split in op.sides if s == side)
    parts = [part for part in (values[:, :split], values[:, split:]) if part.shape[1]]
    scaled = [(p - p.mean(1, keepdims=True)) / np.sqrt(p.var(1, keepdims=True) + op.eps) for p in parts]
    return gamma * np.concatenate(scaled, axis=1) + beta
