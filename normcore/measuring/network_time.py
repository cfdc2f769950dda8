"""Timing a network's whole training step, call by call, as it runs: forward, loss, backward, optimizer.

Every round is one step in its own order, so each layer finds its data in the caches as it does in training; a
layer's time is the median over rounds. Bytes are those that must move: each input and output of a direction once,
parameters and state once in each way that the direction uses them (as normcore/measuring/bench.py counts them).
FLOPs of a backward are those of the gradients that are wanted, each as many as forward has.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normcore.binding import Binding
from normcore.errors import UsageError
from normcore.graph.fuse import backward_needs
from normcore.graph.nodes import Node
from normcore.kernels import kernel
from normcore.kernels.accumulate import accumulate
from normcore.measuring.timer import Timing, gather
from normcore.op import Array, Tensor
from normcore.sequences import Sequences
from normcore.training.optimizer_binding import OptimizerBinding

FORWARD, BACKWARD = "forward", "backward"
STEP = "step"


@dataclass
class Part:
    """Calls of a step that are reported together: a direction of a layer, the loss, the optimizer."""

    layer: str
    direction: str
    calls: list[Callable[[], Any]] = field(default_factory=list)
    kernels: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.layer} {self.direction}"


class Step:
    """A network's training step with random inputs and targets; the learning rate is 0, so nothing diverges.

    Kernels must be compiled (training.warm_up). Raises UsageError for a network without a loss.
    """

    def __init__(self, net: Any, batch: int):
        self.net, self.batch = net, batch
        self.program = program = net.program(batch, True, keep=False)
        self.loss = net.loss_of(program)
        config = net.config
        self.optimizer = OptimizerBinding(
            config.optimizer,
            net.store,
            net.device,
            {},
            config.train.clip_grad_norm,
            config.train.clip_grad_value,
        )
        self.x, self.targets = random_batch(net, batch)
        self.loss.set_targets(self.targets)
        program.set_input(self.x)
        for binding in program.bindings:
            binding.t.call = 0
        self.parts = self._parts()

    def _parts(self) -> list[Part]:
        found: dict[str, Part] = {}

        def add(layer: str, direction: str, call: Callable[[], Any]) -> None:
            part = found.setdefault(f"{layer} {direction}", Part(layer, direction))
            part.calls.append(call)

        for call in self.program.forward_calls:
            add(owner(call), FORWARD, call)
        add("loss", FORWARD, self.loss.run)
        for call in self.program.backward_calls:
            add(owner(call), BACKWARD, call)
        add("optimizer", "update", self._update)
        parts = list(found.values())
        with kernel.recording() as launches:
            for part in parts:
                before = len(launches)
                for call in part.calls:
                    call()
                names = (k.__name__.strip("_") for k, _ in launches[before:])
                part.kernels = tuple(dict.fromkeys(names))
        return parts

    def _update(self) -> None:
        self.optimizer.gather(self.batch)
        self.optimizer.step(0.0)

    def run(self) -> None:
        for part in self.parts:
            for call in part.calls:
                call()

    def seconds(self) -> dict[str, float]:
        """One step: seconds of each part by its key, and of all."""
        device = self.net.device
        measured = {}
        if device.name != "cpu":
            for part in self.parts:
                measured[part.key] = sum(device.measure(call, 1) for call in part.calls)
            measured[STEP] = device.measure(self.run, 1)
            return measured
        clock = time.perf_counter
        started = before = clock()
        for part in self.parts:
            for call in part.calls:
                call()
            now = clock()
            measured[part.key] = now - before
            before = now
        measured[STEP] = before - started
        return measured


def owner(call: Any) -> str:
    """The layer's path of a bound call of a program."""
    path = str(getattr(call.args[0], "path", ""))
    return f"{path} (sum of gradients)" if call.func is accumulate else path


def random_batch(net: Any, batch: int) -> tuple[Any, np.ndarray]:
    """(x on the device, targets): normal numbers (zeros for a net that begins with numbers of words), any targets."""
    program = net.program(batch, True, keep=False)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, *net.sample_shape)).astype(net.dtype)
    first = {id(program.graph.input)}
    for node in program.nodes:
        if not any(id(v) in first for v in node.inputs):
            continue
        if node.op.is_view:
            first.update(id(v) for v in node.outputs)
        elif (getattr(node.op, "input_dtypes", None) or (None,))[0] is not None:
            x[...] = 0
    output, loss = program.graph.output.tensor, net.config.loss
    if loss is None:
        raise UsageError("the network has no loss:, so it has no training step to time")
    spec, classes = loss.targets(output), loss.classes(output)
    given = net.device.array(x, net.dtype)
    if net.reads_lengths:
        given = Sequences(given, net.device.array([net.sample_shape[0]] * batch, "int64"))
    if classes is not None:
        return given, rng.integers(0, classes, spec.shape)
    return given, rng.random(spec.shape).astype(spec.dtype or net.dtype)


