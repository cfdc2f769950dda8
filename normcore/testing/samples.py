"""Samples of an op's inputs, declared beside the op and run by the conformance suite (normcore.testing).

    samples = (
        Sample("a prime number of channels leaves a vector remainder", shape=(3, 7, 5, 4)),
        Sample("no bias", shape=(2, 4, 3), params={"bias": False}),
    )
    error_samples = (
        ErrorSample("groups must divide channels", {"num_groups": 3}, (2, 4, 3), "4 channels"),
    )

The first sample also serves the checks that need one shape only. An op that declares none gets samples
derived from its number of inputs and the ranks its plan() accepts (normcore/testing/derive.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sample:
    """Inputs and parameters that the op must handle, and why they are worth a test.

    reason: one phrase. shape: of the only input, logical (N, C, *spatial); shapes: one for each of several.
    params: hyperparameters. training: the mode whose values and gradients are compared.
    low, high: the inputs' range; None for the suite's own, -2 to 2 (elementwise ops: -4 to 4). All values of
    an input are distinct and lie apart, so that maxima are unique and central differences dodge the kinks.
    integers: input's name -> exclusive upper bound, for inputs that are indices.
    make: given a numpy Generator, returns the tuple of inputs; for inputs that fit none of the above.
    rtol32: bound of the float32 kernels' error against the float64 ones, relative to the largest element.
    rtol64: bound of the float64 kernels' error against `reference`. gradient_rtol: bound of the gradients'
    error against central differences. None for the suite's own bounds (normcore/testing/tolerances.py).
    """

    reason: str
    shape: Shape | None = None
    shapes: tuple[Shape, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    training: bool = True
    low: float | None = None
    high: float | None = None
    integers: Mapping[str, int] = field(default_factory=dict)
    make: Callable[[Any], tuple[Any, ...]] | None = None
    rtol32: float | None = None
    rtol64: float | None = None
    gradient_rtol: float | None = None

    def __post_init__(self) -> None:
        if (self.shape is None) == (not self.shapes):
            raise ValueError(f"sample {self.reason!r}: give either shape= (one input) or shapes= (several)")

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shapes of all inputs."""
        return tuple(map(tuple, self.shapes)) if self.shapes else (tuple(self.shape or ()),)


@dataclass(frozen=True)
class ErrorSample:
    """Parameters or a shape that the op must refuse with a ParameterError or ShapeError that says why.

    params: hyperparameters. shape: of the input (of several: a tuple of shapes); None when the parameters
    alone are wrong. message_contains: words that the message must have. training: run a training forward too,
    for errors that only it can raise.
    """

    reason: str
    params: Mapping[str, Any] = field(default_factory=dict)
    shape: Any = None
    message_contains: str = ""
    training: bool = False
