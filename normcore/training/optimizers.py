"""Optimizers: one pass over the flat vectors of parameters, gradients and their own slots.

PyTorch's conventions where it has the optimizer. Weight decay, clipping and per-parameter rates are part of the
same pass, so a step reads and writes every vector once.
"""

import math
from dataclasses import field
from typing import Any, ClassVar

import numpy as np

from normcore.component import Component
from normcore.errors import ParameterError
from normcore.kernels import cpu, cu, cuda, inline, prange, real, wide
from normcore.kernels.warps import block_sum

CHUNK = 16384  # elements a task takes


class Optimizer(Component):
    """Base of optimizers.

    slots: names of the vectors it keeps, zero at the start. update_cpu(t) and update_cuda(t) change t.p in place
    from t.g and the slots (t.<slot>), chunk by chunk: chunk c is elements t.starts[c] .. t.stops[c], decayed by
    t.decays[c] and moved at t.rates[c] times the learning rate t.lr (a scalar of the dtype). t.scale multiplies
    every gradient first (clipping by global norm) and t.limit bounds it; t.step counts from 1.

    no_decay: parameters that weight_decay leaves alone, by array name ("bias") or by a pattern of the path
    ("conv1.*").
    """

    kind: ClassVar[str] = "optimizer"
    slots: ClassVar[tuple[str, ...]] = ()
    lr: float = 0.1
    weight_decay: float = field(default=0.0, kw_only=True)
    no_decay: tuple[str, ...] = field(default=(), kw_only=True)

    def check(self) -> None:
        if not self.lr >= 0:
            raise ParameterError("lr", "a number >= 0", self.lr)
        if not self.weight_decay >= 0:
            raise ParameterError("weight_decay", "a number >= 0", self.weight_decay)