def document(
    step: Step,
    rounds: int,
    seconds: float,
    others: Mapping[str, Callable[[], Any]] | None = None,
) -> dict[str, Any]:
    """Measure. others: the step in PyTorch by memory format, timed in the same rounds before and after
    ours in turn."""
    others = others or {}

    def measure(number: int) -> Mapping[str, float]:
        measured: dict[str, float] = {}
        if number % 2:
            measured.update({name: _wall(call) for name, call in others.items()})
        measured.update(step.seconds())
        if not number % 2:
            measured.update({name: _wall(call) for name, call in others.items()})
        return measured

    for _ in range(2):
        measure(0)
    timing = gather(measure, rounds, seconds)
    rows = _rows(step, timing)
    total = timing.median(STEP)
    found: dict[str, Any] = {
        "rounds": len(timing.rounds[STEP]),
        "dropped_rounds": timing.dropped,
        "layers": rows,
        "forward_s": sum(r["forward_s"] or 0.0 for r in rows),
        "backward_s": sum(r["backward_s"] or 0.0 for r in rows),
        "optimizer_s": timing.median("optimizer update"),
        "loss_s": timing.median("loss forward"),
        "step_s": total,
        "step_interval_s": list(timing.interval(STEP)),
        "images_per_second": step.batch / total,
        "flops": sum((r["forward_flops"] or 0) + (r["backward_flops"] or 0) for r in rows),
        "bytes": sum((r["forward_bytes"] or 0) + (r["backward_bytes"] or 0) for r in rows),
        "optimizer_kernels": list(step.parts[-1].kernels),
        "loss_kernels": next(list(p.kernels) for p in step.parts if p.layer == "loss"),
    }
    if others:
        better = min(others, key=timing.median)
        low, middle, high = timing.ratio(better, STEP)
        found["torch"] = {
            "format": better,
            "seconds": {name: timing.median(name) for name in others},
            "ratio": middle,
            "ratio_interval": [low, high],
        }
    return found


def _wall(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _rows(step: Step, timing: Timing) -> list[dict[str, Any]]:
    """A row for each node of the fused graph, in running order; sums of gradients count to the layer they follow."""
    parts = {part.key: part for part in step.parts}
    total = timing.median(STEP)
    wanted = step.program.wanted
    rows = []
    for node, binding in zip(step.program.nodes, step.program.bindings, strict=True):
        row: dict[str, Any] = {
            "layer": node.path,
            "op": node.op.name,
            "covers": list(node.covers),
            "output_shape": list(node.outputs[0].tensor.shape),
            "memory_format": node.format,
            "view": node.op.is_view,
        }
        spent = 0.0
        for direction in (FORWARD, BACKWARD):
            keys = (f"{node.path} {direction}", f"{node.path} (sum of gradients) {direction}")
            of = [parts[key] for key in keys if key in parts]
            seconds = sum(timing.median(part.key) for part in of) if of else None
            flops = _flops(node, direction, wanted) if of else None
            row[f"{direction}_s"] = seconds
            row[f"{direction}_flops"] = flops
            row[f"{direction}_bytes"] = _bytes(node, binding, direction, wanted) if of else None
            row[f"{direction}_gflops"] = flops / seconds / 1e9 if flops and seconds else None
            row[f"{direction}_kernels"] = list(dict.fromkeys(k for part in of for k in part.kernels))
            spent += seconds or 0.0
        row["share"] = spent / total
        rows.append(row)
    return rows


def _flops(node: Node, direction: str, wanted: set[int]) -> int:
    chained = sum(op.plan(node.outputs[0].tensor).flops for op in node.chain)
    if direction == FORWARD:
        return node.plan.flops + chained
    gradients = any(id(v) in wanted for v in node.inputs) + bool(node.plan.parameters)
    return node.plan.flops * gradients + 2 * chained


def _bytes(node: Node, binding: Binding, direction: str, wanted: set[int]) -> int:
    plan = binding.plan
    xs = _of(v.tensor for v in node.inputs)
    ys = _of(v.tensor for v in node.outputs)
    parameters = _held(plan.parameters.values(), node.outputs[0].tensor.dtype)
    z = ys if binding.keeps_z else 0  # the value before the fused chain, written and read once
    if direction == FORWARD:
        return xs + ys + z + parameters + _held(plan.state.values(), node.outputs[0].tensor.dtype)
    gradients = _of(v.tensor for v in node.inputs if id(v) in wanted)
    needs = backward_needs(node)
    read = ("x" in needs) * xs + ("y" in needs) * ys + z
    return _of([node.outputs[0].tensor]) + gradients + read + 2 * parameters


def _of(tensors: Iterable[Tensor]) -> int:
    return sum(t.size * np.dtype(t.dtype).itemsize for t in tensors)


def _held(arrays: Iterable[Array], dtype: str) -> int:
    return sum(math.prod(a.shape) * np.dtype(a.dtype or dtype).itemsize for a in arrays)
