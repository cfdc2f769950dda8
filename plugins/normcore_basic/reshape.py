"""Another shape for the same numbers in the same order (channels first, row-major). No number is moved or
copied.

y.ravel() == x.ravel(), and the gradient likewise. The batch axis stays; `shape` is what follows it, and one
of its numbers may be -1: whatever is left over. Shapes: any with a batch axis.
"""

import math

import numpy as np

from normcore import Op, ParameterError, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample


class Reshape(Op, name="reshape"):
    """The same numbers under another shape. shape: without the batch; one number may be -1 for what is
    left."""

    shape: tuple[int, ...]

    is_view = True
    formats = ("channels_first",)
    backward_needs = ()

    samples = (
        Sample("a map from features", shape=(3, 24), params={"shape": (2, 3, 4)}),
        Sample("what is left over", shape=(3, 4, 6), params={"shape": (8, -1)}),
    )
    error_samples = (
        ErrorSample("two unknowns", {"shape": (-1, -1)}, None, "at most one -1"),
        ErrorSample("does not divide", {"shape": (5, -1)}, (2, 4, 3), "12"),
        ErrorSample("other size", {"shape": (5, 2)}, (2, 4, 3), "12"),
    )

    def check(self):
        numbers = tuple(self.shape) if isinstance(self.shape, tuple | list) else ()
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= -1 for n in numbers)
        if not numbers or not whole or numbers.count(-1) > 1:
            raise ParameterError("shape", "whole numbers without the batch, at most one -1", self.shape)

    def plan(self, x: Tensor) -> Plan:
        if not x.shape:
            raise ShapeError("reshape: expected an input with a batch axis, got a single number")
        size = math.prod(x.shape[1:])
        known = math.prod(n for n in self.shape if n != -1)
        shape = tuple(size // max(1, known) if n == -1 else n for n in self.shape)
        if math.prod(shape) != size:
            target = tuple(self.shape)
            raise ShapeError(
                f"reshape: a sample of shape {x.shape[1:]} has {size} numbers, not those of {target}"
            )
        return Plan(y=(x.shape[0], *shape))

    def reference(self, x, **arrays):
        out = self.plan(Tensor(np.shape(x))).y
        return np.fromiter(np.asarray(x, np.float64).flat, np.float64).reshape(out)

    def in_torch(self, torch, x, *, training, **arrays):
        return x.reshape(self.plan(Tensor(tuple(x.shape))).y)
