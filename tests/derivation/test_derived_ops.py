"""Elementwise ops without a derivative, compiled and checked like any other."""

import math

import pytest

import normcore
import normcore.testing
from normcore.errors import PluginError
from normcore.kernels import inline


@inline
def logistic(z):
    return 1.0 / (1.0 + math.exp(-z))


@normcore.elementwise
class plain_swish:
    """x / (1 + exp(-beta x)), written without any care for overflow."""

    beta: float = 1.5

    def forward(x, beta):
        return x * logistic(beta * x)


@normcore.elementwise
class two_sided:
    """Statements, a kink away from 0, functions of an exponent."""

    power: float = 1.5

    def forward(x, power):
        low = math.expm1(x)
        if x > 0.5:
            low = (x + 0.5) ** power - 1.0
        return low * math.atan(x) + abs(math.sin(x))


@normcore.elementwise
class mixed:
    """Two inputs: a tanh(b) + max(a, b)."""

    def forward(a, b):
        return a * math.tanh(b) + max(a, b)


@pytest.mark.parametrize("op", [plain_swish, two_sided, mixed], ids=lambda op: op.name)
@pytest.mark.parametrize("check", ["gradients", "float32", "single_precision"])
def test_it_passes_the_check(op, check):
    outcome = normcore.testing.check_one(op, check)
    assert outcome.status == "passed", str(outcome)


def test_a_misspelt_function_is_an_error():
    with pytest.raises(PluginError, match="'derivatve'; did you mean 'derivative'"):

        @normcore.elementwise
        class typo:
            """x"""

            def forward(x):
                return x

            def derivatve(x, y):
                return 1.0


def test_an_op_that_cannot_be_derived_says_so_when_it_is_used():
    @normcore.elementwise
    class looped:
        """x^4"""

        def forward(x):
            y = x
            for _ in range(2):
                y = y * y
            return y

    with pytest.raises(PluginError, match=r"test_derived_ops\.py:\d+: .*a loop \(for\).*derivative\(x, y\)"):
        _ = looped.make().backward_needs
