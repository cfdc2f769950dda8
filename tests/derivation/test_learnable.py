"""Elementwise ops with learnable parameters."""

import math

import numpy as np
import pytest

import normcore
import normcore.testing
from normcore.errors import PluginError
from normcore.testing.samples import Sample


@normcore.elementwise(learnable=("alpha", "shift"))
class learned_tanh:
    """gain tanh(alpha x + shift) with learned alpha and shift."""

    alpha: float = 0.75
    gain: float = 1.5
    shift: float = 0.25

    samples = (Sample("a remainder", shape=(3, 7, 5)), Sample("two chunks", shape=(2, 20001)))

    def forward(x, alpha, gain, shift):
        return gain * math.tanh(alpha * x + shift)

    def reference(x, alpha, gain, shift):
        e = np.exp(-2.0 * np.abs(alpha * x + shift))
        return gain * np.sign(alpha * x + shift) * (1.0 - e) / (1.0 + e)

    def derivative_shift(x, y, alpha, gain, shift):
        return (gain - y) * (1.0 + y / gain)


@normcore.elementwise(learnable=("mix",))
class learned_mix:
    """mix a + (1 - mix) b"""

    mix: float = 0.5

    def forward(a, b, mix):
        return mix * a + (1.0 - mix) * b


def test_it_passes_the_whole_check():
    report = normcore.testing.check_op(learned_tanh)
    assert not report.failed, [str(o) for o in report.failed]
    assert report.ok


@pytest.mark.parametrize("check", ["gradients", "float32"])
def test_two_inputs(check):
    outcome = normcore.testing.check_one(learned_mix, check)
    assert outcome.status == "passed", str(outcome)


def test_learnable_names_a_parameter_of_forward():
    with pytest.raises(PluginError, match="beta"):

        @normcore.elementwise(learnable=("beta",))
        class wrong:
            """alpha x"""

            alpha: float = 1.0

            def forward(x, alpha):
                return alpha * x
