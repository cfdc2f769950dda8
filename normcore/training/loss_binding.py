"""A loss bound to the output of a program: its targets, its workspace, and the gradient it hands to backward."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from normcore.errors import DataError, ShapeError
from normcore.graph.program import Program
from normcore.kernels import variant


class LossBinding:
    """`set_targets`, `run`, then `mean()`; in training the gradient of the mean is in the program's dy."""

    def __init__(self, loss: Any, program: Program):
        output, device, dtype = program.graph.output.tensor, program.device, program.dtype
        self.loss, self.device, self.y = loss, device, program.y
        spec = loss.targets(output)
        self.classes = loss.classes(output)

        def array(shape: tuple[int, ...], kind: str) -> Any:
            size = int(np.prod(shape)) * np.dtype(kind).itemsize
            return device.empty(size).view(kind).reshape(shape)

        t = self.t = SimpleNamespace(device=device, dtype=dtype, training=program.training)
        t.variant = variant(dtype, parallel=output.size >= 32768)
        t.scalar = np.dtype(dtype).type
        t.targets = array(tuple(spec.shape), spec.dtype or dtype)
        t.soft = False
        t.values = array(output.shape[:1], dtype)
        t.total = array((3,), "float64")
        for name, a in loss.workspace(output).items():
            setattr(t, name, array(tuple(a.shape), a.dtype or dtype))
        t.y = program.y.reshape(output.shape) if program.y is not None else None
        # Inference has no gradient to write; kernels take an array all the same and leave it alone.
        t.dy = program.dy.reshape(output.shape) if program.training else array(output.shape, dtype)
        self.program, self._array = program, array
        self._run = getattr(loss, f"forward_{device.name}")

    @property
    def targets(self) -> Any:
        """The last targets: class numbers or values, or shares of the classes."""
        return self.t.shares if self.t.soft else self.t.targets

    def set_targets(self, targets: Any) -> None:
        """Copy a batch's targets to the device. Raises ShapeError, and DataError for labels outside the classes."""
        targets = self.device.adopt(targets)
        shares = self.loss.shares(self.program.graph.output.tensor)
        if shares is not None and tuple(targets.shape) == tuple(shares.shape) and _is_float(targets):
            self.soften()
            self.t.shares[...] = targets
            return
        self.t.soft = False
        if tuple(targets.shape) != tuple(self.t.targets.shape):
            raise ShapeError(
                f"{self.loss.name}: expected targets of shape {tuple(self.t.targets.shape)}, got {tuple(targets.shape)}"
            )
        if self.classes is not None:
            if _is_float(targets):
                raise DataError(f"{self.loss.name}: expected class numbers (integers), got {targets.dtype}")
            self._check_classes(targets)
        self.t.targets[...] = targets

    def soften(self) -> None:
        """Take targets that are shares of the classes from now on; their array is made at the first time."""
        spec = self.loss.shares(self.program.graph.output.tensor)
        if not hasattr(self.t, "shares"):
            self.t.shares = self._array(tuple(spec.shape), self.t.dtype)
            self.t.shares[...] = 0
        self.t.soft = True

    def _check_classes(self, targets: Any) -> None:
        if not targets.size:
            return
        low, high = int(targets.min()), int(targets.max())
        ignored = getattr(self.loss, "ignore_index", None)
        if high >= self.classes or (low < 0 and low != ignored):
            wrong = high if high >= self.classes else low
            raise DataError(
                f"label {wrong} is outside the network's {self.classes} classes (0 to {self.classes - 1})"
            )

    def run(self) -> None:
        if self.t.y is None:
            self.t.y = self.program.y
        self._run(self.t)

    def totals(self) -> tuple[float, float, float]:
        """Sum of the samples' losses, correct answers, samples counted; waits for the device."""
        loss, correct, count = self.device.to_host(self.t.total).tolist()
        return loss, correct, count

    def mean(self) -> float:
        """The batch mean (NaN when no sample counts); waits for the device."""
        loss, _, count = self.totals()
        return float(loss / count) if count else float("nan")


def _is_float(array: Any) -> bool:
    return np.dtype(str(array.dtype)).kind not in "iu"
