"""What to time: from ops and the user's wishes to concrete shapes, dtypes, memory formats and devices.

An op's own `benchmarks` come first; without them shapes are derived. Shapes that the user gives replace both, with
the parameters of the op's first benchmark (or sample) that accept them. A sweep runs one shape through many sizes.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from normcore.errors import NormcoreError, ParameterError, ShapeError
from normcore.op import FORMATS, Op, Shape, Tensor
from normcore.testing.derive import VARIADIC_INPUTS, inputs_of, samples_of
from normcore.testing.outcome import Skipped
from normcore.testing.samples import Sample

# AlexNet's first normalization, a transformer's rows: what ops without shapes of their own are timed at.
DEFAULT_SHAPES: tuple[Shape, ...] = ((32, 96, 55, 55), (8192, 768))
ELEMENTS = 4_000_000  # of a derived shape whose batch is enlarged
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
SWEEP_STEP = 4


@dataclass(frozen=True)
class BenchCase:
    """One op at one size. sample: where parameters and inputs come from. plugins: files to load to find the op."""

    op: Op
    sample: Sample
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    memory_format: str = "channels_first"
    device: str = "cpu"
    plugins: tuple[str, ...] = field(default=(), compare=False)

    @property
    def training(self) -> bool:
        return self.sample.training

    @property
    def elements(self) -> int:
        return sum(math.prod(s) for s in self.shapes)

    @property
    def shape_text(self) -> str:
        """32x96x55x55, or several joined by a comma; equal ones once, with their number."""
        texts = ["x".join(map(str, s)) for s in self.shapes]
        if len(texts) > 1 and len(set(texts)) == 1:
            return f"{len(texts)} of {texts[0]}"
        return ",".join(texts)

    @property
    def parameters_text(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self.sample.params.items())

    def host_inputs(self, seed: int) -> tuple[np.ndarray, ...]:
        """Inputs in the case's dtype, logical and channels first. Random, so that nothing can be predicted."""
        if self.sample.make is not None or self.sample.integers or getattr(self.op, "input_dtypes", None):
            made = inputs_of(self.op, self.sample, self.shapes, seed)
            return tuple(a.astype(self.dtype) if a.dtype.kind == "f" else a for a in made)
        span = 4.0 if self.op.is_elementwise else 2.0
        low = -span if self.sample.low is None else self.sample.low
        high = span if self.sample.high is None else self.sample.high
        rng = np.random.default_rng(seed)
        dtype: Any = np.float32 if self.dtype == "float32" else np.float64
        return tuple(low + (high - low) * rng.random(s, dtype) for s in self.shapes)


def tensors(op: Op, shapes: Sequence[Shape], dtype: str = "float32") -> tuple[Tensor, ...]:
    """What the op's plan is asked with: the dtype, or where inputs are declared to be integers theirs."""
    dtypes = getattr(op, "input_dtypes", None) or (None,) * len(shapes)
    return tuple(Tensor(tuple(s), d or dtype) for s, d in zip(shapes, dtypes, strict=False))


def parse_shape(text: str) -> Shape:
    """ "32x96x55x55" -> (32, 96, 55, 55). Raises ParameterError."""
    parts = text.strip().lower().split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ParameterError(
            "--shape",
            "whole numbers above 0 joined by x, such as 32x96x55x55 (several: joined by commas)",
            text,
        )
    return tuple(map(int, parts))


def parse_sweep(text: str) -> tuple[int, ...]:
    """ "1k..1g" -> numbers of elements, each four times the one before. Raises ParameterError."""
    ends = re.fullmatch(r"(\d+)([kmg]?)\.\.(\d+)([kmg]?)", text.strip().lower())
    expected = "numbers of elements, such as 1k..1g (k, m, g: thousand, million, thousand million)"
    if ends is None:
        raise ParameterError("--sweep", expected, text)
    first, last = int(ends[1]) * UNITS[ends[2]], int(ends[3]) * UNITS[ends[4]]
    if not 0 < first <= last:
        raise ParameterError("--sweep", f"{expected}, the smaller one first", text)
    sizes = [first]
    while sizes[-1] * SWEEP_STEP <= last:
        sizes.append(sizes[-1] * SWEEP_STEP)
    return tuple(sizes)


def samples_for(cls: type[Op], shapes: Sequence[Shape] = (), sizes: Sequence[int] = ()) -> Iterator[Sample]:
    """The samples to time an op at. Raises ShapeError for a shape that the op does not take at all."""
    if shapes:
        for shape in shapes:
            yield _with_shape(cls, shape)
    elif sizes:
        base = next(iter(cls.benchmarks), None) or _derived(cls)
        for size in sizes:
            scaled = scale(cls, base, size)
            if scaled is not None:
                yield scaled
    elif cls.benchmarks:
        yield from cls.benchmarks
    else:
        yield _derived(cls)


