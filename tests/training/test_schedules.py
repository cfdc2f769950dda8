"""Schedules against torch's and against their definitions."""

import math

import pytest

from normcore.errors import ParameterError
from normcore.training.schedules import (
    ConstantRate,
    Cosine,
    Exponential,
    Multistep,
    ReduceOnPlateau,
    Step,
)


@pytest.mark.peers
@pytest.mark.parametrize("name", ["step", "multistep", "exponential", "cosine"])
def test_factors_like_torch(name):
    torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler
    ours, theirs = {
        "step": (Step(3, 0.5), scheduler.StepLR(optimizer, 3, 0.5)),
        "multistep": (Multistep((2, 5), 0.1), scheduler.MultiStepLR(optimizer, [2, 5], 0.1)),
        "exponential": (Exponential(0.8), scheduler.ExponentialLR(optimizer, 0.8)),
        "cosine": (Cosine(), scheduler.CosineAnnealingLR(optimizer, 10)),
    }[name]
    for epoch in range(10):
        assert ours.rate(float(epoch), 10, {}, 0.1) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-12
        )
        optimizer.step()
        theirs.step()


def test_warm_up_climbs_linearly_and_meets_the_schedule():
    schedule = Cosine(warmup_epochs=2.0)
    steps = [schedule.rate(k / 10, 10, {}, 0.1) for k in range(30)]
    assert steps[:20] == pytest.approx([(k + 1) / 20 for k in range(20)])
    assert steps[20] == 1.0
    assert schedule.rate(10.0, 10, {}, 0.1) == pytest.approx(0.0)
    assert all(math.isfinite(s) for s in steps)


def test_plateau_lowers_the_rate_after_its_patience():
    schedule, state = ReduceOnPlateau(patience=1, gamma=0.1), {}
    factors = []
    for loss in (1.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.1):
        schedule.observe({"test_loss": loss}, state)
        factors.append(schedule.factor(0.0, 10, state))
    assert factors == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01])


def test_an_unknown_metric_is_named():
    with pytest.raises(ParameterError, match="test_loss"):
        ReduceOnPlateau(metric="tset_loss").observe({"test_loss": 1.0}, {})


def test_constant():
    assert ConstantRate().rate(5.0, 10, {}, 0.1) == 1.0
