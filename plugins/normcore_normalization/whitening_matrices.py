"""The small matrices of decorrelated_batch_norm, (G, d, d) float64, element by element; the same on every device.

With U and lambda from the covariance, s = sqrt(lambda + eps) and D = U diag(1 / s) U^T.
"""

import math

import numpy as np

from normcore.kernels import cpu, cu, cuda, inline, prange, wide


@inline
def deviation(values, g, k, eps):
    """s_k; rounding may leave an eigenvalue of 0 a little below."""
    return math.sqrt(max(values[g, k], wide(0)) + eps) if values[g, k] == values[g, k] else values[g, k]


@inline
def root_element(values, vectors, g, i, j, eps):
    total = wide(0)
    for k in range(values.shape[1]):
        total += vectors[g, i, k] * vectors[g, j, k] / deviation(values, g, k, eps)
    return total


@inline
def first_element(cross, vectors, gamma, g, i, j):
    """(diag(gamma) cross U)_ij: dL/dD times U."""
    d = vectors.shape[1]
    total = wide(0)
    for k in range(d):
        total += cross[g, i, k] * vectors[g, k, j]
    return total * (wide(gamma[g * d + i]) if gamma.size > 0 else wide(1))


@inline
def second_element(first, values, vectors, g, i, j, eps):
    """The symmetric part of U^T first, times the divided difference of lambda^(-1/2)."""
    total = wide(0)
    for k in range(vectors.shape[1]):
        total += vectors[g, k, i] * first[g, k, j] + vectors[g, k, j] * first[g, k, i]
    a, b = deviation(values, g, i, eps), deviation(values, g, j, eps)
    return wide(-0.5) * total / (a * b * (a + b))


@inline
def product_element(a, b, g, i, j):
    total = wide(0)
    for k in range(a.shape[1]):
        total += a[g, i, k] * b[g, k, j]
    return total


@inline
def product_transposed_element(a, b, g, i, j):
    total = wide(0)
    for k in range(a.shape[1]):
        total += a[g, i, k] * b[g, j, k]
    return total


@inline
def root_row(values, vectors, root, g, i, eps):
    for j in range(root.shape[2]):
        root[g, i, j] = root_element(values, vectors, g, i, j, eps)


@inline
def first_row(cross, vectors, gamma, first, g, i):
    for j in range(first.shape[2]):
        first[g, i, j] = first_element(cross, vectors, gamma, g, i, j)


@inline
def second_row(first, values, vectors, second, g, i, eps):
    for j in range(second.shape[2]):
        second[g, i, j] = second_element(first, values, vectors, g, i, j, eps)


@inline
def product_row(a, b, out, g, i):
    for j in range(out.shape[2]):
        out[g, i, j] = product_element(a, b, g, i, j)


@inline
def finish_row(first, vectors, root, gamma, sums, through, along, offset, g, i, share):
    """Row i of what dx takes from dy, `through` = D diag(gamma), and from the centered x, `along`; and the constant."""
    d = root.shape[1]
    total = wide(0)
    for j in range(d):
        through[g, i, j] = root[g, i, j] * (wide(gamma[g * d + j]) if gamma.size > 0 else wide(1))
        total += through[g, i, j] * sums[g * d + j]
        along[g, i, j] = wide(0)
        if share > wide(0):
            along[g, i, j] = wide(2) * share * product_transposed_element(first, vectors, g, i, j)
    offset[g * d + i] = -share * total


@cpu
def root_matrix(values, vectors, root, eps):
    d = root.shape[1]
    for r in prange(root.shape[0] * d):
        root_row(values, vectors, root, r // d, r % d, eps)


@cpu
def gradient_matrices(
    cross, sums, values, vectors, root, gamma, first, second, through, along, offset, eps, share
):
    """share: 1/m, or 0 where running statistics were used, which are constants."""
    d = root.shape[1]
    rows = root.shape[0] * d
    if share > wide(0):
        for r in prange(rows):
            first_row(cross, vectors, gamma, first, r // d, r % d)
        for r in prange(rows):
            second_row(first, values, vectors, second, r // d, r % d, eps)
        for r in prange(rows):
            product_row(vectors, second, first, r // d, r % d)
    for r in prange(rows):
        finish_row(first, vectors, root, gamma, sums, through, along, offset, r // d, r % d, share)


@cuda
def root_cuda(values, vectors, root, eps):
    d = root.shape[1]
    for r in range(cu.grid(1), root.shape[0] * d, cu.gridsize(1)):
        root_row(values, vectors, root, r // d, r % d, eps)


@cuda
def first_cuda(cross, vectors, gamma, first):
    d = first.shape[1]
    for r in range(cu.grid(1), first.shape[0] * d, cu.gridsize(1)):
        first_row(cross, vectors, gamma, first, r // d, r % d)


@cuda
def second_cuda(first, values, vectors, second, eps):
    d = first.shape[1]
    for r in range(cu.grid(1), first.shape[0] * d, cu.gridsize(1)):
        second_row(first, values, vectors, second, r // d, r % d, eps)


@cuda
def product_cuda(a, b, out):
    d = out.shape[1]
    for r in range(cu.grid(1), out.shape[0] * d, cu.gridsize(1)):
        product_row(a, b, out, r // d, r % d)


@cuda
def finish_cuda(first, vectors, root, gamma, sums, through, along, offset, share):
    d = root.shape[1]
    for r in range(cu.grid(1), root.shape[0] * d, cu.gridsize(1)):
        finish_row(first, vectors, root, gamma, sums, through, along, offset, r // d, r % d, share)


def inverse_root(matrix):
    """matrix^(-1/2) by Denman and Beavers' iteration: no eigenvalues, so a check on what takes them."""
    root, inverse = matrix, np.eye(len(matrix))
    for _step in range(60):
        root, inverse = (root + np.linalg.inv(inverse)) / 2, (inverse + np.linalg.inv(root)) / 2
    return inverse
