"""An op's CUDA kernels against its CPU kernels: the same inputs, values, gradients and state side by side.

For tests in the simulator (small samples, the CPU side as plain Python: compiling would take most of the
time) and on hardware (the same samples with batches large enough to fill the GPU).
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np

from normcore import kernels
from normcore.op import Op
from normcore.storage import STORED, hold, values_of
from normcore.testing.derive import samples_of
from normcore.testing.outcome import Skipped
from normcore.testing.running import Case, Run, Runner
from normcore.testing.samples import Sample
from normcore.testing.tolerances import GRADIENT_32, STORED_16, VALUE, VALUE_32, compare


@dataclass(frozen=True)
class Comparison:
    """One run of an op on both devices."""

    op: type[Op]
    sample: Sample
    dtype: str
    format: str
    training: bool

    @property
    def label(self) -> str:
        mode = "training" if self.training else "inference"
        return "-".join((self.op.name, self.dtype, self.format, mode, self.sample.reason.replace(" ", "_")))

    def run(self, uncompiled: bool, elements: int = 0) -> None:
        """Raises Failed where the devices differ. elements: enlarge the batch to about this many."""
        case = Case.of(self.op, self.sample)
        if elements:
            count = sum(prod(shape) for shape in case.shapes)
            case = case.with_batch(max(1, case.shapes[0][0] * elements // max(1, count)))
        cuda, cpu = self._one(case, "cuda"), self._cpu(case, uncompiled)
        single = self.dtype != "float64"
        value = self.sample.rtol32 or VALUE_32 if single else VALUE
        value = max(value, STORED_16.get(self.dtype, 0.0))
        gradient = max(GRADIENT_32, value) if single else VALUE
        got = dict(cuda.arrays())
        for what, expected in cpu.arrays():
            compare(what, got.pop(what), expected, gradient if "gradient" in what else value)
        assert not got, f"the CPU gave no {', '.join(got)}"

    def _cpu(self, case: Case, uncompiled: bool) -> Run:
        if uncompiled:
            try:
                with kernels.uncompiled():
                    return self._one(case, "cpu")
            except (TypeError, NotImplementedError):
                pass  # a kernel with intrinsics has no Python form
        return self._one(case, "cpu")

    def _one(self, case: Case, device: str) -> Run:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            inputs = case.inputs()
            if self.dtype not in STORED:
                runner = Runner(case, self.dtype, self.format, device)
                return runner.run(runner.cast(inputs), self.training)
            # The CPU computes in float32, from the numbers that 16 bits can hold.
            runner = Runner(case, "float32" if device == "cpu" else self.dtype, self.format, device)
            rounded = (values_of(hold(a, self.dtype), self.dtype) for a in inputs)
            return runner.run(runner.cast(tuple(rounded)), self.training)


def comparisons(cls: type[Op], largest: int = 1 << 62) -> Iterator[Comparison]:
    """Runs that show an op's kernels: all samples in all formats, the first in both dtypes and modes.

    Samples of more than `largest` elements are left out while there are others.
    """
    try:
        samples = samples_of(cls)
    except Skipped:
        return
    small = [s for s in samples if sum(prod(shape) for shape in s.input_shapes) <= largest] or samples[:1]
    for k, sample in enumerate(small):
        for format in cls.formats_on("cuda"):
            for dtype in ("float32", "float64") if k == 0 else (("float32", "float64")[k % 2],):
                modes = (True, False) if k == 0 and dtype == "float32" else (sample.training,)
                yield from (Comparison(cls, sample, dtype, format, training) for training in modes)
    if cls.stores_16_bits:
        formats = cls.formats[:1] if cls.is_elementwise else cls.formats_on("cuda")
        yield from (Comparison(cls, small[0], dtype, format, True) for format in formats for dtype in STORED)
