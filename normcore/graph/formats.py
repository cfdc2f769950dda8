"""Choosing each node's memory format, and converting only where neighbours differ.

Cost is counted in bytes moved: a conversion reads and writes a value (and its gradient in training); an op run in
a format that it lists second costs a share of its own traffic. The choice starts from uniform assignments and from
each op's favourite, and flips single nodes while that lowers the cost: graphs are small and costs are local.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from normcore.graph.nodes import Graph, Node, Value
from normcore.kernels.transpose import convert
from normcore.layout import same_memory
from normcore.op import FORMATS, Op, Plan, Tensor

SECOND_CHOICE = 0.5  # share of an op's traffic that its less favoured format costs on top


class Convert(Op, name="convert"):
    """Copies a value into the other memory format; put in by the planner, not by users."""

    formats = FORMATS
    backward_needs = ()

    def plan(self, *inputs: Tensor) -> Plan:
        return Plan(y=inputs[0].shape)

    def forward_cpu(self, t: Any) -> None:
        convert(t, t.x, t.y, t.shape, t.format)

    def backward_cpu(self, t: Any) -> None:
        other = FORMATS[1 - FORMATS.index(t.format)]
        convert(t, t.dy, t.dx, t.shape, other)

    forward_cuda = forward_cpu
    backward_cuda = backward_cpu


def choose(graph: Graph, device: str = "cpu") -> Graph:
    """The same graph with node.format and value.format set and Convert nodes where they differ."""
    nodes = graph.nodes
    taken = [node.op.formats_on(device) for node in nodes]
    consumers = graph.consumers()
    position = {id(node): k for k, node in enumerate(nodes)}

    def edge_cost(value: Value, a: str, b: str) -> float:
        return 0.0 if a == b or same_memory(value.tensor.shape) else 4.0 * _nbytes(value)

    def node_cost(k: int, formats: list[str]) -> float:
        node, format = nodes[k], formats[k]
        cost = 0.0
        if format != taken[k][0] and not _neutral(node):
            cost += SECOND_CHOICE * 2.0 * (sum(map(_nbytes, node.inputs)) + sum(map(_nbytes, node.outputs)))
        for value in node.inputs:
            made_in = formats[position[id(value.producer)]] if value.producer is not None else FORMATS[0]
            cost += edge_cost(value, made_in, format)
        for value in node.outputs:
            if value is graph.output:
                cost += edge_cost(value, format, FORMATS[0])
            for consumer in consumers.get(id(value), ()):
                cost += edge_cost(value, format, formats[position[id(consumer)]])
        return cost

    best: list[str] = []
    best_cost = float("inf")
    for start in (None, *FORMATS):
        formats = [start if start in of else of[0] for of in taken]
        improved = True
        while improved:
            improved = False
            for k in range(len(nodes)):
                for other in taken[k]:
                    if other == formats[k]:
                        continue
                    trial = [*formats[:k], other, *formats[k + 1 :]]
                    if node_cost(k, trial) < node_cost(k, formats):
                        formats, improved = trial, True
        total = sum(node_cost(k, formats) for k in range(len(nodes)))
        if total < best_cost:
            best, best_cost = formats, total
    return _insert(graph, best)


def _insert(graph: Graph, formats: list[str]) -> Graph:
    graph.input.format = FORMATS[0]
    converted: dict[tuple[int, str], Value] = {}
    nodes: list[Node] = []

    def in_format(value: Value, format: str) -> Value:
        if value.format == format or same_memory(value.tensor.shape):
            return value
        key = (id(value), format)
        if key not in converted:
            op = Convert()
            path = f"{value.name}.{format}"
            node = Node(path, op, [value], [], op.plan(value.tensor), covers=(), format=value.format)
            node.outputs = [Value(value.tensor, value.name, node, format)]
            nodes.append(node)
            converted[key] = node.outputs[0]
        return converted[key]

    for node, format in zip(graph.nodes, formats, strict=True):
        node.format = format
        node.inputs = [in_format(v, format) for v in node.inputs]
        nodes.append(node)
        for value in node.outputs:
            value.format = format
            value.producer = node
    output = in_format(graph.output, FORMATS[0])
    return replace(graph, nodes=nodes, output=output)


def _neutral(node: Node) -> bool:
    return all(same_memory(v.tensor.shape) for v in (*node.inputs, *node.outputs)) or node.op.is_elementwise


def _nbytes(value: Value) -> int:
    return value.tensor.size * np.dtype(value.tensor.dtype).itemsize
