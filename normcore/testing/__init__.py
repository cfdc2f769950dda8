"""The conformance suite: what every op must do, checked on any op of the registry.

    normcore.testing.check_op("my_norm")             a Report, for programs and `normcore check`
    @normcore.testing.parametrize_checks("my_norm")  the same checks as pytest cases
    Sample, ErrorSample                              what an op declares for it

Needs neither pytest nor hypothesis; parametrize_checks alone imports pytest. Everything is imported at its
first use, so that an op file that declares samples loads nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from normcore.testing.outcome import Outcome, Report
    from normcore.testing.parametrize import parametrize_checks
    from normcore.testing.samples import ErrorSample, Sample
    from normcore.testing.suite import check_names, check_one, check_op

_HOMES = {
    "ErrorSample": "samples",
    "Outcome": "outcome",
    "Report": "outcome",
    "Sample": "samples",
    "check_names": "suite",
    "check_one": "suite",
    "check_op": "suite",
    "parametrize_checks": "parametrize",
}

__all__ = [
    "ErrorSample",
    "Outcome",
    "Report",
    "Sample",
    "check_names",
    "check_one",
    "check_op",
    "parametrize_checks",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'normcore.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"normcore.testing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
