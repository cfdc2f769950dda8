"""The conformance suite as pytest cases, for this project's tests and for any plugin author's.

import normcore.testing

@normcore.testing.parametrize_checks("my_norm", expected_failures={"infinities": "left open by the paper"})
def test_conformance(check):
    check()
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

from normcore.op import Op
from normcore.testing.outcome import Outcome
from normcore.testing.suite import CHECKS, check_one, resolve


class ConformanceError(AssertionError):
    """A check failed; the message names the op, the check and the smallest failing input."""


def run(op: type[Op], check: str, device: str) -> None:
    """Run one check inside pytest; a skip is a pytest skip with its reason."""
    import pytest

    outcome: Outcome = check_one(op, check, device=device)
    if outcome.status == "skipped":
        pytest.skip(outcome.detail)
    if outcome.status == "failed":
        raise ConformanceError(str(outcome))


def parametrize_checks(
    *ops: str | type[Op],
    device: str = "cpu",
    expected_failures: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
) -> Callable[[Any], Any]:
    """A pytest decorator: the function's argument `check` is called once for each check of each op.

    ops: registered names or Op classes; none means every op of the registry. expected_failures: check ->
    reason, or op -> {check: reason}; such a check must fail (strict), so that a mended fault is noticed.
    without: checks that run elsewhere.
    """
    import pytest

    from normcore.registry import default

    chosen = [resolve(op) for op in ops] if ops else [r.component for r in default().all("op")]
    expected = expected_failures or {}
    cases = []
    for cls in chosen:
        assert issubclass(cls, Op)
        for check in CHECKS:
            if check.name in without or (device != "cpu" and not check.gpu):
                continue
            of_op = expected.get(cls.name)
            reason = of_op.get(check.name) if isinstance(of_op, Mapping) else expected.get(check.name)
            marks = [pytest.mark.xfail(reason=reason, strict=True, raises=ConformanceError)] if reason else []
            cases.append(
                pytest.param(
                    partial(run, cls, check.name, device), id=f"{cls.name}-{check.name}", marks=marks
                )
            )
    return pytest.mark.parametrize("check", cases)
