"""An optimizer bound to a network's parameters: its slots, which parameters decay, rates, and clipping."""

import fnmatch
import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from normcore.devices.device import Device
from normcore.errors import NumbersError, UsageError, nearest
from normcore.kernels import variant
from normcore.parameters import ParameterStore
from normcore.training.optimizers import CHUNK, Optimizer
from normcore.training.optimizers.norm import gather_gradients, square_sums, square_sums_cuda


class OptimizerBinding:
    """`step(lr)` applies the gradients that are in the store to its parameters.

    With accumulate above 1, `gather(samples)` adds a batch's gradients to those kept, and `step` applies the mean.
    multipliers: pattern of parameter paths -> factor of the learning rate; 0 freezes.
    clip_norm: the largest global norm of the gradient; clip_value: the largest absolute value of an element.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        store: ParameterStore,
        device: Device,
        multipliers: Mapping[str, float] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
    ):
        self.optimizer, self.store, self.device = optimizer, store, device
        self.clip_norm, self.steps = clip_norm, 0
        self.accumulate, self.gathered, self._samples = accumulate, 0, 1.0
        real = self._real = np.dtype(store.dtype).type
        t = self.t = SimpleNamespace(device=device, dtype=store.dtype, p=store.flat, g=store.flat_gradients)
        t.variant = variant(store.dtype, parallel=store.flat.size >= 2 * CHUNK)
        t.scalar = real
        t.limit = real(clip_value if clip_value is not None else math.inf)
        for slot in optimizer.slots:
            array = device.empty(store.flat.nbytes).view(store.dtype)
            array[...] = 0
            setattr(t, slot, array)
        if accumulate > 1:
            t.g = device.empty(store.flat.nbytes).view(store.dtype)
        chunks = self._chunks(multipliers or {})
        t.starts, t.stops = (device.array([c[k] for c in chunks], "int64") for k in (0, 1))
        t.decays, t.rates = (device.array([c[k] for c in chunks], store.dtype) for k in (2, 3))
        self._partial = device.array(np.zeros(len(chunks)), "float64")
        self._update = getattr(optimizer, f"update_{device.name}")

    def _chunks(self, multipliers: Mapping[str, float]) -> list[tuple[int, int, float, float]]:
        paths = [s.path for s in self.store.segments]
        # Names of arrays alone, as no_decay: [gamma], may stand in files of networks without such a layer.
        for pattern in (*(p for p in self.optimizer.no_decay if "." in p), *multipliers):
            if not any(matches(path, pattern) for path in paths):
                raise UsageError(f"the pattern {pattern!r} matches no parameter{nearest(pattern, paths)}")
        chunks = []
        for segment in self.store.segments:
            spared = any(matches(segment.path, pattern) for pattern in self.optimizer.no_decay)
            decay = 0.0 if spared else self.optimizer.weight_decay
            rate = math.prod(f for pattern, f in multipliers.items() if matches(segment.path, pattern))
            if rate == 0.0:
                continue  # frozen: neither moved nor decayed
            for lo in range(segment.start, segment.stop, CHUNK):
                chunks.append((lo, min(segment.stop, lo + CHUNK), decay, rate))
        return chunks

    def gather(self, samples: float) -> bool:
        """Keep the gradients in the store, a mean over so many samples; True when it is time for a step."""
        if self.accumulate > 1:
            self._samples = samples if self.gathered == 0 else self._samples + samples
            gather_gradients(self.t, self.store.flat_gradients, samples, self.gathered == 0)
        self.gathered += 1
        return self.gathered >= self.accumulate

    def step(self, lr: float) -> None:
        """One update at learning rate lr. Raises NumbersError when the gradient's norm is not finite."""
        t = self.t
        self.gathered = 0
        if not t.starts.size:
            return
        self.steps += 1
        t.step, t.lr = self.steps, self._real(lr)
        t.scale = self._real(self._clip_factor())
        self._update(t)

    def _clip_factor(self) -> float:
        mean = 1.0 / max(self._samples, 1)
        if self.clip_norm is None:
            return mean
        norm = self.gradient_norm()
        if not math.isfinite(norm):
            raise NumbersError(
                f"the gradient's norm is {norm}; lower the learning rate, or check the data and the loss"
            )
        return mean * min(1.0, self.clip_norm / (norm + 1e-6))

    def gradient_norm(self) -> float:
        """The global norm of all gradients; waits for the device."""
        t = self.t
        if self.device.name == "cpu":
            square_sums[t](t.g, t.starts, t.stops, self._partial)
        else:
            square_sums_cuda[t, (t.starts.size, 256)](t.g, t.starts, t.stops, self._partial)
        return math.sqrt(math.fsum(self.device.to_host(self._partial))) / max(self._samples, 1)

    def arrays(self) -> dict[str, Any]:
        """The slots by parameter, "velocity/conv1.weight": what a checkpoint holds."""
        return {
            f"{slot}/{s.path}": getattr(self.t, slot)[s.start : s.stop].reshape(s.shape)
            for slot in self.optimizer.slots
            for s in self.store.segments
        }


def matches(path: str, pattern: str) -> bool:
    """Whether a parameter's path ("conv1.weight") is meant: by array name, by layer pattern, or by the whole path."""
    layer, _, array = path.rpartition(".")
    return array == pattern or fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(layer, pattern)
