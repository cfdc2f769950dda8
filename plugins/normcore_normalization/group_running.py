"""instance_norm's running statistics: averages over the samples of a batch, kept per channel. Rows are n * C + c."""

from normcore.kernels import cpu, cu, cuda, inline, real, wide
from normcore_normalization.row_statistics import keep_row


@inline
def fill_row(r, running_mean, running_var, eps, shift, rest, scale, bend):
    c = r % running_mean.size
    keep_row(r, wide(running_mean[c]), wide(running_var[c]), eps, shift, rest, scale, bend)


@cpu
def fill_rows(running_mean, running_var, eps, shift, rest, scale, bend):
    for r in range(shift.size):
        fill_row(r, running_mean, running_var, eps, shift, rest, scale, bend)


@cuda
def fill_rows_cuda(running_mean, running_var, eps, shift, rest, scale, bend):
    for r in range(cu.grid(1), shift.size, cu.gridsize(1)):
        fill_row(r, running_mean, running_var, eps, shift, rest, scale, bend)


@inline
def move_channel(c, shift, rest, scale, count, eps, momentum, running_mean, running_var):
    """Channel c: the average of the samples' means and unbiased variances, weighed with momentum."""
    channels = running_mean.size
    samples = wide(shift.size // channels)
    mean = wide(0)
    var = wide(0)
    for r in range(c, shift.size, channels):
        mean += wide(shift[r]) + wide(rest[r])
        var += max(wide(0), wide(1) / (wide(scale[r]) * wide(scale[r])) - eps)
    unbiased = var / samples * (count / (count - wide(1)))
    keep = wide(1) - momentum
    running_mean[c] = real(keep * wide(running_mean[c]) + momentum * (mean / samples))
    running_var[c] = real(keep * wide(running_var[c]) + momentum * unbiased)


@cpu
def move_rows(shift, rest, scale, count, eps, momentum, running_mean, running_var):
    for c in range(running_mean.size):
        move_channel(c, shift, rest, scale, count, eps, momentum, running_mean, running_var)


@cuda
def move_rows_cuda(shift, rest, scale, count, eps, momentum, running_mean, running_var):
    for c in range(cu.grid(1), running_mean.size, cu.gridsize(1)):
        move_channel(c, shift, rest, scale, count, eps, momentum, running_mean, running_var)
