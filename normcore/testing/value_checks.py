"""Checks of the numbers: against the reference, central differences, the other dtype, NaN and infinities."""

import inspect
from typing import Any

import numpy as np

from normcore.errors import PluginError
from normcore.op import Op
from normcore.testing import tolerances
from normcore.testing.outcome import Failed, Inapplicable, Skipped
from normcore.testing.running import Case, Runner
from normcore.testing.tolerances import compare

STEP = 2.0**-17  # exact in every input, see tolerances.GRADIENT
MOST_ELEMENTS = 300  # of one array whose differences are taken
KINK_SHARE = 0.05  # of an array's elements may sit at a kink


def reference(
    case: Case, runner: Runner, inputs: tuple[np.ndarray, ...], training: bool
) -> tuple[np.ndarray, ...]:
    """The reference's outputs for float64 inputs and the runner's parameters. Raises Skipped without one."""
    return call_reference(case.op, inputs, reference_arrays(runner, training))


def reference_arrays(runner: Runner, training: bool) -> dict[str, Any]:
    """What a reference is given beside the inputs: parameters, state, the mode, and a random op's key."""
    arrays: dict[str, Any] = {
        name: runner.host(a).astype(np.float64) for name, a in runner.layer.parameters.items()
    }
    arrays |= {name: runner.host(a).astype(np.float64) for name, a in runner.state.items()}
    arrays["training"] = training
    t = runner.layer._binding.t
    return arrays | {"key": t.key, "call": 0, "dtype": runner.dtype}


def call_reference(op: Op, inputs: tuple[np.ndarray, ...], arrays: dict[str, Any]) -> tuple[np.ndarray, ...]:
    """The reference's outputs, given those of the arrays that it asks for. Raises Skipped without one."""
    signature = inspect.signature(op.reference).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in signature.values()):
        arrays = {name: value for name, value in arrays.items() if name in signature}
    try:
        with np.errstate(all="ignore"):
            y = op.reference(*inputs, **arrays)
    except PluginError as fault:
        found = _plain_python(op, inputs)
        if found is None:
            raise Skipped(str(fault)) from None
        y = found
    return tuple(np.asarray(a) for a in (y if isinstance(y, tuple) else (y,)))


def _plain_python(op: Any, inputs: tuple[np.ndarray, ...]) -> np.ndarray | None:
    """An elementwise op without a reference: its own scalar function, run as Python in float64."""
    if not op.is_elementwise or not hasattr(op, "stages"):
        return None
    (_, parameters), *rest = op.stages()
    python = getattr(getattr(op, "definition", None), "forward", None)
    if python is None or rest:
        return None
    flat = [a.reshape(-1).tolist() for a in inputs]
    values = [_finite(python, *v, *parameters) for v in zip(*flat, strict=True)]
    return np.array(values, np.float64).reshape(inputs[0].shape)


def _finite(python: Any, *arguments: float) -> float:
    try:
        return float(python(*arguments))
    except OverflowError:
        return float("inf")
    except (ZeroDivisionError, ValueError):
        return float("nan")


def value(case: Case) -> str:
    """The float64 kernels' output equals the reference's."""
    runner = Runner(case, "float64")
    inputs = runner.cast(case.inputs())
    expected = reference(case, runner, inputs, case.sample.training)
    got = runner.forward(inputs)
    if len(got) != len(expected):
        raise Failed(f"{len(got)} outputs, the reference gives {len(expected)}")
    rtol = case.sample.rtol64 or tolerances.VALUE
    worst = max(
        compare(f"output {k}", a, b, rtol) for k, (a, b) in enumerate(zip(got, expected, strict=True))
    )
    return f"error {worst:.0e}"


def inference(case: Case) -> str:
    """The float32 kernels' output in inference equals the reference's."""
    runner = Runner(case, "float32")
    inputs = case.inputs()
    expected = reference(case, runner, inputs, training=False)
    got = runner.forward(runner.cast(inputs), training=False)
    rtol = case.sample.rtol32 or tolerances.VALUE_32
    worst = max(
        compare(f"output {k}", a, b, rtol) for k, (a, b) in enumerate(zip(got, expected, strict=True))
    )
    return f"error {worst:.0e}"


