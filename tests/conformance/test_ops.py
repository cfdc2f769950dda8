"""The conformance suite on every op of the registry: an op added later is covered without a line here.

On a GPU the same checks run in tests/gpu; simulated and compiled without one, in one process for all ops, in
tests/cuda.
"""

import normcore.testing


@normcore.testing.parametrize_checks(without=("cuda_simulated", "cuda_compiled"))
def test_op(check):
    check()
