"""Checks that results do not depend on what they must not depend on: threads, runs, memory format, mode."""

import numpy as np

from normcore.elementwise_ops import ElementwiseOp
from normcore.testing import tolerances
from normcore.testing.memory_checks import large, same_run
from normcore.testing.outcome import Failed, Skipped
from normcore.testing.running import Case, Runner
from normcore.testing.tolerances import compare, same_bits

MANY = 40_000  # elements: several chunks of every parallel loop


def threads(case: Case) -> str:
    """One thread and several give the same bits."""
    if case.device != "cpu":
        raise Skipped("threads are the CPU's")
    import numba

    if isinstance(case.op, ElementwiseOp):
        raise Skipped("the engine writes the loops of elementwise ops; its own tests vary their threads")
    if numba.config.NUMBA_NUM_THREADS < 2:
        raise Skipped("numba has one thread here; NUMBA_NUM_THREADS=2 allows the check")
    case = large(case, MANY)
    before = numba.get_num_threads()
    for format in case.op.formats:
        runner = Runner(case, "float32", format)
        inputs = runner.cast(case.inputs())
        try:
            numba.set_num_threads(1)
            one = runner.run(inputs)
            numba.set_num_threads(min(numba.config.NUMBA_NUM_THREADS, max(2, before)))
            many = runner.run(inputs)
        finally:
            numba.set_num_threads(before)
        same_run(f"2 threads against 1, {format}", many, one)
    return ""


def repeatable(case: Case) -> str:
    """Runs repeat bit for bit, also with another layer of the same op run in between and in a new layer."""
    first, second = Runner(case, "float32"), Runner(case, "float32")
    inputs = first.cast(case.inputs())
    other = tuple(np.flip(a).copy() for a in inputs) if case.sample.make is None else inputs
    expected = first.run(inputs)

    def disturb() -> None:
        second.run(other)

    same_run("a second run, with another layer's in between", first.run(inputs, between=disturb), expected)
    same_run("another layer of the same op", second.run(inputs), expected)
    return ""


def backward_again(case: Case) -> str:
    """Backward may be called twice after one forward and gives the same, not the double."""
    if not case.differentiable:
        raise Skipped("the op declares no gradient")
    runner = Runner(case, "float32")
    run = runner.run(runner.cast(case.inputs()))
    again = runner.backward()
    for k, (a, b) in enumerate(zip(again, run.dx, strict=True)):
        if a is not None and b is not None:
            same_bits(f"gradient of input {k}, the second time", a, b)
    for name, array in (run.gradients or {}).items():
        same_bits(f"gradient of {name}, the second time", runner.host(runner.layer.gradients[name]), array)
    return ""


def formats(case: Case) -> str:
    """Channels last in memory gives what channels first gives."""
    if all(len(s) < 3 for s in case.shapes):
        raise Skipped("inputs of rank 2 have one memory format")
    first, last = Runner(case, "float32"), Runner(case, "float32", "channels_last")
    inputs = first.cast(case.inputs())
    views = tuple(_channels_last(a) for a in inputs)
    a, b = first.run(inputs), last.run(views)
    worst = 0.0
    for (what, expected), (_, got) in zip(a.arrays(), b.arrays(), strict=True):
        worst = max(
            worst, compare(f"{what}, channels last", got, expected, case.sample.rtol32 or tolerances.FORMAT)
        )
    return f"difference {worst:.0e}"


def _channels_last(array: np.ndarray) -> np.ndarray:
    """The same logical array in channels-last memory."""
    if array.ndim < 3:
        return array
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def modes(case: Case) -> str:
    """Without running state and randomness, inference gives what training gives."""
    runner = Runner(case, "float32")
    if case.op.stochastic:
        raise Skipped("a random op draws in training only")
    if runner.state or case.op.needs_batch:
        raise Skipped("training and inference use different statistics")
    inputs = runner.cast(case.inputs())
    training, infer = runner.forward(inputs, training=True), runner.forward(inputs, training=False)
    for k, (a, b) in enumerate(zip(infer, training, strict=True)):
        compare(f"output {k} in inference", a, b, 1e-6)
    return ""


def random_numbers(case: Case) -> str:
    """A random op repeats with the same call number and draws anew with the next one."""
    if not case.op.stochastic:
        raise Skipped("the op draws no random numbers")
    runner = Runner(large(case, MANY // 8), "float32")
    inputs = runner.cast(runner.case.inputs())
    first = runner.forward(inputs, training=True)[0]
    following = runner.layer.forward(*inputs, training=True)
    following = runner.host(following[0] if isinstance(following, tuple) else following)
    if (first == following).all():
        raise Failed("the next call draws the same numbers")
    same_bits("the same call number", runner.forward(inputs, training=True)[0], first)
    return ""
