"""Adam (Kingma and Ba 2014) and AdamW (Loshchilov and Hutter 2017); conventions of torch.optim."""

import math
from dataclasses import field

from normcore.kernels import inline, real
from normcore.training.optimizers.base import Optimizer, below_one


@inline
def _moved(p, g, m, v, lr, c):
    m = m + (real(1) - c[0]) * (g - m)
    v = c[1] * v + (real(1) - c[1]) * g * g
    return p - lr * c[3] * m / (math.sqrt(v) * c[4] + c[2]), m, v


@inline
def _adam(p, g, m, v, decay, lr, c):
    return _moved(p, g + decay * p, m, v, lr, c)


@inline
def _adamw(p, g, m, v, decay, lr, c):
    return _moved(p - lr * decay * p, g, m, v, lr, c)


class Adam(Optimizer, name="adam"):
    """Kingma and Ba 2014, arXiv:1412.6980: moments m and v of the gradient, p -= lr m^ / (sqrt(v^) + eps).

    m^ and v^ are m and v freed from their start at zero. weight_decay is added to the gradient.
    """

    torch_name = "Adam"
    slots = ("m", "v")
    rule = _adam
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def check(self) -> None:
        super().check()
        for beta in self.betas:
            below_one("betas", beta)

    def constants(self, step: int) -> tuple[float, ...]:
        beta1, beta2 = self.betas
        return (beta1, beta2, self.eps, 1.0 / (1.0 - beta1**step), 1.0 / math.sqrt(1.0 - beta2**step))


class AdamW(Adam, name="adamw"):
    """Adam whose weight decay acts on the parameter itself: p -= lr weight_decay p. Loshchilov and Hutter 2017."""

    torch_name = "AdamW"
    rule = _adamw
    weight_decay: float = field(default=0.01, kw_only=True)