def _below_one(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise ParameterError(name, "a number from 0 to below 1", value)


@inline
def _clipped(g, scale, limit):
    v = g * scale
    v = limit if v > limit else v
    return -limit if v < -limit else v


@inline
def _sgd_slice(p, g, velocity, scale, limit, decay, lr, momentum, kept, nesterov):
    """kept = 1 - dampening, or 1 in the first step: PyTorch starts the velocity from the gradient itself."""
    for i in range(p.size):
        d = _clipped(g[i], scale, limit) + decay * p[i]
        v = momentum * velocity[i] + kept * d
        velocity[i] = v
        p[i] -= lr * (d + momentum * v if nesterov else v)


@inline
def _plain_slice(p, g, scale, limit, decay, lr):
    for i in range(p.size):
        p[i] -= lr * (_clipped(g[i], scale, limit) + decay * p[i])


@cpu
def _sgd(p, g, velocity, starts, stops, decays, rates, scale, limit, lr, momentum, kept, nesterov):
    for c in prange(starts.size):
        lo = starts[c]
        hi = stops[c]
        if momentum == real(0):
            _plain_slice(p[lo:hi], g[lo:hi], scale, limit, decays[c], lr * rates[c])
        else:
            _sgd_slice(
                p[lo:hi],
                g[lo:hi],
                velocity[lo:hi],
                scale,
                limit,
                decays[c],
                lr * rates[c],
                momentum,
                kept,
                nesterov,
            )


@cuda
def _sgd_cuda(p, g, velocity, starts, stops, decays, rates, scale, limit, lr, momentum, kept, nesterov):
    """One block a chunk."""
    c = cu.blockIdx.x
    decay = decays[c]
    step = lr * rates[c]
    for i in range(starts[c] + cu.threadIdx.x, stops[c], cu.blockDim.x):
        d = _clipped(g[i], scale, limit) + decay * p[i]
        v = d
        if momentum != real(0):
            v = momentum * velocity[i] + kept * d
            velocity[i] = v
            if nesterov:
                v = d + momentum * v
        p[i] -= step * v


class Sgd(Optimizer, name="sgd"):
    """Stochastic gradient descent: v = momentum v + (1 - dampening) (g + weight_decay p); p -= lr v.

    nesterov: p -= lr (g + momentum v). Sutskever et al. 2013; conventions of torch.optim.SGD.
    """

    slots = ("velocity",)
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def check(self) -> None:
        super().check()
        _below_one("momentum", self.momentum)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ParameterError("nesterov", "false, unless momentum > 0 and dampening is 0", self.nesterov)

    def _arguments(self, t: Any) -> tuple[Any, ...]:
        kept = 1.0 if t.step == 1 else 1.0 - self.dampening
        return (
            *(t.p, t.g, t.velocity, t.starts, t.stops, t.decays, t.rates, t.scale, t.limit, t.lr),
            *(t.scalar(self.momentum), t.scalar(kept), self.nesterov),
        )

    def update_cpu(self, t: Any) -> None:
        _sgd[t](*self._arguments(t))

    def update_cuda(self, t: Any) -> None:
        _sgd_cuda[t, (t.starts.size, 256)](*self._arguments(t))


@inline
def _adam_slice(p, g, m, v, scale, limit, coupled, decoupled, lr, beta1, beta2, eps, root):
    for i in range(p.size):
        d = _clipped(g[i], scale, limit) + coupled * p[i]
        m[i] += (real(1) - beta1) * (d - m[i])
        v[i] = beta2 * v[i] + (real(1) - beta2) * d * d
        p[i] -= decoupled * p[i] + lr * m[i] / (math.sqrt(v[i]) * root + eps)


@cpu
def _adam(
    p, g, m, v, starts, stops, decays, rates, scale, limit, lr, beta1, beta2, eps, size, root, decouple
):
    for c in prange(starts.size):
        lo = starts[c]
        hi = stops[c]
        coupled = real(0) if decouple else decays[c]
        decoupled = lr * rates[c] * decays[c] if decouple else real(0)
        _adam_slice(
            p[lo:hi],
            g[lo:hi],
            m[lo:hi],
            v[lo:hi],
            scale,
            limit,
            coupled,
            decoupled,
            lr * rates[c] * size,
            beta1,
            beta2,
            eps,
            root,
        )


@cuda
def _adam_cuda(
    p, g, m, v, starts, stops, decays, rates, scale, limit, lr, beta1, beta2, eps, size, root, decouple
):
    """One block a chunk."""
    c = cu.blockIdx.x
    coupled = real(0) if decouple else decays[c]
    decoupled = lr * rates[c] * decays[c] if decouple else real(0)
    step = lr * rates[c] * size
    for i in range(starts[c] + cu.threadIdx.x, stops[c], cu.blockDim.x):
        d = _clipped(g[i], scale, limit) + coupled * p[i]
        m[i] += (real(1) - beta1) * (d - m[i])
        v[i] = beta2 * v[i] + (real(1) - beta2) * d * d
        p[i] -= decoupled * p[i] + step * m[i] / (math.sqrt(v[i]) * root + eps)


class Adam(Optimizer, name="adam"):
    """Kingma and Ba 2014, arXiv:1412.6980: moments m and v of the gradient, p -= lr m^ / (sqrt(v^) + eps).

    weight_decay is added to the gradient, as in torch.optim.Adam.
    """

    slots = ("m", "v")
    decouple: ClassVar[bool] = False
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def check(self) -> None:
        super().check()
        for beta in self.betas:
            _below_one("betas", beta)

    def _arguments(self, t: Any) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        size = 1.0 / (1.0 - beta1**t.step)
        root = 1.0 / math.sqrt(1.0 - beta2**t.step)
        return (
            *(t.p, t.g, t.m, t.v, t.starts, t.stops, t.decays, t.rates, t.scale, t.limit, t.lr),
            *map(t.scalar, (beta1, beta2, self.eps, size, root)),
            self.decouple,
        )

    def update_cpu(self, t: Any) -> None:
        _adam[t](*self._arguments(t))

    def update_cuda(self, t: Any) -> None:
        _adam_cuda[t, (t.starts.size, 256)](*self._arguments(t))


class AdamW(Adam, name="adamw"):
    """Adam whose weight decay acts on the parameter itself: p -= lr weight_decay p. Loshchilov and Hutter 2017."""

    decouple = True
    weight_decay: float = field(default=0.01, kw_only=True)


@inline(reassociate=True)
def _square_sum(g):
    total = real(0)
    for i in range(g.size):
        total += g[i] * g[i]
    return total


@cpu
def square_sums(g, starts, stops, partial):
    """partial[c] = sum of squares of chunk c, for the global norm."""
    for c in prange(starts.size):
        partial[c] = wide(_square_sum(g[starts[c] : stops[c]]))


@cuda
def square_sums_cuda(g, starts, stops, partial):
    """One block a chunk; a thread adds up few enough numbers for float32."""
    scratch = cu.shared.array(32, np.float64)
    c = cu.blockIdx.x
    total = real(0)
    for i in range(starts[c] + cu.threadIdx.x, stops[c], cu.blockDim.x):
        total += g[i] * g[i]
    everything = block_sum(wide(total), scratch)
    if cu.threadIdx.x == 0:
        partial[c] = everything


BUILT_IN = (Adam, AdamW, Sgd)
