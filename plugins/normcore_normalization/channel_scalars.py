"""Scalar mathematics of normalizing a channel, shared by every device and memory format."""

import math

from normcore.kernels import inline, real, wide

FAR = 64.0  # a shift this many variances (squared distance) off the mean costs two digits: sum again
INFINITY = math.inf
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
