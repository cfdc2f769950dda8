"""Elementwise ops against torch at infinities, NaN, kinks and far from zero, values and derivatives.

Random samples meet none of these. Where torch gives NaN for a number, because it multiplies infinity by zero, the op
gives the limit.
"""

import numpy as np
import pytest

import normcore
from normcore.registry import default
from normcore.testing.derive import samples_of

torch = pytest.importorskip("torch", reason="the extra `peers` brings torch")
pytestmark = pytest.mark.peers

INF = float("inf")
KINKS = [-6.0, -3.0, -2.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 2.0, 3.0, 6.0, 20.0, 20.5]
FAR = [-INF, -1e30, -1e4, -100.0, -20.0, -1e-30, 1e-30, 100.0, 1e4, 1e30, INF]
OPS = {
    s.name: s.component
    for s in default().all("op")
    if s.component.is_elementwise and s.component.inputs == ("x",) and s.component.has_torch()
}
del OPS["squareplus"]  # torch has it only as x^2 under a root, which overflows
# (value, derivative) at -inf and at inf, for where torch has NaN (in one dtype at least); None where it agrees.
LIMITS = {
    ("gelu", -INF): (0, 0),
    ("gelu", INF): (INF, 1),
    ("hard_swish", -INF): (0, None),
    ("mish", -INF): (0, 0),
    ("mish", INF): (None, 1),
    ("silu", -INF): (0, 0),
    ("silu", INF): (None, 1),
    ("softsign", -INF): (None, 0),
    ("softsign", INF): (None, 0),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPS)
def test_like_torch_but_for_limits(name, dtype):
    cls = OPS[name]
    required = any(p.required for p in cls.parameters())
    parameters = dict(samples_of(cls)[0].params) if required else {}
    x = np.array([[*KINKS, *FAR, np.nan]], dtype)
    layer = normcore.layer(name, input_shape=x.shape, dtype=dtype, **parameters)
    y = layer.forward(x).copy()
    dx = layer.backward(np.ones_like(x)).copy()
    tensor = torch.tensor(x, requires_grad=True)
    theirs = layer.op.in_torch(torch, tensor, training=True)
    theirs.backward(torch.ones_like(theirs))
    assert np.isnan(y[0, -1]), "NaN propagates"
    for k, value in enumerate(x[0, :-1].tolist()):
        pairs = ((y, theirs.detach().numpy()), (dx, tensor.grad.numpy()))
        for (ours, peer), limit in zip(pairs, LIMITS.get((name, value), (None, None)), strict=True):
            expected = limit if limit is not None and np.isnan(peer[0, k]) else peer[0, k]
            np.testing.assert_allclose(ours[0, k], expected, rtol=2e-4, atol=1e-6, err_msg=f"at {value}")
