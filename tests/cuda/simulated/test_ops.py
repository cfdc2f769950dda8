"""Every op's CUDA kernels in the simulator against its CPU kernels, values and gradients."""

import pytest

from normcore.errors import NormcoreError
from normcore.registry import default
from normcore.testing.against_cpu import comparisons
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Skipped
from normcore.testing.running import Case, Runner

LARGEST = 1500  # elements of a sample's inputs: a simulated thread is slow
OPS = {s.name: s.component for s in default().all("op") if not s.component.is_view}
WITH_CUDA = {name: cls for name, cls in OPS.items() if cls.has_cuda()}
CASES = [c for cls in WITH_CUDA.values() for c in comparisons(cls, LARGEST)]


@pytest.mark.parametrize("comparison", CASES, ids=[c.label for c in CASES])
def test_same_as_cpu(comparison):
    comparison.run(uncompiled=True)


@pytest.mark.parametrize("name", WITH_CUDA)
def test_empty_batch(name):
    """An empty batch launches nothing that fails, or is refused with an explanation."""
    try:
        sample = samples_of(WITH_CUDA[name])[0]
        if sample.make is not None:
            pytest.skip("the sample makes its own inputs, of one batch size")
        case = Case.of(WITH_CUDA[name], sample).with_batch(0)
        runner = Runner(case, "float32", device="cuda")
        inputs = runner.cast(case.inputs())
        outputs = runner.forward(inputs, training=False)
    except (NormcoreError, Skipped) as reason:
        pytest.skip(f"{name} takes no empty batch: {reason}")
    assert all(y.size == 0 for y in outputs)