def cases_of(
    cls: type[Op],
    samples: Iterable[Sample],
    dtypes: Sequence[str] = ("float32",),
    formats: Sequence[str] = (),
    devices: Sequence[str] = ("cpu",),
    plugins: Sequence[str] = (),
) -> Iterator[BenchCase]:
    """Every combination. formats: those of the op's kernels when empty; one where both are the same memory."""
    for sample in samples:
        op = cls.make(**sample.params)
        shapes = sample.input_shapes
        same = op.is_elementwise or all(len(s) < 3 for s in shapes)
        for dtype in dtypes:
            for device in devices:
                taken = sorted(formats or op.formats_on(device), key=FORMATS.index)
                for format in ("channels_first",) if same else taken:
                    if device == "cpu" or cls.has_cuda():
                        yield BenchCase(op, sample, shapes, dtype, format, device, tuple(plugins))


def scale(cls: type[Op], base: Sample, elements: int) -> Sample | None:
    """The sample with about so many elements in all inputs: the batch, then space, then channels change.

    None where the op takes no such size.
    """
    if base.make is not None:
        return None
    op = cls.make(**base.params)
    total = sum(math.prod(s) for s in base.input_shapes)
    shapes = []
    for shape in base.input_shapes:
        wanted = max(1, elements * math.prod(shape) // total)
        rest = math.prod(shape[1:])
        if wanted >= rest:
            shapes.append((max(1, wanted // rest), *shape[1:]))
            continue
        spatial = len(shape) - 2
        side = (wanted / math.prod(shape[:2][1:])) ** (1 / spatial) if spatial > 0 else 0.0
        if spatial > 0 and side >= 8:
            shapes.append((1, shape[1], *(max(1, round(side)) for _ in range(spatial))))
        elif spatial > 0:
            inner = tuple(min(8, n) for n in shape[2:])
            shapes.append((1, max(1, wanted // math.prod(inner)), *inner))
        else:
            shapes.append((max(1, wanted // min(shape[-1], wanted)), *shape[1:-1], min(shape[-1], wanted)))
    if not _fits(op, shapes):
        return None
    return _reshaped(base, shapes, f"about {elements} elements")


def _with_shape(cls: type[Op], shape: Shape) -> Sample:
    """A sample at the user's shape. Raises the op's own ShapeError where no parameters at hand accept it."""
    fault: Exception | None = None
    candidates = [*cls.benchmarks]
    if not any(p.required for p in cls.parameters()):
        candidates.append(Sample("given", shape=shape))
    try:
        candidates += samples_of(cls)
    except Skipped as reason:
        fault = ShapeError(str(reason))
    for sample in candidates:
        if sample.make is not None:
            continue
        try:
            op = cls.make(**sample.params)
            op.plan(*tensors(op, [shape] * _count(op)))
        except NormcoreError as refused:
            fault = fault or refused
            continue
        return _reshaped(sample, [shape] * _count(op), "given")
    text = "x".join(map(str, shape))
    raise ShapeError(f"{cls.name} does not take --shape {text}: {fault or 'its inputs are made specially'}")


def _derived(cls: type[Op]) -> Sample:
    """A shape for an op that names none: a large usual one, else its first sample with a larger batch."""
    try:
        samples = samples_of(cls)
    except Skipped as reason:
        raise ShapeError(f"{reason}, or benchmarks = (Sample(...),)") from None
    first = samples[0]
    plain = first.make is None and not first.integers
    for shape in DEFAULT_SHAPES if plain and len(set(first.input_shapes)) == 1 else ():
        op = cls.make(**first.params)
        alike = op.is_elementwise or len(shape) == len(first.input_shapes[0])
        if alike and _fits(op, [shape] * len(first.input_shapes)):
            return _reshaped(first, [shape] * len(first.input_shapes), "derived")
    if first.make is not None:
        return first
    factor = max(1, ELEMENTS // max(1, sum(math.prod(s) for s in first.input_shapes)))
    return _reshaped(first, [(s[0] * factor, *s[1:]) for s in first.input_shapes], "derived")


def _count(op: Op) -> int:
    return VARIADIC_INPUTS if op.inputs[0].startswith("*") else len(op.inputs)


def _fits(op: Op, shapes: Sequence[Shape]) -> bool:
    try:
        op.plan(*tensors(op, shapes))
    except NormcoreError:
        return False
    return True


def _reshaped(sample: Sample, shapes: Sequence[Shape], reason: str) -> Sample:
    if len(shapes) == 1:
        return replace(sample, reason=reason, shape=tuple(shapes[0]), shapes=())
    return replace(sample, reason=reason, shape=None, shapes=tuple(map(tuple, shapes)))
