"""Scalar mathematics of normalizing a channel, shared by every device and memory format."""

import math

from normcore.kernels import inline, real, wide

FAR = 64.0  # a shift this many variances (squared distance) off the mean costs two digits: sum again
INFINITY = math.inf
R_MAX = 1.0  # batch_renorm's limits of r and d, constants of its kernels; these are batch_norm
D_MAX = 0.0
THREADS = 256  # of a CUDA block that sums together; a power of two


@inline
def centered(x, s, d):
    """x minus the mean s + d; exact next to the mean. A function of its own, so that sums cannot regroup
    it."""
    return (x - s) - d


@inline
def affine(x, s, d, a, b):
    """gamma * xhat + beta, with a = gamma / sqrt(var + eps) and b = beta."""
    return (x - s - d) * a + b


@inline
def trusted(total, squares, count, eps):
    """Whether sums of u and u^2 give the variance: finite, shift near the mean, squares not underflown."""
    shifted = total * total / count
    spread = squares - shifted
    visible = (spread > count * wide(1e-30)) | (eps > wide(1e-20))
    return (squares < INFINITY) & (shifted <= wide(FAR) * spread) & visible


@inline
def parameter(array, c, default):
    """array[c], or the default where the op has no such array (size 0)."""
    return array[c] if array.size > 0 else real(default)


@inline
def clipped(v, low, high):
    """v within low and high; a NaN stays."""
    return low if v < low else (high if v > high else v)


@inline
def keep_change(c, mean, var, eps, running_mean, running_var, change):
    """batch_renorm: r and d of a channel from the batch's and the running statistics, before those move.

    change: r of all channels, then d of all; of size 0 for batch_norm."""
    if change.size > 0:
        running = math.sqrt(wide(running_var[c]) + eps)
        r = math.sqrt(var + eps) / running
        d = (mean - wide(running_mean[c])) / running
        change[c] = real(clipped(r, wide(1) / wide(R_MAX), wide(R_MAX)))
        change[change.size // 2 + c] = real(clipped(d, -wide(D_MAX), wide(D_MAX)))


@inline
def weights(c, gamma, beta, scale, change):
    """a and b of y = (x - mean) * a + b."""
    weight = parameter(gamma, c, 1)
    a = scale[c] * weight
    b = parameter(beta, c, 0)
    if change.size > 0:
        a *= change[c]
        b += weight * change[change.size // 2 + c]
    return a, b


@inline
def chunk_totals(sums, c):
    """Both sums of column c over all chunks, from sums (K, 2, C), in order."""
    first = wide(0)
    second = wide(0)
    for k in range(sums.shape[0]):
        first += sums[k, 0, c]
        second += sums[k, 1, c]
    return first, second


@inline
def weight_gradient(c, total, along, change):
    """dgamma from the sums of g and g * xhat."""
    if change.size > 0:
        along = along * wide(change[c]) + total * wide(change[change.size // 2 + c])
    return along
