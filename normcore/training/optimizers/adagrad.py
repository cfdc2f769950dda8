"""Adagrad: a parameter's step shrinks with the sum of the squares of all its gradients so far.

Source: Duchi, Hazan and Singer 2011, JMLR 12. Conventions of torch.optim.Adagrad.
"""

import math

from normcore.errors import ParameterError
from normcore.kernels import inline
from normcore.training.optimizers.base import Optimizer


@inline
def _adagrad(p, g, total, decay, lr, c):
    d = g + decay * p
    total = total + c[0] + d * d
    return p - lr * c[1] * d / (math.sqrt(total) + c[2]), total


class Adagrad(Optimizer, name="adagrad"):
    """s += g^2; p -= lr / (1 + (step - 1) lr_decay) g / (sqrt(s) + eps). Duchi, Hazan and Singer 2011."""

    torch_name = "Adagrad"
    slots = ("total",)
    rule = _adagrad
    lr: float = 0.01
    lr_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def check(self) -> None:
        super().check()
        for name in ("lr_decay", "initial_accumulator_value", "eps"):
            if not getattr(self, name) >= 0:
                raise ParameterError(name, "a number >= 0", getattr(self, name))

    def constants(self, step: int) -> tuple[float, ...]:
        begun = self.initial_accumulator_value if step == 1 else 0.0
        return (begun, 1.0 / (1.0 + (step - 1) * self.lr_decay), self.eps)
