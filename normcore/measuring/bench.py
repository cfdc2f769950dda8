"""Timing one case: a row for each direction, with what the hardware allows and what PyTorch reaches beside it.

All candidates of a row (our kernel, a copy of as many bytes, PyTorch in its forms) run in the same interleaved
rounds. Every call takes the next of several sets of inputs, together twice as large as the largest cache where MOST_SETS
suffice, so that no candidate finds its data there; small arrays stay in the cache, as they do in a network. The copy reads
from as much memory as the op's inputs take, for where an op reads more than it writes, half its bytes might fit into
the cache. All write their results to the same memory: PyTorch's allocator does so too. A row is measured with arrays at
PLACES places in memory.

Bytes that must move: each input and output of the direction once, parameters and state once in each way that the
direction uses them. Forward: inputs, output, parameters, state. Backward: the output's gradient, the inputs'
gradients, those of `x` and `y` that the op's backward needs, parameters and their gradients. What forward saves for
backward is the kernel's own business and not counted.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.bound_layer import Layer
from normcore.devices import device as devices
from normcore.errors import MemoryBudgetError
from normcore.kernels.caches import last_level_bytes
from normcore.measuring import limits, peer
from normcore.measuring.cases import BenchCase
from normcore.measuring.correctness import SECONDS, Verdict, check
from normcore.measuring.figures import calls as calls_of
from normcore.measuring.figures import dispatch_seconds, extra_bytes, moved_bytes, placed, transfer_seconds
from normcore.measuring.machine import give_back_freed
from normcore.measuring.timer import Timing, calls_a_round, interleave, joined

DIRECTIONS = ("forward", "backward")
MOST_SETS = 8
PLACES = 4  # at which a row's arrays lie in turn: elsewhere the same call can take 1.5 times as long


@dataclass(frozen=True)
class Settings:
    """seconds, rounds: a row ends with whichever is reached first. torch: the module, or None. compile: try
    torch.compile. directions: to time. check_seconds: for the reference that a case is checked against first."""

    seconds: float = 1.0
    rounds: int = 40
    torch: Any = None
    compile: bool = False
    directions: tuple[str, ...] = DIRECTIONS
    check_seconds: float = SECONDS


class _Rotation:
    """Calls that take turns."""

    def __init__(self, calls: Sequence[Callable[[], object]]):
        self.calls, self.next = calls, 0

    def __call__(self) -> object:
        call = self.calls[self.next]
        self.next = (self.next + 1) % len(self.calls)
        return call()


def rotation(calls: Sequence[Callable[[], object]]) -> Callable[[], object]:
    """One call that runs the given ones in turn."""
    return calls[0] if len(calls) == 1 else _Rotation(calls)


@dataclass(frozen=True)
class _Placed:
    """What a row is measured with: arrays, and the calls that use them."""

    layers: list[Layer]
    calls: list[Callable[[], object]]
    nbytes: int
    candidates: dict[str, Callable[[], object]]
    clocks: dict[str, Any]
    notes: list[str]


class Bench:
    """The measured limits of this run's devices, and the rows measured beside them."""

    def __init__(self, settings: Settings = Settings()):
        self.settings = settings
        self._peaks: dict[tuple[str, str], float] = {}
        self._dispatch: dict[Any, dict[str, float]] = {}
        self.cache_bytes = last_level_bytes()

    def peak(self, device: str, dtype: str) -> float:
        """FLOP/s, measured once a run."""
        key = (device, dtype)
        if key not in self._peaks:
            self._peaks[key] = limits.peak_rate(devices.get(device), dtype)
        return self._peaks[key]

    def limits(self) -> dict[str, Any]:
        """For the machine's description: {"cpu": {"copy_gb_per_s": ...}} of the devices used so far."""
        found: dict[str, Any] = {}
        for device, dtype in self._peaks:
            of = found.setdefault(device, {})
            if "copy_gb_per_s" not in of:
                of["copy_gb_per_s"] = limits.copy_rate(devices.get(device)) / 1e9
                reading = limits.read_rate(devices.get(device))
                if reading is not None:
                    of["read_gb_per_s"] = reading / 1e9
            of[f"peak_gflops_{dtype}"] = self._peaks[device, dtype] / 1e9
        return found

    def rows(self, case: BenchCase) -> list[dict[str, Any]]:
        """A row for each direction. Raises MemoryBudgetError when the case does not fit."""
        self._places(case)
        verdict = check(case, self.settings.check_seconds)
        if verdict.forward is not True:
            return [_row(case, d, verdict) for d in self._directions(case, None)]
        out = []
        arrays = [case.host_inputs(seed) for seed in range(self._sets(case))]
        for direction in self._directions(case, _layer(case)):
            if verdict.of(direction) is not True:
                out.append(_row(case, direction, verdict))
            else:
                out.append(self._measured(case, direction, verdict, arrays))
        return out

    def broken(self, case: BenchCase, detail: str) -> list[dict[str, Any]]:
        """The rows of an op that failed while it ran."""
        return [_row(case, d, Verdict(False, None, detail)) for d in self._directions(case, None)]

    def _directions(self, case: BenchCase, layer: Layer | None) -> list[str]:
        """backward only where there is one that runs."""
        op = case.op
        backward = op.differentiable and not op.shares_gradient
        backward = backward and (layer is None or layer._binding.differentiable)
        return [d for d in self.settings.directions if d == "forward" or backward]

    def _places(self, case: BenchCase) -> int:
        """How often a row's arrays are placed anew. Raises MemoryBudgetError when they do not even fit once."""
        per_set = 4 * _input_bytes(case)  # inputs, outputs and their gradients
        needed = per_set * self._sets(case) * (3 if self.settings.torch is not None else 1)
        free = devices.get(case.device).free_memory()
        if case.device == "cpu" and PLACES * needed > 0.4 * free:
            give_back_freed()  # by the rows before
            free = devices.get(case.device).free_memory()
        if needed > 0.8 * free:
            raise MemoryBudgetError(
                f"{case.op.name} {case.shape_text} needs about {needed / 1e9:.1f} GB on {case.device}, "
                f"{free / 1e9:.1f} GB are free; give a smaller --shape or --sweep"
            )
        return max(1, min(PLACES, int(0.4 * free / max(1, needed))))

    def _sets(self, case: BenchCase) -> int:
        """Sets of arrays that a row takes turns with: until the inputs exceed the largest cache twice."""
        wanted = math.ceil(2 * self.cache_bytes / max(1, _input_bytes(case)))
        return max(1, min(MOST_SETS, wanted)) if case.sample.make is None else 1

    # -- one row ----------------------------------------------------------------------------------------------

    def _measured(
        self, case: BenchCase, direction: str, verdict: Verdict, arrays: list[tuple[np.ndarray, ...]]
    ) -> dict[str, Any]:
        places = self._places(case)
        kept, parts = [], []  # what was measured stays in memory, so that the next arrays lie elsewhere
        rounds, seconds = -(-self.settings.rounds // places), self.settings.seconds / places
        repeats = None
        for _ in range(places):
            made = self._placed(case, direction, arrays)
            kept.append(made)
            repeats = repeats or calls_a_round(made.candidates, made.clocks)
            parts.append(interleave(made.candidates, rounds, seconds, made.clocks, repeats))
        first, layer = kept[0], kept[0].layers[0]
        row = _row(case, direction, verdict)
        row.update(self._numbers(case, direction, layer, joined(parts), first.nbytes))
        row["sets"], row["places"] = len(first.layers), places
        row["extra_bytes"] = extra_bytes(layer, first.calls[0])
        row["dispatch_s"] = self._dispatch_seconds(case).get(direction)
        if case.device != "cpu":
            row.update(transfer_seconds(layer, arrays[0]))
        if first.notes:
            row["notes"] = first.notes
        return row

    def _placed(self, case: BenchCase, direction: str, arrays: list[tuple[np.ndarray, ...]]) -> "_Placed":
        """A row's candidates with arrays of their own."""
        layers = [_layer(case) for _ in arrays]
        inputs = [tuple(placed(layer, a) for a in given) for layer, given in zip(layers, arrays, strict=True)]
        device: Any = layers[0].device
        calls = calls_of(case, direction, layers, inputs)
        for call in calls:
            call()  # compiles
        nbytes = moved_bytes(layers[0], inputs[0], direction)
        copies = math.ceil(2 * len(calls) * _input_bytes(case) / max(1, nbytes))
        candidates: dict[str, Callable[[], object]] = {
            "normcore": rotation(calls),
            "copy": rotation(limits.copiers(device, nbytes, max(len(calls), min(MOST_SETS, copies)))),
        }
        clocks: dict[str, Any] = {}
        if case.device != "cpu":
            clocks = {"normcore": device.measure, "copy": device.measure}
        notes = self._add_torch(case, direction, layers[0], arrays, candidates, clocks)
        return _Placed(layers, calls, nbytes, candidates, clocks, notes)

    def _numbers(
        self, case: BenchCase, direction: str, layer: Layer, timing: Timing, nbytes: int
    ) -> dict[str, Any]:
        seconds = timing.median("normcore")
        flops = layer._binding.plan.flops * (1 if direction == "forward" else 2)
        peak = self.peak(case.device, case.dtype)
        by_bytes = 1 / timing.ratio("normcore", "copy")[1]
        by_flops = flops / peak / seconds
        found = {
            "median_s": seconds,
            "spread": timing.spread("normcore"),
            "interval_s": list(timing.interval("normcore")),
            "rounds": len(timing.rounds["normcore"]),
            "dropped_rounds": timing.dropped,
            "bytes": nbytes,
            "flops": flops,
            "gb_per_s": nbytes / seconds / 1e9,
            "gflops": flops / seconds / 1e9,
            "copy_s": timing.median("copy"),
            "share_of_limit": max(by_bytes, by_flops),
            "bound_by": "bytes" if by_bytes >= by_flops else "flops",
        }
        formats = {n[6:]: timing.median(n) for n in timing.rounds if n.startswith("torch ")}
        eager = [f for f in formats if f in peer.FORMATS]
        if eager:
            better = min(eager, key=lambda f: formats[f])
            low, middle, high = timing.ratio(f"torch {better}", "normcore")
            found.update(
                torch_ratio=middle, torch_interval=[low, high], torch_format=better, torch_seconds=formats
            )
        if "compiled" in formats:
            low, middle, high = timing.ratio("torch compiled", "normcore")
            found.update(torch_compile_ratio=middle, torch_compile_interval=[low, high])
        return found

    def _add_torch(
        self,
        case: BenchCase,
        direction: str,
        layer: Layer,
        arrays: list[tuple[np.ndarray, ...]],
        candidates: dict[str, Callable[[], object]],
        clocks: dict[str, Any],
    ) -> list[str]:
        """PyTorch's candidates; what kept one away is returned for the row."""
        torch = self.settings.torch
        if torch is None:
            return []
        if not type(case.op).has_torch():
            return ["torch has no such op"]
        if case.device == "cuda" and not torch.cuda.is_available():
            return ["this torch has no CUDA"]
        to_host = layer.device.to_host
        other = peer.Peer(
            torch,
            case,
            {k: np.array(to_host(a)) for k, a in layer.parameters.items()},
            {k: np.array(to_host(a)) for k, a in layer.state.items()},
        )
        notes = []
        try:
            for format in other.formats():
                candidates[f"torch {format}"] = rotation(other.calls(arrays, direction, format))
        except NotImplementedError as reason:
            return [f"torch: {reason}"]
        if self.settings.compile:
            quickest = min(other.formats(), key=lambda f: _quick(candidates[f"torch {f}"]))
            calls, reason_text = peer.try_compiled(other, arrays, direction, quickest)
            if calls is None:
                notes.append(f"torch.compile: {reason_text}")
            else:
                candidates["torch compiled"] = rotation(calls)
        if case.device == "cuda":
            clocks.update({name: other.clock for name in candidates if name.startswith("torch ")})
        return notes

    def _dispatch_seconds(self, case: BenchCase) -> dict[str, float]:
        """Seconds of a call that has next to nothing to do, by direction."""
        key = (case.op, case.dtype, case.memory_format, case.device)
        if key not in self._dispatch:
            self._dispatch[key] = dispatch_seconds(case)
        return self._dispatch[key]


# -- what rows are made of ------------------------------------------------------------------------------------


def _input_bytes(case: BenchCase) -> int:
    return case.elements * np.dtype(case.dtype).itemsize


def _layer(case: BenchCase) -> Layer:
    return Layer(case.op, list(case.shapes), case.device, case.dtype, case.memory_format)


def _row(case: BenchCase, direction: str, verdict: Verdict) -> dict[str, Any]:
    """A row without numbers: what was to be measured, and whether it is right."""
    shapes = [list(s) for s in case.shapes]
    correct = verdict.of(direction)
    return {
        "op": case.op.name,
        "parameters": dict(case.sample.params),
        "direction": direction,
        "dtype": case.dtype,
        "memory_format": case.memory_format,
        "device": case.device,
        "shape": shapes[0] if len(shapes) == 1 else shapes,
        "elements": case.elements,
        **dict.fromkeys(
            (
                "median_s",
                "spread",
                "gb_per_s",
                "share_of_limit",
                "extra_bytes",
                "first_call_s",
                "cached_load_s",
            )
        ),
        "dispatch_s": None,
        # Nothing is timed before its forward is right, nor a backward whose forward is not.
        "correct": verdict.forward if correct is None and verdict.forward is not True else correct,
        "checked_batch": verdict.batch,
        "detail": verdict.detail,
    }


def _quick(call: Callable[[], object]) -> float:
    best = math.inf
    for _ in range(3):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return best


def failed(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows whose kernels are wrong, or could not be checked."""
    return [row for row in rows if row["correct"] is not True]
