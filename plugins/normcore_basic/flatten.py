"""Flattening: (N, C, *spatial) seen as (N, C * positions), channels first. No number is moved or copied.

y[n, (c * H + h) * W + w] = x[n, c, h, w], and the gradient the other way round. Shapes: any with a batch
axis.
"""

import math

import numpy as np

from normcore import Op, Plan, ShapeError, Tensor
from normcore.testing.samples import ErrorSample, Sample


class Flatten(Op, name="flatten"):
    """All axes but the batch as one: (N, C, *spatial) becomes (N, C * positions)."""

    is_view = True
    formats = ("channels_first",)
    backward_needs = ()

    samples = (Sample("a feature map", shape=(3, 4, 5, 2)), Sample("already flat", shape=(3, 7)))
    error_samples = (ErrorSample("no axis beside the batch", shape=(3,), message_contains="(N, C"),)

    def plan(self, x: Tensor) -> Plan:
        if len(x.shape) < 2:
            raise ShapeError(f"flatten: expected an input (N, C, *spatial), got {x.shape}")
        return Plan(y=(x.shape[0], math.prod(x.shape[1:])))

    def reference(self, x, **arrays):
        return np.stack([sample.ravel() for sample in np.asarray(x, np.float64)])

    def in_torch(self, torch, x, *, training, **arrays):
        return x.flatten(1)
