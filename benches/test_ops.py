"""Every registered op, plugins' too: torch's time over ours, and the share of this machine's limits.

python -m pytest benches/test_ops.py [-k batch_norm] [--save-results FILE] [--bench-seconds 1.0]

The core of `normcore bench` times (interleaved rounds); pytest-benchmark records the ratios in extra_info.
"""

import pytest

from normcore.measuring.run import plan
from normcore.registry import default

OPS = [r.component for r in default().all("op")]
CASES, LEFT_OUT = plan(OPS, strict=False)


def label(case):
    return f"{case.op.name}-{case.shape_text}-{case.memory_format}-{case.sample.reason.replace(' ', '_')}"


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("case", CASES, ids=map(label, CASES))
def test_op(benchmark, recorder, case, direction):
    """Fails where the kernel is wrong; a ratio below 1 is a result, not a failure."""
    row = recorder.row(case, direction)
    if row is None:
        pytest.skip("no kernel runs in this direction")
    benchmark.extra_info.update({k: v for k, v in row.items() if v is not None})
    assert row["correct"] is True, row["detail"]
    benchmark.pedantic(lambda: None)  # its own clock cannot interleave: the numbers stand in extra_info
