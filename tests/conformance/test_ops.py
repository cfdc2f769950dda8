"""The conformance suite on every op of the registry: an op added later is covered without a line here.

On a GPU the same checks run in tests/gpu.
"""

import normcore.testing


@normcore.testing.parametrize_checks()
def test_op(check):
    check()
