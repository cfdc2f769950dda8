"""The bins of adaptive pooling and of spatial pyramids: `count` of them cover an axis of `size` elements.

Bin i holds the elements floor(i * size / count) up to, not including, ceil((i + 1) * size / count). No bin is
empty; neighbours share an element where the division leaves a remainder, and more than that where count exceeds
size. The functions serve kernels and plain Python alike.

Source: He, Zhang, Ren and Sun 2014, "Spatial pyramid pooling in deep convolutional networks for visual
recognition", arXiv:1406.4729, section 2.3 (bins with proportional floor and ceiling), as PyTorch has them.
"""

from normcore.kernels import inline


@inline
def bin_start(i, size, count):
    return i * size // count


@inline
def bin_stop(i, size, count):
    return ((i + 1) * size + count - 1) // count


@inline
def first_bin(at, size, count):
    """The first bin that holds element `at`; those after it follow until one starts behind `at`."""
    return at * count // size


def largest_bin(size, count):
    """Elements of the largest bin."""
    return max(bin_stop(i, size, count) - bin_start(i, size, count) for i in range(count))
