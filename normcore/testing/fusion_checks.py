"""The check that an op keeps what it promises by `epilogue`: elementwise ops run inside its kernels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from normcore.bound_layer import Layer
from normcore.elementwise_ops import ElementwiseOp
from normcore.graph.fuse import epilogue_of
from normcore.kernels import uncompiled
from normcore.testing.outcome import Skipped
from normcore.testing.running import Case, Run, Runner
from normcore.testing.tolerances import compare

# relu's slope follows from its output, silu's does not (that of an op with epilogue = "output" must keep z then), and
# leaky_relu has a constant, which kernels find in `e`.
CHAINS = (("relu",), ("silu",), ("leaky_relu", "silu"))
BOUND = 1e-12  # float64, the same formulas in another place


class Fused(Layer):
    """A layer with elementwise ops fused into its kernels, as a Network has them in training."""

    def __init__(self, chain: Sequence[ElementwiseOp], *arguments: Any, **named: Any):
        self.chain = tuple(chain)
        super().__init__(*arguments, **named)

    def _epilogue(self) -> dict[str, Any]:
        chain, constants = epilogue_of(self.op, self.chain, training=True)
        return {"chain": chain, "constants": constants}


def fusion(case: Case) -> str:
    """Elementwise ops fused into the op's kernels give what they give behind them, forward and backward."""
    if case.op.epilogue is None:
        raise Skipped("the op declares no epilogue, so nothing is fused into it")
    for names in CHAINS:
        chain = [_elementwise(name) for name in names]
        # As plain Python, which costs no compiling: the engine writes the chain, the op decides where it stands.
        with uncompiled():
            fused = Runner(case, "float64", make=lambda *a, c=chain, **k: Fused(c, *a, **k))
            inputs = fused.cast(case.inputs())
            got = fused.run(inputs)
            expected = _behind(case, chain, inputs)
        for (what, a), (_, b) in zip(got.arrays(), expected.arrays(), strict=True):
            compare(f"{what} with {' and '.join(names)} fused", a, b, BOUND)
    return ""


def _elementwise(name: str) -> ElementwiseOp:
    from normcore.registry import default

    op = default().get("op", name).component.make()  # type: ignore[attr-defined]
    assert isinstance(op, ElementwiseOp)
    return op


def _behind(case: Case, chain: Sequence[ElementwiseOp], inputs: tuple[np.ndarray, ...]) -> Run:
    """The op, and the others as layers of their own."""
    first = Runner(case, "float64")
    (y,) = first.forward(inputs)
    state = {name: first.host(a) for name, a in first.layer.state.items()}
    behind = [Layer(op, list(y.shape), first.layer.device, "float64") for op in chain]
    for layer in behind:
        y = np.array(layer.forward(y))
    gradient: Any = first.dy(y.shape)
    if not case.differentiable:
        return Run((y,), state=state)
    for layer in reversed(behind):
        gradient = np.array(layer.backward(gradient))
    dx = first.backward(gradient)
    gradients = {name: first.host(a) for name, a in first.layer.gradients.items()}
    return Run((y,), dx, gradients, state)
