"""Checks of what an op does to memory: inputs, outputs, guard zones, odd strides, batch sizes."""

import numpy as np

from normcore.errors import ShapeError
from normcore.testing.outcome import Failed, Inapplicable, Skipped
from normcore.testing.running import Case, Guarded, Run, Runner
from normcore.testing.tolerances import VALUE_32, compare, same_bits


def same_run(what: str, got: Run, expected: Run) -> None:
    """Raises Failed unless every array of both runs has the same bits."""
    for (name, a), (_, b) in zip(got.arrays(), expected.arrays(), strict=True):
        same_bits(f"{what}: {name}", a, b)


def unmodified(case: Case) -> str:
    """Forward and backward leave inputs, parameters and the arriving gradient as they were."""
    runner = Runner(case, "float32")
    inputs = runner.cast(case.inputs())
    kept = [a.copy() for a in inputs]
    parameters = {name: runner.host(a) for name, a in runner.layer.parameters.items()}
    y = runner.forward(inputs)
    for k, (a, b) in enumerate(zip(inputs, kept, strict=True)):
        same_bits(f"input {k} after forward", a, b)
    if case.differentiable:
        dy = runner.dy(y[0].shape)
        kept_dy = dy.copy()
        runner.backward(dy)
        same_bits("the arriving gradient after backward", dy, kept_dy)
        for k, (a, b) in enumerate(zip(inputs, kept, strict=True)):
            same_bits(f"input {k} after backward", a, b)
    for name, array in parameters.items():
        same_bits(f"parameter {name}", runner.host(runner.layer.parameters[name]), array)
    return ""


def overwrites(case: Case) -> str:
    """Every element of outputs and gradients is written, whatever their memory held before."""
    clean, dirty = Runner(case, "float32"), Runner(case, "float32")
    inputs = clean.cast(case.inputs())
    clean.spoil(forward=True, value=0)
    expected = clean.run(inputs, between=lambda: clean.spoil(forward=False, value=0))
    for what in ("over memory full of NaN", "over memory full of NaN, a second time"):
        dirty.spoil(forward=True)
        same_run(what, dirty.run(inputs, between=lambda: dirty.spoil(forward=False)), expected)
    return ""


def bounds(case: Case) -> str:
    """Nothing is written outside the op's arrays, and nothing read there."""
    if case.device != "cpu":
        raise Inapplicable("guard zones are for the CPU; compute-sanitizer does this on a GPU")
    for dtype, format in [("float64", "channels_first"), *(("float32", f) for f in case.op.formats)]:
        guarded = Guarded()
        runner = Runner(case, dtype, format, guarded)
        inputs = tuple(guarded.array(a, str(a.dtype)) for a in runner.cast(case.inputs()))
        run = runner.run(inputs)
        damage = guarded.damage()
        if damage:
            raise Failed(f"a kernel wrote {damage} ({dtype}, {format})")
        guarded.fill(0)  # what a kernel reads outside its arrays is 0 now, and was NaN
        same_run("with other numbers around every array", runner.run(inputs), run)
    return ""


def strided(case: Case) -> str:
    """Inputs and gradients that are not contiguous give the same bits as contiguous ones."""
    runner = Runner(case, "float32")
    inputs = runner.cast(case.inputs())
    expected = runner.run(inputs)
    dy = runner.dy(expected.y[0].shape)
    ways = (
        ("every second element", _every_second),
        ("reversed memory", _reversed),
        ("transposed memory", _transposed),
    )
    for what, change in ways:
        run = runner.run(tuple(map(change, inputs)), dy=change(dy))
        same_run(what, run, expected)
    return ""


def _every_second(array: np.ndarray) -> np.ndarray:
    out = np.empty((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)[..., ::2]
    out[...] = array
    return out


def _reversed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[::-1])[::-1]


def _transposed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array.T).T


def empty_batch(case: Case) -> str:
    """A batch of no samples gives outputs of no samples, or an error where its statistics are asked for."""
    case = _scalable(case).with_batch(0)
    if case.op.needs_batch and case.sample.training:
        try:
            runner = Runner(case, "float32")
            runner.forward(runner.cast(case.inputs()), training=True)
        except ShapeError:
            pass
        else:
            raise Failed("training statistics over an empty batch must be a ShapeError")
        runner = Runner(case, "float32")
        y = runner.forward(runner.cast(case.inputs()), training=False)
        return _empty_outputs(y)
    runner = Runner(case, "float32")
    y = runner.forward(runner.cast(case.inputs()))
    if case.differentiable:
        for array in runner.layer.gradients.values():
            array[...] = np.nan
        dx = runner.backward()
        for k, a in enumerate(dx):
            if a is not None and a.shape != case.shapes[k]:
                raise Failed(f"gradient of input {k}: shape {a.shape}, expected {case.shapes[k]}")
        for name, array in runner.layer.gradients.items():
            if (runner.host(array) != 0).any():
                got = float(runner.host(array).flat[0])
                raise Failed(f"gradient of {name} for an empty batch must be 0, got {got}")
    return _empty_outputs(y)


def _empty_outputs(y: tuple[np.ndarray, ...]) -> str:
    for k, a in enumerate(y):
        if a.shape[:1] != (0,):
            raise Failed(f"output {k}: shape {a.shape}, expected a batch of 0")
    return ""


def single(case: Case) -> str:
    """A batch of one works, and gives what the sample gets in a larger batch, but for batch statistics."""
    case = _scalable(case)
    one = case.with_batch(1)
    alone = Runner(one, "float32")
    inputs = alone.cast(case.inputs())
    first = tuple(np.ascontiguousarray(a[:1]) for a in inputs)
    try:
        y = alone.run(first).y
    except ShapeError as fault:
        if case.op.needs_batch:
            return f"refused, as statistics over the batch must: {str(fault)[:60]}"
        raise
    if case.op.needs_batch or case.op.stochastic:
        return "runs; its statistics or random numbers are the batch's"
    among = Runner(case, "float32").forward(inputs)
    for k, (a, b) in enumerate(zip(y, among, strict=True)):
        compare(f"output {k} of a batch of one", a, b[:1], case.sample.rtol32 or VALUE_32)
    return ""


def batch_sizes(case: Case) -> str:
    """Smaller and larger batches than declared, in turn, give what layers declared for them give."""
    case = _scalable(case)
    declared = case.shapes[0][0]
    runner = Runner(case, "float32")
    for batch in (declared, max(declared - 1, 2), declared + 3, declared):
        other = case.with_batch(batch)
        inputs = runner.cast(other.inputs())
        fresh = Runner(other, "float32")
        for name, array in fresh.layer.parameters.items():
            array[...] = runner.layer.parameters[name]
        same_run(f"batch {batch} in a layer declared for {declared}", runner.run(inputs), fresh.run(inputs))
    return ""


def _scalable(case: Case) -> Case:
    if case.sample.make is not None:
        raise Skipped("the sample makes its own inputs, of one batch size")
    if len({s[:1] for s in case.shapes}) > 1 or not case.shapes[0]:
        raise Skipped("the inputs share no batch")
    return case


def large(case: Case, elements: int) -> Case:
    """The case with a batch so large that this many elements go through it."""
    case = _scalable(case)
    size = max(1, int(np.prod(case.shapes[0][1:])))
    return case.with_batch(max(case.shapes[0][0], -(-elements // size)))
