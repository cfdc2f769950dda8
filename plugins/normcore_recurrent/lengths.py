"""How many steps each sequence has: given, found by the padding value, or all; and whether statistics reach so far."""

import numpy as np

from normcore import DataError, ShapeError
from normcore.kernels import running
from normcore_recurrent import joining


def find(op, t):
    """Sets t.lengths. Raises ShapeError for a length outside 1 to T, DataError for a sequence of padding only."""
    x = t.xs[0]
    batch, steps = x.shape[:2]
    given = len(t.xs) > 1
    t.lengths = t.xs[1] if given else t.ends
    if not given:
        t.ends[...] = steps  # before the kernel too: where launches are only recorded, nothing else sets it
    if given or op.padding_value is not None:
        if not given:
            ends = joining.launcher(t, (joining.ends_cpu, joining.ends_cuda), batch)
            ends(x, np.float64(op.padding_value), t.ends)
        counts = t.device.to_host(t.lengths) if running() else np.full(batch, steps)
        _check(op, t, counts, steps, given)
    else:
        counts = np.full(batch, steps)
    if op.normalization == "batch_norm" and batch:
        _check_statistics(op, t, counts, int(counts.max(initial=0)))


def _check(op, t, counts, steps, given):
    wrong = np.flatnonzero((counts < 1) | (counts > steps))
    if not wrong.size:
        return
    k, batch = int(wrong[0]), len(counts)
    if not given:
        raise DataError(
            f"{t.path}: sequence {k} of {batch} holds only padding (padding_value "
            f"{op.padding_value}; {wrong.size} such), expected at least one step with another value; leave "
            "empty sequences out of the batch"
        )
    raise ShapeError(
        f"{t.path}: expected lengths from 1 to {steps} (the input's steps), got {int(counts[k])} for "
        f"sequence {k} of {batch} ({wrong.size} such); leave empty sequences out of the batch"
    )


def _check_statistics(op, t, counts, longest):
    if t.training:
        alive = int((counts >= longest).sum())
        if alive < 2:
            raise ShapeError(
                f"{t.path}: batch_norm needs at least two sequences at every time step, but only {alive} of the "
                f"batch's {len(counts)} reaches step {longest}; use larger batches of similar lengths, or layer_norm"
            )
        if int(t.device.to_host(t.trained_steps)[0]) < longest:
            t.trained_steps[...] = longest
        t.last_trained = longest - 1
        return
    trained = int(t.device.to_host(t.trained_steps)[0])
    t.last_trained = max(0, trained - 1)
    if trained < longest and (op.longer == "error" or trained == 0):
        raise ShapeError(
            f"{t.path}: batch_norm has statistics of {trained} time steps, the input has sequences of {longest}: "
            "train with sequences as long, set longer: last to reuse the last step's, or use layer_norm"
        )


def refused(op, x):
    """(bool (N,), why) of sequences that are padding only; None without a padding value."""
    if op.padding_value is None:
        return None
    empty = (x == np.asarray(op.padding_value, x.dtype)).all((1, 2))
    return empty, f"holds only padding (padding_value {op.padding_value})"
