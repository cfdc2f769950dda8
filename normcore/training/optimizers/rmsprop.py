"""RMSprop: every parameter's step is divided by a moving root mean square of its gradient.

Source: Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning"; centered: Graves 2013,
arXiv:1308.0850. Conventions of torch.optim.RMSprop: eps stands outside the root.
"""

import math
from typing import Any

from normcore.errors import ParameterError
from normcore.kernels import inline, real
from normcore.training.optimizers.base import Optimizer, below_one


@inline
def _plain(p, g, square, decay, lr, c):
    d = g + decay * p
    square = c[0] * square + (real(1) - c[0]) * d * d
    return p - lr * d / (math.sqrt(square) + c[1]), square


@inline
def _momentum(p, g, square, velocity, decay, lr, c):
    d = g + decay * p
    square = c[0] * square + (real(1) - c[0]) * d * d
    v = c[2] * velocity + d / (math.sqrt(square) + c[1])
    return p - lr * v, square, v


@inline
def _deviation(square, mean):
    """The root of the variance; rounding may leave a constant gradient's slightly below zero."""
    variance = square - mean * mean
    return math.sqrt(variance if variance > real(0) else real(0))


@inline
def _centered(p, g, square, mean, decay, lr, c):
    d = g + decay * p
    square = c[0] * square + (real(1) - c[0]) * d * d
    mean = mean + (real(1) - c[0]) * (d - mean)
    return p - lr * d / (_deviation(square, mean) + c[1]), square, mean


@inline
def _centered_momentum(p, g, square, mean, velocity, decay, lr, c):
    d = g + decay * p
    square = c[0] * square + (real(1) - c[0]) * d * d
    mean = mean + (real(1) - c[0]) * (d - mean)
    v = c[2] * velocity + d / (_deviation(square, mean) + c[1])
    return p - lr * v, square, mean, v


class RmsProp(Optimizer, name="rmsprop"):
    """s = alpha s + (1 - alpha) g^2; p -= lr g / (sqrt(s) + eps). Tieleman and Hinton 2012.

    centered: the root of the gradient's variance instead. momentum: the quotients are gathered in a velocity.
    """

    torch_name = "RMSprop"
    lr: float = 0.01
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def check(self) -> None:
        super().check()
        below_one("alpha", self.alpha)
        below_one("momentum", self.momentum)
        if not self.eps >= 0:
            raise ParameterError("eps", "a number >= 0", self.eps)

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        mean = ("mean",) if self.centered else ()
        return ("square", *mean, *(("velocity",) if self.momentum else ()))

    @property
    def rule(self) -> Any:  # type: ignore[override]
        if self.centered:
            return _centered_momentum if self.momentum else _centered
        return _momentum if self.momentum else _plain

    def constants(self, step: int) -> tuple[float, ...]:
        return (self.alpha, self.eps, self.momentum)