def gradients(case: Case) -> str:
    """The float64 gradients of inputs and parameters equal central differences."""
    if not case.differentiable:
        raise Inapplicable("the op declares no gradient")
    runner = Runner(case, "float64")
    inputs = runner.cast(case.inputs())
    run = runner.run(inputs)
    if not run.dx or not run.y[0].size:
        raise Skipped("an empty output has no gradient")
    dy = runner.dy(run.y[0].shape)
    if hasattr(case.op, "gradient_reference"):
        return _against_gradient_reference(case, runner, inputs, run)
    rtol = case.sample.gradient_rtol or tolerances.GRADIENT
    rng = np.random.default_rng(case.seed)
    worst, kinks = 0.0, 0
    arrays = [(f"input {k}", x, run.dx[k]) for k, x in enumerate(inputs) if run.dx[k] is not None]
    given = run.gradients or {}
    arrays += [(name, array, given[name]) for name, array in runner.layer.parameters.items()]

    def output() -> np.ndarray:
        return runner.forward(inputs)[0]

    for name, array, gradient in arrays:
        assert gradient is not None
        flat = array.reshape(-1)
        picked = np.arange(flat.size)
        if flat.size > MOST_ELEMENTS:
            picked = np.sort(rng.choice(flat.size, MOST_ELEMENTS, replace=False))
        numeric, one_sided = differences(output, flat, picked, dy)
        scale = max(
            float(np.max(np.abs(numeric), initial=0.0)), float(np.max(np.abs(gradient), initial=0.0)), 1e-3
        )
        error = np.abs(gradient.reshape(-1)[picked] - numeric) / scale
        at_kink = (error > rtol) & (one_sided > 1e-2 * scale)
        kinks += int(at_kink.sum())
        error = np.where(at_kink, 0.0, error)
        if at_kink.sum() > max(1, KINK_SHARE * picked.size):
            raise Failed(
                f"gradient of {name}: the derivative jumps at {int(at_kink.sum())} of {picked.size} elements"
            )
        if error.size and not error.max() <= rtol:
            k = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
            place = tuple(int(i) for i in np.unravel_index(int(picked[k]), array.shape))
            raise Failed(
                f"gradient of {name} at {place}: {float(gradient.reshape(-1)[picked[k]])!r}, central "
                f"differences give {float(numeric[k])!r}: error {error[k]:.1e} of the largest element, the "
                f"bound is {rtol:.0e}"
            )
        worst = max(worst, float(error.max(initial=0.0)))
    return f"error {worst:.0e}" + (f", {kinks} elements at kinks left out" if kinks else "")


