"""Fusion: elementwise ops join the op before them, so that a chain is one pass over memory.

What may fuse follows from what ops declare, never from their names: an elementwise op joins
- an elementwise op before it (a chain),
- an op with epilogue = "input", whose backward recomputes its own output (batch_norm),
- an op with epilogue = "output", whose backward has its output only (conv, dense). Where that does not tell the chain's
  derivative (silu, or more than one op), training keeps the value before the chain as well, in the same pass,
as long as nobody else reads the value in between.

Before that, an op that commutes with maxima (relu) and would cost a pass of its own moves behind the op that picks them
(max_pool), to run on the smaller output: unless fusing makes it free where it stands. Values and gradients stay equal;
only a zero may change its sign, and a gradient that is not finite may reach another element that the op held at a bound.
"""

from collections.abc import Sequence
from dataclasses import replace

from normcore.elementwise_kernels import Chain
from normcore.elementwise_ops import ElementwiseOp, FusedChain
from normcore.graph.nodes import Graph, Node, Value
from normcore.op import Op


def fuse(graph: Graph, training: bool) -> Graph:
    """The same graph with elementwise nodes merged into their producers."""
    graph = _move_behind_extremes(graph, training)
    consumers = graph.consumers()
    nodes: list[Node] = []
    made: dict[int, Node] = {}  # id(value) -> the new node that makes it
    for node in graph.nodes:
        source = node.inputs[0] if node.inputs else None
        host = made.get(id(source)) if source is not None else None
        alone = source is not None and len(consumers.get(id(source), ())) == 1 and source is not graph.output
        if host is not None and alone and isinstance(node.op, ElementwiseOp) and len(node.inputs) == 1:
            joined = _join(host, node)
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


def _move_behind_extremes(graph: Graph, training: bool) -> Graph:
    """relu -> max_pool becomes max_pool -> relu where that saves work.

    Both orders pick the same values: what an op that commutes_with_max makes equal has the derivative 0, so it does not
    matter which of the equal elements gets the gradient. An op with a second output (indices) would give another one.
    """
    while (pair := _pair_to_swap(graph, training)) is not None:
        moved, picking = pair
        small = Value(picking.outputs[0].tensor, picking.path)
        first = _replaced(picking, [small], picking.covers, inputs=moved.inputs)
        plan = moved.op.plan(small.tensor)
        then = _replaced(moved, picking.outputs, moved.covers, inputs=[small], plan=plan)
        swapped = {id(moved): [], id(picking): [first, then]}
        nodes = [new for node in graph.nodes for new in swapped.get(id(node), [node])]
        graph = replace(graph, nodes=nodes)
    return graph


def _pair_to_swap(graph: Graph, training: bool) -> tuple[Node, Node] | None:
    makers = {id(value): node for node in graph.nodes for value in node.outputs}
    consumers = graph.consumers()

    def maker(value: Value) -> Node | None:
        """Nobody where others read the value too."""
        only = len(consumers[id(value)]) == 1 and value is not graph.output
        return makers.get(id(value)) if only else None

    for picking in graph.nodes:
        moved = maker(picking.inputs[0]) if picking.op.picks_extremes and len(picking.outputs) == 1 else None
        if moved is None or not moved.op.commutes_with_max or len(moved.inputs) != 1:
            continue
        host = maker(moved.inputs[0])
        free = host is not None and _join(host, moved) is not None
        if free and host is not None and host.op.epilogue == "output" and training:
            free = False  # its backward is a pass over the whole output all the same
        if not free and picking.outputs[0].tensor.size < moved.outputs[0].tensor.size:
            return moved, picking
    return None


def _join(host: Node, node: Node) -> Node | None:
    assert isinstance(node.op, ElementwiseOp)
    covers = (*host.covers, node.path)
    if isinstance(host.op, ElementwiseOp):
        ops = host.op.ops if isinstance(host.op, FusedChain) else (host.op,)
        op = FusedChain((*ops, node.op))
        return _replaced(host, node.outputs, covers, op=op, plan=op.plan(*(v.tensor for v in host.inputs)))
    if len(host.outputs) != 1 or host.op.epilogue is None:
        return None
    return _replaced(host, node.outputs, covers, chain=(*host.chain, node.op))


def _replaced(host: Node, outputs: list[Value], covers: tuple[str, ...], **changes: object) -> Node:
    return Node(**{**vars(host), "outputs": outputs, "covers": covers, **changes})  # type: ignore[arg-type]


def chain_of(node: Node, training: bool) -> tuple[Chain | None, tuple[float, ...]]:
    """The fused epilogue of a node and its constants; for an elementwise node its own constants."""
    if isinstance(node.op, ElementwiseOp):
        return None, node.op.constants
    return epilogue_of(node.op, node.chain, training) if node.chain else (None, ())


def epilogue_of(op: Op, chain: Sequence[Op], training: bool) -> tuple[Chain | None, tuple[float, ...]]:
    """A chain as the kernels of the op before it take it, and its constants.

    Behind an op with epilogue = "output" it knows its input where training keeps it (Binding.keeps_z).
    """
    fused = FusedChain(tuple(chain))
    kept = training and not _tells_from_output(fused)
    knows = "output" if op.epilogue == "output" and not kept else "input"
    return Chain(fused.chain.stages, knows), fused.constants


def _tells_from_output(fused: FusedChain) -> bool:
    """Whether the derivative of a chain follows from its output."""
    return fused.chain.uses <= {"y"}


def backward_needs(node: Node) -> frozenset[str]:
    """Which of its input ("x") and output ("y") a node's backward reads, with what is fused into it."""
    needs = frozenset(node.op.backward_needs)
    if node.chain and node.op.epilogue == "output" and _tells_from_output(FusedChain(node.chain)):
        needs |= {"y"}
    return needs
