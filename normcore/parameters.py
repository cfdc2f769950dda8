"""The learnable arrays of a network, in one flat vector, so that an optimizer step is one pass over memory."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from normcore.devices.device import Device
from normcore.graph.nodes import Graph
from normcore.initializers import initial_values
from normcore.op import Array, Plan, Shape

ALIGNMENT = 16  # elements between the starts of two arrays: a cache line of float32


@dataclass(frozen=True)
class Segment:
    """One parameter's place in the flat vectors: elements start .. stop."""

    path: str  # "conv1.weight"
    shape: Shape
    start: int
    stop: int


class ParameterStore:
    """Parameters and gradients as views of two flat vectors, state as arrays of its own.

    parameters, gradients, state: dicts path -> array in document order. flat, flat_gradients: the vectors; the
    padding between arrays is zero in both and stays so.
    """

    def __init__(self, graph: Graph, device: Device, dtype: str, seed: int):
        self.device, self.dtype = device, dtype
        specs: list[tuple[str, Array, Any]] = []
        states: list[tuple[str, Array]] = []
        for node in graph.nodes:
            specs += [(f"{node.path}.{k}", a, node.inits.get(k)) for k, a in node.plan.parameters.items()]
            states += [(f"{node.path}.{k}", a) for k, a in node.plan.state.items()]
        self.segments: list[Segment] = []
        position = 0
        for path, array, _ in specs:
            size = math.prod(array.shape)
            self.segments.append(Segment(path, tuple(array.shape), position, position + size))
            position += -(-size // ALIGNMENT) * ALIGNMENT
        nbytes = position * np.dtype(dtype).itemsize
        self.flat, self.flat_gradients = (device.empty(nbytes).view(dtype) for _ in range(2))
        self.flat[...] = 0
        self.flat_gradients[...] = 0
        self.parameters: dict[str, Any] = {s.path: self._view(self.flat, s) for s in self.segments}
        self.gradients: dict[str, Any] = {s.path: self._view(self.flat_gradients, s) for s in self.segments}
        for path, array, override in specs:
            self.parameters[path][...] = device.array(initial_values(array, override, seed, path), dtype)
        self.state: dict[str, Any] = {
            path: device.array(initial_values(array, None, seed, path), array.dtype or dtype)
            for path, array in states
        }

    def _view(self, flat: Any, segment: Segment) -> Any:
        return flat[segment.start : segment.stop].reshape(segment.shape)

    def arrays(self, path: str, plan: Plan) -> dict[str, Any]:
        """What one node's Tensors get: parameters, gradients as "d" + name, and state."""
        found: dict[str, Any] = {}
        for name in plan.parameters:
            found[name] = self.parameters[f"{path}.{name}"]
            found["d" + name] = self.gradients[f"{path}.{name}"]
        for name in plan.state:
            found[name] = self.state[f"{path}.{name}"]
        return found

    def everything(self) -> Mapping[str, Any]:
        """Parameters and state together: what a weights file holds."""
        return {**self.parameters, **self.state}