def differences(
    output: Any, flat: np.ndarray, picked: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """d sum(dy * output) / d flat[picked] by central differences, and how far the one-sided ones disagree."""
    numeric, jump = np.zeros(picked.size), np.zeros(picked.size)
    middle = output()
    for k, index in enumerate(picked):
        kept = float(flat[index])
        flat[index] = kept + STEP
        right = output()
        flat[index] = kept - STEP
        left = output()
        flat[index] = kept
        numeric[k] = float(((right - left) * dy).sum()) / (2 * STEP)
        jump[k] = abs(float(((right - middle) * dy).sum() - ((middle - left) * dy).sum())) / STEP
    return numeric, jump


def _against_gradient_reference(case: Case, runner: Runner, inputs: tuple[np.ndarray, ...], run: Any) -> str:
    """For ops whose backward holds something constant: differences of op.gradient_reference(at=...)."""
    op: Any = case.op
    arrays = {name: runner.host(a) for name, a in runner.layer.parameters.items()}
    state = {name: runner.host(a) for name, a in runner.state.items()}
    at = tuple(x.copy() for x in inputs)
    dy = runner.dy(run.y[0].shape)

    def output() -> np.ndarray:
        return np.asarray(
            op.gradient_reference(*inputs, at=at, training=case.sample.training, **arrays, **state)
        )

    worst = 0.0
    pairs = [(f"input {k}", x, run.dx[k]) for k, x in enumerate(inputs) if run.dx[k] is not None]
    pairs += [(name, array, run.gradients[name]) for name, array in arrays.items()]
    for name, array, gradient in pairs:
        numeric, _ = differences(output, array.reshape(-1), np.arange(array.size), dy)
        rtol = case.sample.gradient_rtol or tolerances.GRADIENT
        worst = max(worst, compare(f"gradient of {name}", gradient.reshape(-1), numeric, rtol))
    return f"error {worst:.0e}, with what backward holds constant held"


def float32(case: Case) -> str:
    """The float32 kernels agree with the float64 ones on the same numbers, forward and backward."""
    if case.op.stochastic and case.sample.training:
        raise Skipped("a random op draws other numbers in float32 than in float64")
    narrow, wide = Runner(case, "float32"), Runner(case, "float64")
    inputs = case.inputs()
    a, b = narrow.run(narrow.cast(inputs)), wide.run(wide.cast(inputs))
    worst = 0.0
    for (what, got), (_, expected) in zip(a.arrays(), b.arrays(), strict=True):
        bound = tolerances.GRADIENT_32 if what.startswith("gradient") else tolerances.VALUE_32
        worst = max(worst, compare(what, got, expected, case.sample.rtol32 or bound))
    return f"error {worst:.0e}"


def nan(case: Case) -> str:
    """A NaN in the input reaches the outputs that depend on it, and no others."""
    checked = 0
    for k, x in enumerate(case.inputs()):
        if x.dtype.kind == "f" and x.size:
            _special(case, k, float("nan"))
            checked += 1
    if not checked:
        raise Skipped("the inputs are integers")
    return ""


def infinities(case: Case) -> str:
    """An infinity in the input gives what the reference gives; where that is NaN, a limit is right too."""
    checked = 0
    for k, x in enumerate(case.inputs()):
        if x.dtype.kind == "f" and x.size:
            _special(case, k, float("inf"))
            _special(case, k, float("-inf"))
            checked += 1
    if not checked:
        raise Skipped("the inputs are integers")
    return ""


def _special(case: Case, which: int, special: float) -> None:
    if (
        case.op.stochastic
        and case.sample.training
        and "key" not in inspect.signature(case.op.reference).parameters
    ):
        raise Skipped("the reference of this random op knows inference only")
    inputs = case.inputs()
    x = inputs[which]
    index = tuple(int(i) for i in np.unravel_index(x.size // 2, x.shape))
    x[index] = special
    runner = Runner(case, "float32")
    expected = reference(case, runner, inputs, case.sample.training)
    got = runner.forward(runner.cast(inputs))
    rtol = max(case.sample.rtol32 or 0.0, tolerances.VALUE_32)
    reached = False
    for k, (y, right) in enumerate(zip(got, expected, strict=True)):
        if y.dtype.kind != "f":
            continue  # indices
        if not np.isnan(special):
            y = np.where(np.isnan(right), np.nan, y)
        reached |= bool(np.isnan(y).any())
        with np.errstate(over="ignore"):
            compare(
                f"output {k} with {special} in input {which} at {index}", y, right.astype(np.float32), rtol
            )
    if np.isnan(special) and not reached and not case.op.stochastic:
        ordinary = inputs[which].copy()
        ordinary[index] = 0.0
        first = runner.forward(runner.cast((*inputs[:which], ordinary, *inputs[which + 1 :])))
        ordinary[index] = 1e3
        second = runner.forward(runner.cast((*inputs[:which], ordinary, *inputs[which + 1 :])))
        if any((a != b).any() for a, b in zip(first, second, strict=True)):  # else no output depends on it
            raise Failed(f"a NaN in input {which} at {index} reaches no output: NaN must propagate")
