"""What a check found, as plain data for the command line, for pytest and for programs."""

from dataclasses import asdict, dataclass
from typing import Any


class Failed(Exception):
    """Raised by a check: the op does not do what it must."""


class Skipped(Exception):
    """Raised by a check that has nothing to check on this op or this machine; the message says why."""


class Inapplicable(Skipped):
    """Raised by a check whose question does not arise, by the op's own declaration: no gap, though it be mandatory."""


@dataclass(frozen=True)
class Outcome:
    """One check of one op.

    status: "passed", "skipped" or "failed". detail: the reason of a skip, what failed, or a remark. shapes,
    seed: the smallest input that failed; check_one(op, check, shapes=..., seed=...) repeats it. mandatory: skipped, it
    is a gap.
    """

    op: str
    check: str
    status: str
    detail: str = ""
    shapes: tuple[tuple[int, ...], ...] = ()
    sample: str = ""
    seed: int = 0
    seconds: float = 0.0
    mandatory: bool = True

    def __str__(self) -> str:
        line = f"{self.op} {self.check}: {self.status}"
        if self.detail:
            line += f": {self.detail}"
        if self.status == "failed" and self.shapes:
            line += f"\n  smallest failing input: shapes {list(self.shapes)}, seed {self.seed}"
            line += f", sample {self.sample!r}" if self.sample else ""
        return line


@dataclass(frozen=True)
class Report:
    """All checks of one op, in the order of the suite."""

    op: str
    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(o for o in self.outcomes if o.status == "failed")

    @property
    def ok(self) -> bool:
        """Nothing failed and nothing mandatory was skipped."""
        return not any(o.status == "failed" or (o.status == "skipped" and o.mandatory) for o in self.outcomes)

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {"op": self.op, "ok": self.ok, "checks": [asdict(o) for o in self.outcomes]}
