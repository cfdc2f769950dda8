"""From a configuration's entries to the graph: names, connections and shapes."""

from collections.abc import Sequence

from normcore.config.entries import (
    BranchesEntry,
    Entry,
    LayerEntry,
    Place,
    RepeatEntry,
    ResidualEntry,
)
from normcore.errors import ConfigError, ParameterError, Problem, ShapeError, nearest
from normcore.graph.nodes import Graph, Node, Value
from normcore.op import Op, Shape, Tensor
from normcore.registry import default

INPUT = "input"
LENGTHS = "lengths"  # int64 (N,), beside an input of sequences, for the layers that name them


def build(entries: Sequence[Entry], sample_shape: Shape, batch: int, dtype: str) -> Graph:
    """The graph of a network for one batch size.

    sample_shape: one sample's logical shape, channels first. Raises ConfigError with the place of each layer that
    does not fit, naming the layer before it and both shapes. What stands behind such a layer has no shape to be
    checked; what stands beside it (another path, a shortcut) has.
    """
    builder = _Builder(dtype)
    source = Value(Tensor((batch, *sample_shape), dtype), INPUT)
    lengths = Value(Tensor((batch,), "int64"), LENGTHS)
    builder.known |= {INPUT: source, LENGTHS: lengths}
    output = builder.sequence(entries, source, _Scope("", {}, builder.problems))
    if output is source:
        raise ConfigError([Problem("network: expected at least one layer, got none")])
    if builder.problems:
        raise ConfigError(sorted(dict.fromkeys(builder.problems), key=lambda p: (p.line, p.column)))
    read = any(value is lengths for node in builder.nodes for value in node.inputs)
    graph = Graph(builder.nodes, source, output, lengths if read else None)
    _check_all_used(graph)
    return graph


def _check_all_used(graph: Graph) -> None:
    read = graph.consumers()
    problems = [
        _problem(
            f"{node.path}: nobody reads its output; name it in another layer's `inputs:` or leave it out",
            node.place,
        )
        for node in graph.nodes
        if node.outputs[0] is not graph.output and id(node.outputs[0]) not in read
    ]
    if problems:
        raise ConfigError(problems)


class _Scope:
    """The names of one block: unnamed layers are numbered by kind, named ones use up no number."""

    def __init__(self, prefix: str, taken: dict[str, Place], problems: list[Problem]):
        self.prefix, self.taken, self.problems = prefix, taken, problems
        self.counts: dict[str, int] = {}

    def path(self, kind: str, name: str | None, place: Place) -> str:
        if name is None:
            self.counts[kind] = self.counts.get(kind, 0) + 1
            name = f"{kind}{self.counts[kind]}"
        path = self.prefix + name
        if path in self.taken or path in (INPUT, LENGTHS):
            other = f" at {self.taken[path]}" if path in self.taken and self.taken[path].line else ""
            message = f"two layers are called {path!r}{other}; give one of them another `name:`"
            self.problems.append(_problem(message, place))
        self.taken[path] = place
        return path

    def inner(self, path: str) -> "_Scope":
        return _Scope(f"{path}.", self.taken, self.problems)


