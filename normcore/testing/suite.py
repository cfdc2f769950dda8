"""The conformance suite: which checks there are, running them on an op, and narrowing a failure down."""

import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from normcore.errors import NormcoreError
from normcore.op import Op, Shape
from normcore.testing import cuda_checks
from normcore.testing import declaration_checks as declared
from normcore.testing import memory_checks as memory
from normcore.testing import sameness_checks as sameness
from normcore.testing import saving_checks as saving
from normcore.testing import value_checks as values
from normcore.testing.arithmetic import single_precision
from normcore.testing.derive import samples_of
from normcore.testing.fusion_checks import fusion
from normcore.testing.outcome import Failed, Inapplicable, Outcome, Report, Skipped
from normcore.testing.running import Case

NARROWING = 40  # trials to make a failing input smaller


@dataclass(frozen=True)
class Check:
    """One check. on: "op" (called with the class), "first" (the op's first sample) or "all" samples.

    mandatory: skipped, it is a gap, and the op does not count as checked; but for an op that declares that there is
    nothing to check (outcome.Inapplicable). gpu: it makes sense with device="cuda" too.
    """

    name: str
    run: Callable[..., str]
    on: str = "first"
    mandatory: bool = False
    gpu: bool = True

    @property
    def about(self) -> str:
        return (self.run.__doc__ or "").strip()


CHECKS: tuple[Check, ...] = (
    Check("docs", declared.docs, "op", True, gpu=False),
    Check("samples", declared.samples, "op", True, gpu=False),
    Check(
        "bounds", memory.bounds, "all", True, gpu=False
    ),  # first: writing out of bounds spoils all that follows
    Check("value", values.value, "all", True),
    Check("inference", values.inference),
    Check("gradients", values.gradients, "all", True),
    Check("float32", values.float32),
    Check("single_precision", single_precision, gpu=False),
    Check("formats", sameness.formats),
    Check("modes", sameness.modes),
    Check("fusion", fusion, gpu=False),
    Check("batch_of_one", memory.single),
    Check("empty_batch", memory.empty_batch),
    Check("batch_sizes", memory.batch_sizes),
    Check("nan", values.nan),
    Check("infinities", values.infinities),
    Check("not_contiguous", memory.strided),
    Check("inputs_unmodified", memory.unmodified, mandatory=True),
    Check("overwrites", memory.overwrites, mandatory=True),
    Check("threads", sameness.threads, gpu=False),
    Check("repeatable", sameness.repeatable, mandatory=True),
    Check("backward_again", sameness.backward_again),
    Check("random_numbers", sameness.random_numbers),
    Check("save_and_load", saving.save_and_load, mandatory=True),
    Check("errors", declared.errors, "op"),
    Check("yaml", declared.yaml, "all", gpu=False),
    Check("cuda_kernels", declared.cuda, "op", gpu=False),
    Check("cuda_simulated", cuda_checks.simulated, "op", gpu=False),
    Check("cuda_compiled", cuda_checks.compiled, "op", gpu=False),
)
_BY_NAME = {check.name: check for check in CHECKS}


def check_names() -> tuple[str, ...]:
    """The names of all checks, in the order they run."""
    return tuple(_BY_NAME)


def resolve(op: str | type[Op]) -> type[Op]:
    """The op class of a registered name, or the class itself. Raises PluginError for an unknown name."""
    if isinstance(op, type):
        return op
    from normcore.registry import default

    return default().get("op", op).component  # type: ignore[return-value]


def check_op(
    op: str | type[Op],
    device: str = "cpu",
    seed: int = 0,
    only: Iterable[str] | None = None,
    progress: Callable[[Outcome], None] | None = None,
) -> Report:
    """Run the conformance suite on an op.

    op: a registered name or an Op class. only: names of checks (`check_names()`), None for all. progress:
    called with each outcome as it is known. Raises PluginError for an unknown op or check.
    """
    cls = resolve(op)
    names = list(_BY_NAME) if only is None else list(only)
    outcomes = []
    for name in names:
        if device != "cpu" and not find_check(name).gpu:
            continue
        outcomes.append(check_one(cls, name, device=device, seed=seed))
        if progress is not None:
            progress(outcomes[-1])
    return Report(cls.name, tuple(outcomes))


def check_one(
    op: str | type[Op],
    check: str,
    device: str = "cpu",
    seed: int = 0,
    shapes: Sequence[Shape] | None = None,
) -> Outcome:
    """Run one check on an op. shapes: instead of those of the first sample, to repeat a reported failure."""
    cls, found = resolve(op), find_check(check)
    started = time.perf_counter()
    outcome = _run(cls, found, device, seed, shapes)
    return replace(
        outcome, seconds=time.perf_counter() - started, mandatory=found.mandatory and outcome.mandatory
    )


