"""Every op's CUDA kernels in the simulator against its CPU kernels, values and gradients.

The CPU side runs uncompiled: compiling would take most of the time, and other tests compare it with
references.
"""

import warnings

import numpy as np
import pytest

from normcore import kernels
from normcore.registry import default
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Skipped
from normcore.testing.running import Case, Run, Runner
from normcore.testing.tolerances import GRADIENT_32, VALUE, VALUE_32, compare

LARGEST = 1500  # elements of a sample's inputs: a simulated thread is slow
OPS = {spec.name: spec.component for spec in default().all("op")}


def cases():
    """(op class, sample, dtype, format, training), each sample with one dtype and all its formats."""
    for name, cls in OPS.items():
        if cls.is_view or cls.__module__.startswith("normcore."):
            continue
        try:
            samples = samples_of(cls)
        except Skipped:
            continue
        small = [s for s in samples if sum(np.prod(shape) for shape in s.input_shapes) <= LARGEST] or samples[
            :1
        ]
        for k, sample in enumerate(small):
            for format in cls.formats:
                for dtype in ("float32", "float64") if k == 0 else (("float32", "float64")[k % 2],):
                    modes = (True, False) if k == 0 and dtype == "float32" else (sample.training,)
                    for training in modes:
                        mode = "training" if training else "inference"
                        label = f"{name}-{k}-{dtype}-{format}-{mode}"
                        yield pytest.param(cls, sample, dtype, format, training, id=label)


def runs(case, dtype, format, training):
    """The op's (CPU, CUDA) results."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        cuda = one(case, dtype, format, training, "cuda")
        try:
            with kernels.uncompiled():
                return one(case, dtype, format, training, "cpu"), cuda
        except (TypeError, NotImplementedError):  # a kernel with intrinsics has no Python form
            return one(case, dtype, format, training, "cpu"), cuda


def one(case, dtype, format, training, device) -> Run:
    runner = Runner(case, dtype, format, device)
    return runner.run(runner.cast(case.inputs()), training)


@pytest.mark.parametrize("cls, sample, dtype, format, training", list(cases()))
def test_same_as_cpu(cls, sample, dtype, format, training):
    if not cls.has_cuda():
        pytest.skip(f"{cls.name} has no CUDA kernels")
    cpu, cuda = runs(Case.of(cls, sample), dtype, format, training)
    values = VALUE if dtype == "float64" else sample.rtol32 or VALUE_32
    gradients = VALUE if dtype == "float64" else max(GRADIENT_32, sample.rtol32 or 0)
    got = dict(cuda.arrays())
    for what, expected in cpu.arrays():
        compare(what, got[what], expected, gradients if "gradient" in what else values)
    assert len(got) == len(list(cpu.arrays()))


@pytest.mark.parametrize("name", [n for n, c in OPS.items() if c.has_cuda() and not c.is_view])
def test_empty_batch(name):
    """An empty batch launches nothing that fails, and gives what the CPU gives, errors included."""
    cls = OPS[name]
    try:
        case = Case.of(cls, samples_of(cls)[0]).with_batch(0)
        runner = Runner(case, "float32", device="cuda")
        inputs = runner.cast(case.inputs())
    except Exception as fault:
        pytest.skip(f"{name} takes no empty batch: {fault}")
    y = runner.forward(inputs, training=False)
    assert all(a.shape[0] == 0 for a in y) or name == "concat"
