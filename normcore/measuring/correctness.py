"""Is the kernel that is about to be timed right? Against the op's float64 reference, at the timed shape.

The output is compared element by element. The gradient dx is compared along random directions v of signs:
sum(dx v) against a central difference of the reference along v, relative to |dx|. A gradient of which one part in
ten thousand (of its energy) is wrong exceeds the bound. Of a large batch as many samples are checked as the reference
manages in the time allowed; the kernels run in the timed variant (dtype, memory format, threads) throughout.
"""

import inspect
import math
import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.binding import Binding
from normcore.devices import device as devices
from normcore.measuring.cases import BenchCase, tensors
from normcore.op import Shape
from normcore.testing.outcome import Failed, Skipped
from normcore.testing.running import Case, Run, Runner
from normcore.testing.tolerances import compare
from normcore.testing.value_checks import call_reference, reference_arrays

SECONDS = 1.0  # for the reference's part
MOST_ELEMENTS = 20_000_000
FLAT = 100_003  # elements that show an elementwise kernel: several chunks and a remainder
VALUE = {"float32": 5e-5, "float64": 1e-9}  # of the largest element; conv sums thousands of products
STEP = 2.0**-23  # of the reference's differences: few maxima change places, float64 loses nothing yet
GRADIENT = 5e-3  # of |dx|: what a kink or two within the step leaves
PROBES = 3  # directions; the median counts, for one may cross a kink


@dataclass(frozen=True)
class Verdict:
    """forward, backward: right, wrong, or None where it could not be told. detail: why. batch: samples checked."""

    forward: bool | None
    backward: bool | None
    detail: str = ""
    batch: int = 0

    def of(self, direction: str) -> bool | None:
        return self.forward if direction == "forward" else self.backward


class _TimedCase(Case):
    """A conformance case whose kernels run in the variant that is timed."""

    parallel = True

    def threshold(self, dtype: str) -> int:
        return 0 if self.parallel else 1 << 62


def check(case: BenchCase, seconds: float = SECONDS) -> Verdict:
    """Never raises for a wrong op: the verdict says so."""
    batch = case.shapes[0][0]
    if case.op.is_elementwise and case.elements > FLAT * len(case.shapes):
        return _check(case, ((1, FLAT),) * len(case.shapes))[0]  # its loop knows no shape
    if case.sample.make is not None or batch <= 2:
        return _check(case, case.shapes)[0]
    verdict, took = _check(case, tuple((2, *s[1:]) for s in case.shapes))
    if verdict.forward is not True or verdict.backward is False:
        return verdict
    per_sample = max(1, case.elements // batch)
    more = min(batch, int(2 * seconds / max(took, 1e-6)), MOST_ELEMENTS // per_sample)
    return _check(case, tuple((more, *s[1:]) for s in case.shapes))[0] if more > 2 else verdict


def _check(case: BenchCase, shapes: tuple[Shape, ...]) -> tuple[Verdict, float]:
    """The verdict on inputs of these shapes, and the seconds that the reference needed for it."""
    timed = _TimedCase(case.op, case.sample, shapes, device=case.device)
    object.__setattr__(timed, "parallel", runs_parallel(case))
    clock = [0.0]
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            verdict = _compare(case, timed, shapes[0][0], clock)
    except Skipped as reason:
        verdict = Verdict(None, None, str(reason), shapes[0][0])
    return verdict, clock[0]


def runs_parallel(case: BenchCase) -> bool:
    """Whether the engine takes parallel kernels for this case."""
    binding = Binding(
        case.op, tensors(case.op, case.shapes, case.dtype), path="", dtype=case.dtype, format=case.memory_format,
        device=devices.get(case.device), seed=0,
    )  # fmt: skip
    return bool(binding.t.variant.parallel)


def _compare(case: BenchCase, timed: Case, batch: int, clock: list[float]) -> Verdict:
    runner = Runner(timed, case.dtype, case.memory_format, devices.get(case.device))
    inputs = timed.inputs()
    training, detail = case.training, ""
    if case.op.stochastic and "key" not in inspect.signature(case.op.reference).parameters:
        training, detail = False, "random: checked in inference"
    run = runner.run(runner.cast(inputs), training)
    arrays = reference_arrays(runner, training)
    started = time.perf_counter()
    expected = call_reference(case.op, inputs, arrays)
    evaluations = 1 + 2 * PROBES * (len(run.dx) + len(run.gradients or {}))
    clock[0] = evaluations * (time.perf_counter() - started)
    try:
        if len(run.y) != len(expected):
            raise Failed(f"{len(run.y)} outputs, the reference gives {len(expected)}")
        bound = VALUE[case.dtype]
        if case.dtype == "float32":
            bound = max(bound, case.sample.rtol32 or 0.0)
        for k, (y, right) in enumerate(zip(run.y, expected, strict=True)):
            compare("output" if len(run.y) == 1 else f"output {k}", y, right, bound)
    except Failed as fault:
        return Verdict(False, None, str(fault), batch)
    if not run.dx:
        return Verdict(True, None, detail, batch)
    fault_text = _wrong_gradient(case, runner, inputs, arrays, run, training)
    return Verdict(True, not fault_text, fault_text or detail, batch)


def _wrong_gradient(
    case: BenchCase,
    runner: Runner,
    inputs: tuple[np.ndarray, ...],
    arrays: dict[str, Any],
    run: Run,
    training: bool,
) -> str:
    """What is wrong with the gradients, or ""."""
    dy = runner.dy(run.y[0].shape).astype(np.float64)
    op: Any = case.op

    def slope(change: dict[Any, np.ndarray]) -> float:
        """The derivative of sum(dy * reference) along a change of inputs (by number) and parameters (by name)."""
        values = []
        for sign in (STEP, -STEP):
            moved = tuple(x + sign * change[k] if k in change else x for k, x in enumerate(inputs))
            others = {k: a + sign * change[k] if k in change else a for k, a in arrays.items()}
            if hasattr(op, "gradient_reference"):
                kept = {k: others[k] for k in (*runner.layer.parameters, *runner.state)}
                values.append(np.asarray(op.gradient_reference(*moved, at=inputs, training=training, **kept)))
            else:
                values.append(call_reference(op, moved, others)[0])
        return float(((values[0] - values[1]) * dy).sum() / (2 * STEP))

    pairs: list[tuple[str, Any, np.ndarray]] = [
        (f"input {k}" if len(run.dx) > 1 else "the input", k, dx)
        for k, dx in enumerate(run.dx)
        if dx is not None
    ]
    pairs += [(name, name, gradient) for name, gradient in (run.gradients or {}).items()]
    rng = np.random.default_rng(1)
    for what, key, gradient in pairs:
        size = float(np.linalg.norm(gradient.astype(np.float64)))
        if not math.isfinite(size):
            return f"gradient of {what} is not finite"
        errors = []
        for _ in range(PROBES):
            v = rng.choice([-1.0, 1.0], gradient.shape)
            expected = slope({key: v})
            # |dx| bounds the noise; a gradient that is zero all over has the reference's slope to answer for
            scale = max(size, abs(expected), 1e-6 * math.sqrt(max(1, gradient.size)))
            errors.append(abs(float((gradient * v).sum(dtype=np.float64)) - expected) / scale)
        error = sorted(errors)[PROBES // 2]
        if not error <= GRADIENT:
            return f"gradient of {what}: off by {error:.1e} of its size along random directions"
    return ""