def find_check(name: str) -> Check:
    """The check of a name. Raises PluginError."""
    from normcore.errors import PluginError, nearest

    if name not in _BY_NAME:
        raise PluginError(f"unknown check {name!r}{nearest(name, _BY_NAME)}")
    return _BY_NAME[name]


def _run(cls: type[Op], check: Check, device: str, seed: int, shapes: Sequence[Shape] | None) -> Outcome:
    if check.on == "op":
        status, detail, gap = _attempt(lambda: check.run(cls, device))
        return Outcome(cls.name, check.name, status, detail, mandatory=gap)
    try:
        samples = samples_of(cls)
    except Skipped:
        return Outcome(cls.name, check.name, "skipped", "the op has no samples")
    except Exception as fault:
        return Outcome(cls.name, check.name, "failed", _unexpected(fault), seed=seed)
    remarks: list[tuple[str, str, bool]] = []
    for sample in samples if check.on == "all" and shapes is None else samples[:1]:
        try:
            case = Case.of(cls, sample, seed, device)
        except Exception as fault:
            return Outcome(
                cls.name, check.name, "failed", _unexpected(fault), sample=sample.reason, seed=seed
            )
        if shapes is not None:
            case = case.with_shapes(tuple(map(tuple, shapes)))
        status, detail, gap = _attempt(lambda case=case: check.run(case))  # type: ignore[misc]
        if status == "failed":
            case, detail = _narrowed(check, case, detail)
            return Outcome(cls.name, check.name, "failed", detail, case.shapes, sample.reason, seed)
        remarks.append((status, detail, gap))
    # Passed when any sample could be checked; skipped when none could.
    passed = [detail for status, detail, _ in remarks if status == "passed"]
    if passed:
        return Outcome(cls.name, check.name, "passed", passed[0])
    gap = any(gap for _, _, gap in remarks)
    return Outcome(cls.name, check.name, "skipped", remarks[0][1], mandatory=gap)


def _attempt(run: Callable[[], str]) -> tuple[str, str, bool]:
    """Status, detail, and whether a skip leaves something unknown."""
    try:
        return "passed", run() or "", True
    except Inapplicable as reason:
        return "skipped", str(reason), False
    except Skipped as reason:
        return "skipped", str(reason), True
    except Failed as fault:
        return "failed", str(fault), True
    except Exception as fault:
        return "failed", _unexpected(fault), True


def _unexpected(fault: BaseException) -> str:
    if isinstance(fault, NormcoreError):
        return f"{type(fault).__name__}: {fault}"
    frames = traceback.extract_tb(fault.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(fault).__name__}: {fault}{place}"


def _narrowed(check: Check, case: Case, detail: str) -> tuple[Case, str]:
    """The smallest input found that still fails, with its message."""
    if case.sample.make is not None:
        return case, detail
    trials = 0
    smaller = True
    while smaller and trials < NARROWING:
        smaller = False
        for shapes in _smaller(case.shapes):
            trials += 1
            if trials > NARROWING:
                break
            trial = case.with_shapes(shapes)
            try:
                check.run(trial)
            except Failed as fault:
                case, detail, smaller = trial, str(fault), True
                break
            except Exception:  # does not fit, or fails in another way: not the failure that is narrowed
                continue
    return case, detail


def _smaller(shapes: tuple[Shape, ...]) -> list[tuple[Shape, ...]]:
    """Shapes with one axis made smaller in all inputs that share its size: half first, then one less."""
    found: list[tuple[Shape, ...]] = []
    changes: tuple[Callable[[int], int], ...] = (lambda n: n // 2, lambda n: n - 1)
    for change in changes:
        for axis in range(max(map(len, shapes))):
            sizes = {s[axis] for s in shapes if len(s) > axis}
            if len(sizes) != 1 or min(sizes) <= 1:
                continue
            found.append(
                tuple((*s[:axis], change(s[axis]), *s[axis + 1 :]) if len(s) > axis else s for s in shapes)
            )
    return [s for s in dict.fromkeys(found) if s != shapes]


def table(reports: Sequence[Report]) -> list[tuple[str, str, str, str]]:
    """Rows (op, check, status, detail) for printing."""
    return [(o.op, o.check, o.status, o.detail) for r in reports for o in r.outcomes]


def as_dict(reports: Sequence[Report]) -> dict[str, Any]:
    """For --json."""
    return {"ok": all(r.ok for r in reports), "ops": [r.as_dict() for r in reports]}
