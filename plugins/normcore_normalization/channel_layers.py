"""How batch_norm's and batch_renorm's kernels are called, on each device and in each memory format."""

import numpy as np

from normcore import Op, ShapeError
from normcore_normalization import channel_cuda
from normcore_normalization.channel_columns import backward_columns, forward_columns
from normcore_normalization.channel_lines import (
    backward_lines,
    forward_lines,
    infer_lines,
)
from normcore_normalization.channel_planes import (
    backward_planes,
    forward_planes,
    infer_planes,
)
from normcore_normalization.channel_shapes import (
    as_channels,
    as_lines,
    by_columns,
    task_columns,
)

NONE = {dtype: np.empty(0, dtype) for dtype in ("float32", "float64")}  # for arrays that an op does not have


class ChannelNormalization(Op):
    """Base of the norms over the batch and space, one channel at a time."""

    stores_16_bits = True

    def forward_cpu(self, t):
        x, y, rows = as_channels(t.x, t.y, t.format)
        none = NONE[t.dtype]
        gamma, beta = (t.gamma, t.beta) if self.affine else (none, none)
        saved = (t.shift, t.rest, t.scale)
        if self._uses_batch(t):
            kept = (*saved, self._change(t, none))
            self._check_count(t.x, t.shift.size)
            running = (t.running_mean, t.running_var) if self._moves(t) else (none, none)
            momentum = self._momentum(t)
            scratch = (t.line, t.partial, t.sums) if rows else ()
            if rows and by_columns(x):
                extent = (task_columns(x), self.eps, momentum)
                self.kernel(forward_columns)[t](x, y, gamma, beta, *running, *kept, *scratch, *extent, t.e)
            elif rows:
                lines = (*as_lines(t.x, t.line), *as_lines(t.y, t.line))
                self.kernel(forward_lines)[t](
                    *lines, gamma, beta, *running, *kept, *scratch, self.eps, momentum, t.e
                )
            else:
                self.kernel(forward_planes)[t](x, y, gamma, beta, *running, *kept, self.eps, momentum, t.e)
        elif rows:
            lines = (*as_lines(t.x, t.line), *as_lines(t.y, t.line))
            running, chunks = (t.running_mean, t.running_var), t.sums.shape[0]
            infer_lines[t](*lines, gamma, beta, *running, *saved, t.line, chunks, self.eps, t.e)
        else:
            infer_planes[t](x, y, gamma, beta, t.running_mean, t.running_var, *saved, self.eps, t.e)

    def backward_cpu(self, t):
        wanted = t.dx is not None
        x, dy, rows = as_channels(t.x, t.dy, t.format)
        dx = t.dx.reshape(x.shape) if wanted else dy
        none = NONE[t.dtype]
        parameters = (t.gamma, t.beta, t.dgamma, t.dbeta) if self.affine else (none,) * 4
        share = 1.0 / max(1, t.x.size // t.shift.size) if self._uses_batch(t) else 0.0
        saved = (t.shift, t.rest, t.scale, self._change(t, none))
        scratch = (t.line, t.partial, t.sums) if rows else ()
        if rows and by_columns(x):
            backward_columns[t](x, dy, dx, *parameters, *saved, *scratch, task_columns(x), share, wanted, t.e)
        elif rows:
            lines = [part for array in (x, dy, dx) for part in as_lines(array, t.line)]
            backward_lines[t](*lines, *parameters, *saved, *scratch, share, wanted, t.e)
        else:
            backward_planes[t](x, dy, dx, *parameters, *saved, share, wanted, t.e)

    def forward_cuda(self, t):
        x, y, rows = as_channels(t.x, t.y, t.format)
        none = t.shift[:0]
        gamma, beta = (t.gamma, t.beta) if self.affine else (none, none)
        saved = (t.shift, t.rest, t.scale)
        kept = (*saved, self._change(t, none))
        eps = np.float64(self.eps)
        if self._uses_batch(t):
            self._check_count(t.x, t.shift.size)
            running, counter = (none, none), t.sums.reshape(-1)
            momentum = np.float64(1.0 / t.calibrating if t.calibrating else self.momentum or 0.0)
            if self._moves(t):
                running = (t.running_mean, t.running_var)
                if self.momentum is None and not t.calibrating:
                    counter, momentum = t.num_batches, np.float64(-1.0)
                    channel_cuda.count_cuda[t, 1](counter)
            finish = self.kernel(channel_cuda.finish_cuda)
            channel_cuda.statistics(t, x, rows, finish, running, counter, kept, eps, momentum)
        else:
            channel_cuda.running_cuda[t, t.shift.size](t.running_mean, t.running_var, *saved, eps)
        if x.size:
            channel_cuda.normalize(t, x, y, rows, gamma, beta, kept)

    def backward_cuda(self, t):
        x, dy, rows = as_channels(t.x, t.dy, t.format)
        none = t.shift[:0]
        parameters = (t.gamma, t.beta, t.dgamma, t.dbeta) if self.affine else (none,) * 4
        kept = (t.shift, t.rest, t.scale, self._change(t, none))
        share = np.float64(1.0 / max(1, x.size // t.shift.size) if self._uses_batch(t) else 0.0)
        channel_cuda.backward(t, x, dy, rows, *parameters, kept, share)

    def kernel(self, kernel):
        """The kernel with this op's constants."""
        return kernel

    def _change(self, t, none):
        """What batch_renorm changes a batch by, r and d; nothing here."""
        return none

    def _uses_batch(self, t):
        return t.training or not self.track_running_stats

    def _moves(self, t):
        return t.training and self.track_running_stats

    def _momentum(self, t):
        """The weight of this batch; counts it when all batches weigh the same."""
        if t.calibrating:  # a pass for population statistics: all batches weigh the same
            return 1.0 / t.calibrating
        if self.momentum is not None or not self._moves(t):
            return self.momentum or 0.0
        t.num_batches[0] += 1
        return 1.0 / t.num_batches[0]

    def _check_count(self, x, channels):
        if x.size <= channels:
            raise ShapeError(
                "batch_norm: training needs more than one value per channel (the variance of one is 0); "
                f"got an input of {x.size} values in {channels} channels; use a larger batch (data.drop_last "
                "leaves out a last batch of one), or layer_norm, which does not look at the batch"
            )