class _Builder:
    def __init__(self, dtype: str):
        self.dtype = dtype
        self.nodes: list[Node] = []
        self.known: dict[str, Value] = {}
        self.problems: list[Problem] = []
        self.shapeless: dict[
            int, Value
        ] = {}  # by id: outputs of layers that do not fit, and all that follows

    def fault(self, message: str, place: Place, path: str) -> Value:
        """Note what does not fit; what stands for the layer's output, so that the others can be looked at."""
        self.problems.append(_problem(message, place))
        return self.unknown(path)

    def unknown(self, path: str) -> Value:
        value = Value(Tensor((), self.dtype), path)
        self.known[path] = self.shapeless[id(value)] = value
        return value

    def sequence(self, entries: Sequence[Entry], value: Value, scope: _Scope) -> Value:
        for entry in entries:
            value = self.entry(entry, value, scope)
        return value

    def entry(self, entry: Entry, value: Value, scope: _Scope) -> Value:
        if isinstance(entry, RepeatEntry):
            for _ in range(entry.times):
                value = self.sequence(entry.layers, value, scope)
            return value
        if isinstance(entry, LayerEntry):
            path = scope.path(entry.op.name, entry.name, entry.place)
            inputs = self.inputs(entry, value, scope)
            return self.node(path, entry.op, inputs, entry)
        kind = "residual" if isinstance(entry, ResidualEntry) else "branches"
        path = scope.path(kind, entry.name, entry.place)
        inputs = self.inputs(entry, value, scope)
        if len(inputs) != 1:
            return self.fault(f"{path}: expected one input, got {len(inputs)}", entry.place, path)
        inner = scope.inner(path)
        if isinstance(entry, ResidualEntry):
            made = self.residual(entry, inputs[0], path, inner)
        else:
            made = self.branches(entry, inputs[0], path, inner)
        self.known[path] = made
        return made

    def residual(self, entry: ResidualEntry, value: Value, path: str, scope: _Scope) -> Value:
        body = self.sequence(entry.body, value, scope)
        if entry.scale != 1.0:
            body = self.structural("scale", [body], f"{path}.scale", entry.place, factor=entry.scale)
        shortcut = self.sequence(entry.shortcut, value, scope.inner(f"{path}.shortcut"))
        known = not self.shapeless.keys() & {id(body), id(shortcut)}
        if known and body.tensor.shape != shortcut.tensor.shape:
            return self.fault(
                f"{path}: the body ends in {body.name} with shape {body.tensor.shape}, the shortcut in "
                f"{shortcut.name} with shape {shortcut.tensor.shape}; a residual sums them, so they must be equal "
                "(give the shortcut a conv of the same stride and out_channels)",
                entry.place,
                path,
            )
        return self.structural("add", [body, shortcut], f"{path}.add", entry.place)

    def branches(self, entry: BranchesEntry, value: Value, path: str, scope: _Scope) -> Value:
        ends = [
            self.sequence(layers, value, scope.inner(f"{path}.path{k}"))
            for k, layers in enumerate(entry.paths, start=1)
        ]
        if entry.merge == "concat":
            return self.structural("concat", ends, f"{path}.concat", entry.place)
        total = ends[0]
        for k, end in enumerate(ends[1:], start=1):
            total = self.structural("add", [total, end], f"{path}.add{k}", entry.place)
        return total

    def structural(
        self, role: str, inputs: list[Value], path: str, place: Place, **parameters: object
    ) -> Value:
        """A node of the op that declares this role: the engine knows no op by name."""
        found = [r for r in default().all("op") if getattr(r.component, "role", "") == role]
        if not found:
            return self.fault(
                f"{path}: no installed op declares the role {role!r}; is the plugin of the basic ops there?",
                place,
                path,
            )
        op = found[0].component.make(**parameters)
        return self.node(path, op, inputs, LayerEntry(op, place=place))

    def inputs(
        self, entry: LayerEntry | ResidualEntry | BranchesEntry, value: Value, scope: _Scope
    ) -> list[Value]:
        if entry.inputs is None:
            return [value]
        found = []
        for name in entry.inputs:
            known = self.known.get(scope.prefix + name) or self.known.get(name)
            if known is None:
                message = f"inputs: no layer before this one is called {name!r}{nearest(name, self.known)}"
                self.problems.append(_problem(message, entry.place))
                known = Value(Tensor((), self.dtype), name)
                self.shapeless[id(known)] = known
            found.append(known)
        return found

    def node(self, path: str, op: Op, inputs: list[Value], entry: LayerEntry) -> Value:
        names = op.inputs
        if not names[0].startswith("*") and len(names) != len(inputs):
            return self.fault(
                f"{path}: {op.name} takes {len(names)} inputs ({', '.join(names)}), got {len(inputs)}; name them with `inputs:`",
                entry.place,
                path,
            )
        if any(id(v) in self.shapeless for v in inputs):
            return self.unknown(path)
        try:
            plan = op.plan(*(v.tensor for v in inputs))
        except (ShapeError, ParameterError) as fault:
            before = " and ".join(f"{v.name} (output shape {_sample(v.tensor.shape)})" for v in inputs)
            return self.fault(f"{path} does not fit behind {before}: {fault}", entry.place, path)
        for array in entry.inits:
            if array not in plan.parameters:
                message = f"{path}: {array}_init has nothing to fill, for this {op.name} has no {array}"
                self.problems.append(_problem(message, entry.place))
        node = Node(path, op, inputs, [], plan, entry.inits, entry.place, covers=(path,))
        node.outputs = [
            Value(t, path if name == "y" else f"{path}.{name}", node)
            for name, t in plan.outputs(self.dtype).items()
        ]
        self.nodes.append(node)
        for output in node.outputs:
            self.known[output.name] = output
        return node.outputs[0]


def _sample(shape: Shape) -> str:
    return f"(N, {', '.join(map(str, shape[1:]))})" if len(shape) > 1 else str(shape)


def _problem(message: str, place: Place) -> Problem:
    return Problem(message, place.file, place.line, place.column)
