"""my_op: an elementwise op. Check it with `normcore check my_op.py`."""

import math

import normcore


@normcore.elementwise(source="your paper, or your name and the year")
class my_op:
    """x + alpha tanh(x): the identity far from zero, 1 + alpha times as steep at zero. alpha: the extra slope."""

    alpha: float = 0.5

    def forward(x, alpha):
        return x + alpha * math.tanh(x)

    def derivative(x, y, alpha):
        return 1.0 + alpha * (1.0 - math.tanh(x) ** 2)


@normcore.hookimpl
def normcore_ops():
    return [my_op]
