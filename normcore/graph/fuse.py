"""Fusion: elementwise ops join the op before them, so that a chain is one pass over memory.

What may fuse follows from what ops declare, never from their names: an elementwise op joins
- an elementwise op before it (a chain),
- an op with epilogue = "input", whose backward recomputes its own output (batch_norm),
- an op with epilogue = "output", whose backward has its output only (conv, dense): in training one elementwise op
  whose derivative can be told from its output; in inference any chain,
as long as nobody else reads the value in between.
"""

from dataclasses import replace

from normcore.elementwise_ops import Chain, ElementwiseOp, FusedChain
from normcore.graph.nodes import Graph, Node, Value


def fuse(graph: Graph, training: bool) -> Graph:
    """The same graph with elementwise nodes merged into their producers."""
    consumers = graph.consumers()
    nodes: list[Node] = []
    made: dict[int, Node] = {}  # id(value) -> the new node that makes it
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else None
        host = made.get(id(source)) if source is not None else None
        alone = source is not None and len(consumers.get(id(source), ())) == 1 and source is not graph.output
        if host is not None and alone and isinstance(node.op, ElementwiseOp) and len(node.inputs) == 1:
            joined = _join(host, node, training)
            if joined is not None:
                nodes[nodes.index(host)] = joined
                for value in joined.outputs:
                    made[id(value)] = joined
                    value.producer = joined
                continue
        copy = Node(**{**vars(node), "covers": (node.path,)})
        nodes.append(copy)
        for value in copy.outputs:
            made[id(value)] = copy
            value.producer = copy
    return replace(graph, nodes=nodes)


def _join(host: Node, node: Node, training: bool) -> Node | None:
    assert isinstance(node.op, ElementwiseOp)
    covers = (*host.covers, node.path)
    if isinstance(host.op, ElementwiseOp):
        ops = host.op.ops if isinstance(host.op, FusedChain) else (host.op,)
        op = FusedChain((*ops, node.op))
        return _replaced(host, node.outputs, covers, op=op, plan=op.plan(*(v.tensor for v in host.inputs)))
    if len(host.outputs) != 1 or host.op.epilogue is None:
        return None
    if host.op.epilogue == "output" and training and (host.chain or not node.op.chain.uses <= {"y"}):
        return None
    return _replaced(host, node.outputs, covers, chain=(*host.chain, node.op))


def _replaced(host: Node, outputs: list[Value], covers: tuple[str, ...], **changes: object) -> Node:
    return Node(**{**vars(host), "outputs": outputs, "covers": covers, **changes})  # type: ignore[arg-type]


def chain_of(node: Node) -> tuple[Chain | None, tuple[float, ...]]:
    """The fused epilogue of a node and its constants; for an elementwise node its own constants."""
    if isinstance(node.op, ElementwiseOp):
        return None, node.op.constants
    if not node.chain:
        return None, ()
    fused = FusedChain(node.chain)
    knows = "output" if node.op.epilogue == "output" else "input"
    return Chain(fused.chain.stages, knows), fused.constants


def backward_needs(node: Node) -> frozenset[str]:
    """Which of its input ("x") and output ("y") a node's backward reads, with what is fused into it."""
    needs = frozenset(node.op.backward_needs)
    if node.chain and node.op.epilogue == "output":
        needs |= {"y"}
    return needs
