"""The static graph: nodes (ops) in an order in which they can run, and the values between them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normcore.config.entries import Place
from normcore.op import Op, Plan, Tensor


@dataclass(eq=False)
class Value:
    """An activation: who makes it, its logical shape, and (after planning) the memory format it has."""

    tensor: Tensor
    name: str  # the producing layer's path, or "input"
    producer: "Node | None" = None
    format: str = "channels_first"

    def __repr__(self) -> str:
        return f"{self.name}{list(self.tensor.shape)}"


@dataclass(eq=False)
class Node:
    """One op in the graph. chain: elementwise ops fused behind it; covers: paths of all layers it runs."""

    path: str
    op: Op
    inputs: list[Value]
    outputs: list[Value]
    plan: Plan
    inits: Mapping[str, Any] = field(default_factory=dict)
    place: Place = field(default_factory=Place)
    chain: tuple[Op, ...] = ()
    covers: tuple[str, ...] = ()
    format: str = "channels_first"

    def __repr__(self) -> str:
        return f"{self.path}({', '.join(v.name for v in self.inputs)})"


@dataclass(eq=False)
class Graph:
    """Nodes in running order, from one input to one output. lengths: the sequences', where a node reads them."""

    nodes: list[Node]
    input: Value
    output: Value
    lengths: Value | None = None

    @property
    def last(self) -> Node:
        """The node whose output is the graph's."""
        return next(node for node in self.nodes if self.output in node.outputs)

    def consumers(self) -> dict[int, list[Node]]:
        """Nodes by the id of the value they read; a node that reads a value twice stands there twice."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                found.setdefault(id(value), []).append(node)
        return found
