"""Stochastic gradient descent, with momentum as Sutskever et al. 2013 compare it; conventions of torch.optim.SGD."""

from typing import Any

from normcore.errors import ParameterError
from normcore.kernels import inline
from normcore.training.optimizers.base import Optimizer, below_one


@inline
def _plain(p, g, decay, lr, c):
    return p - lr * (g + decay * p)


@inline
def _momentum(p, g, velocity, decay, lr, c):
    v = c[0] * velocity + c[1] * (g + decay * p)
    return p - lr * v, v


@inline
def _nesterov(p, g, velocity, decay, lr, c):
    d = g + decay * p
    v = c[0] * velocity + c[1] * d
    return p - lr * (d + c[0] * v), v


class Sgd(Optimizer, name="sgd"):
    """Stochastic gradient descent: v = momentum v + (1 - dampening) (g + weight_decay p); p -= lr v.

    nesterov: p -= lr (g + weight_decay p + momentum v). The first step starts v from the gradient itself.
    """

    torch_name = "SGD"
    momentum: float = 0.0
    nesterov: bool = False
    dampening: float = 0.0

    def check(self) -> None:
        super().check()
        below_one("momentum", self.momentum)
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ParameterError("nesterov", "false, unless momentum > 0 and dampening is 0", self.nesterov)

    @property
    def slots(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("velocity",) if self.momentum else ()

    @property
    def rule(self) -> Any:  # type: ignore[override]
        return _nesterov if self.nesterov else _momentum if self.momentum else _plain

    def constants(self, step: int) -> tuple[float, ...]:
        return (self.momentum, 1.0 if step == 1 else 1.0 - self.dampening)
