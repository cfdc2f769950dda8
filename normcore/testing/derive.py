"""From an op's declarations to concrete inputs: its samples, or derived ones, and their numbers."""

import zlib
from typing import Any

import numpy as np

from normcore.errors import NormcoreError
from normcore.op import Op, Shape, Tensor
from normcore.testing.outcome import Failed, Skipped
from normcore.testing.samples import Sample

# Odd sizes leave remainders in every vector loop; small ones keep central differences cheap.
IMAGES: Shape = (3, 4, 5, 6)
RANKS: tuple[Shape, ...] = (IMAGES, (5, 6), (3, 4, 7), (2, 3, 3, 4, 3))
VARIADIC_INPUTS = 2


def samples_of(cls: type[Op]) -> tuple[Sample, ...]:
    """The samples that the op declares, else derived ones. Raises Skipped when none can be derived."""
    if cls.samples:
        return tuple(cls.samples)
    required = [p.name for p in cls.parameters() if p.required]
    if required:
        raise Skipped(
            f"{cls.name} declares no samples and its parameters {', '.join(required)} have no defaults: "
            "add samples = (Sample(...),), see normcore/testing/samples.py"
        )
    op = cls.make()
    # An elementwise kernel runs on flat memory: one rank stands for all.
    ranks = RANKS[:1] if op.is_elementwise else RANKS
    found = []
    for shape in ranks:
        count = VARIADIC_INPUTS if op.inputs[0].startswith("*") else len(op.inputs)
        try:
            op.plan(*(Tensor(shape, "float64") for _ in range(count)))
        except NormcoreError:
            continue
        reason = f"derived: {count} input{'s' * (count > 1)} of rank {len(shape)}"
        found.append(Sample(reason, shape=shape) if count == 1 else Sample(reason, shapes=(shape,) * count))
    if not found:
        raise Skipped(
            f"{cls.name} declares no samples, and its plan() accepts none of the shapes {list(RANKS)}"
        )
    return tuple(found)


def names_of(op: Op, count: int) -> tuple[str, ...]:
    """A name for each of `count` inputs."""
    if op.inputs[0].startswith("*"):
        return tuple(f"{op.inputs[0][1:]}[{k}]" for k in range(count))
    return tuple(op.inputs)


def numbers(shape: Shape, seed: int, low: float, high: float) -> np.ndarray:
    """Distinct float64 numbers in random order, evenly spread but for a jitter, exact in float32 too.

    Neighbours lie at least half a spacing apart, so a maximum stays the maximum under a small step.
    """
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape, dtype=np.int64))
    grid = rng.permutation(count) + 0.25 + 0.5 * rng.random(count)
    values = low + (high - low) * grid / max(count, 1)
    return values.reshape(shape).astype(np.float32).astype(np.float64)


def inputs_of(op: Op, sample: Sample, shapes: tuple[Shape, ...], seed: int) -> tuple[np.ndarray, ...]:
    """The sample's inputs for these shapes; float64, or int64 where the op takes integers."""
    if sample.make is not None:
        made = tuple(np.asarray(a) for a in sample.make(np.random.default_rng(seed)))
        return tuple(a.astype(np.float64) if a.dtype.kind == "f" else a for a in made)
    span = 4.0 if op.is_elementwise else 2.0
    low = -span if sample.low is None else sample.low
    high = span if sample.high is None else sample.high
    dtypes = getattr(op, "input_dtypes", None) or (None,) * len(shapes)
    found = []
    for k, (name, shape) in enumerate(zip(names_of(op, len(shapes)), shapes, strict=True)):
        kind = np.dtype(dtypes[k] or "float64").kind
        if name in sample.integers or kind in "iu":
            if name not in sample.integers:
                raise Failed(
                    f"sample {sample.reason!r}: input {name!r} takes integers; "
                    f"declare integers={{{name!r}: bound}}"
                )
            values = np.random.default_rng([seed, k]).integers(0, sample.integers[name], shape)
            found.append(values.astype(dtypes[k] or np.int64))
        else:
            found.append(numbers(shape, seed + 1000 * k, low, high))
    return tuple(found)


def parameter_values(name: str, initial: np.ndarray, seed: int, spread: float) -> np.ndarray:
    """The initial values moved by up to `spread`, so that a parameter of ones or zeros cannot hide a fault.

    Weights move by no more than twice what they measure: recurrent ones would multiply rounding from step to step.
    Square matrices (covariances) stay symmetric; integers (counters) stay as they are.
    """
    if initial.dtype.kind != "f" or not initial.size:
        return initial.copy()
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    size = 2 * float(np.sqrt(np.mean(np.square(initial)))) if initial.ndim >= 2 else 0.0
    noise = (min(spread, size) or spread) * rng.uniform(-1, 1, initial.shape)
    if (
        initial.ndim >= 2
        and initial.shape[-1] == initial.shape[-2]
        and np.allclose(initial, np.swapaxes(initial, -1, -2))
    ):
        noise = (noise + np.swapaxes(noise, -1, -2)) / 2
    return np.asarray((initial + noise).astype(np.float32).astype(np.float64))


def gradient_of(shape: Shape, seed: int) -> Any:
    """The gradient that arrives at an output: numbers of both signs, none near zero, exact in float32."""
    rng = np.random.default_rng([seed, 77])
    values = rng.uniform(0.3, 1.3, shape) * rng.choice([-1.0, 1.0], shape)
    return values.astype(np.float32).astype(np.float64)
