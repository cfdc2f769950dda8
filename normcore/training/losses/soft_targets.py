"""Cross-entropy for targets that spread over the classes, as mixup makes them: a share for each class."""

import math

from normcore.kernels import cpu, cu, cuda, inline, prange, real
from normcore.kernels.warps import warp_best, warp_sum
from normcore.training.losses.base import ROWS, add_up
from normcore.training.losses.rows import exponentials, first_best, largest


@inline
def _smoothed(share, smoothing, classes):
    return (real(1) - smoothing) * share + smoothing / real(classes)


@inline(reassociate=True)
def _overlap(row, shares, smoothing):
    """(sum of the smoothed shares, sum of share times logit)."""
    weight = real(0)
    overlap = real(0)
    for k in range(row.size):
        share = _smoothed(shares[k], smoothing, row.size)
        weight += share
        overlap += share * row[k]
    return weight, overlap


@inline
def _gradient(powers, shares, factor, smoothing, scale, out):
    for k in range(out.size):
        out[k] = powers[k] * factor - scale * _smoothed(shares[k], smoothing, out.size)


@cpu
def cross_entropy_shares(y, shares, smoothing, training, powers, values, right, total, dy):
    count = y.shape[0]
    scale = real(1) / real(count)
    for chunk in prange((count + ROWS - 1) // ROWS):
        for n in range(chunk * ROWS, min(count, chunk * ROWS + ROWS)):
            top = largest(y[n])
            mass = exponentials(y[n], top, powers[n])
            weight, overlap = _overlap(y[n], shares[n], smoothing)
            values[n] = (top + math.log(mass)) * weight - overlap
            right[n] = first_best(y[n]) == first_best(shares[n])
            if training:
                _gradient(powers[n], shares[n], scale * weight / mass, smoothing, scale, dy[n])
    add_up(values, right, count, total)


@cuda
def cross_entropy_shares_cuda(y, shares, smoothing, training, values, right, dy):
    """One warp a sample."""
    count, classes = y.shape
    scale = real(1) / real(count)
    lane = cu.threadIdx.x % 32
    for n in range(cu.grid(1) // 32, count, cu.gridsize(1) // 32):
        top = real(-math.inf)
        best = classes
        most = real(-math.inf)
        target = classes
        weight = real(0)
        overlap = real(0)
        for k in range(lane, classes, 32):
            share = _smoothed(shares[n, k], smoothing, classes)
            weight += share
            overlap += share * y[n, k]
            if y[n, k] > top:
                top = y[n, k]
                best = k
            if shares[n, k] > most:
                most = shares[n, k]
                target = k
        top, best = warp_best(top, best)
        most, target = warp_best(most, target)
        weight = warp_sum(weight)
        overlap = warp_sum(overlap)
        mass = real(0)
        for k in range(lane, classes, 32):
            mass += math.exp(y[n, k] - top)
        mass = warp_sum(mass)
        if lane == 0:
            values[n] = (top + math.log(mass)) * weight - overlap
            right[n] = best == target
        if training:
            for k in range(lane, classes, 32):
                share = _smoothed(shares[n, k], smoothing, classes)
                dy[n, k] = scale * (math.exp(y[n, k] - top) * (weight / mass) - share)
