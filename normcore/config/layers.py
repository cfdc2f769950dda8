"""The `network:` section: a list of layers and blocks becomes the entries that the graph is built from.

Each item is an op's name, or {op: parameters} with `name:` and `inputs:` beside the op's key, or a block
(residual, branches, repeat) whose lists hold items again.
"""

import re
from typing import Any

from normcore.component import Component
from normcore.config.components import Choice, Reader
from normcore.config.entries import BranchesEntry, Entry, LayerEntry, Place, RepeatEntry, ResidualEntry
from normcore.config.sections import BLOCKS
from normcore.config.values import checked, show
from normcore.config.yaml_file import UNKNOWN, Mapping, Node, Scalar, Sequence, plain
from normcore.errors import nearest

SIBLINGS = ("name", "inputs")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
MAX_LAYERS = 20_000  # after `repeat` is unrolled


class LayerReader:
    """Reads the items of a network; every fault goes to the reader's problems."""

    def __init__(self, reader: Reader):
        self.reader = reader
        self.ops = reader.known("op")
        self.known: dict[str, type[Component]] = {**self.ops, **BLOCKS}

    def network(self, node: Node) -> tuple[Entry, ...]:
        before = len(self.reader.problems)
        entries = self.items(node, "network", empty_allowed=False)
        if len(self.reader.problems) == before and (count := _count(entries)) > MAX_LAYERS:
            self.reader.fault(
                node.place,
                f"network: {count:,} layers once `repeat` is unrolled; expected at most {MAX_LAYERS:,}",
            )
        return entries

    def items(self, node: Node, label: str, empty_allowed: bool = True) -> tuple[Entry, ...]:
        if not isinstance(node, Sequence):
            if plain(node) is not UNKNOWN:
                hint = ", one `- ` for each" if isinstance(node, Mapping) else ""
                self.reader.fault(
                    node.place, f"{label}: expected a list of layers{hint}, got {show(plain(node))}"
                )
            return ()
        if not node.items and not empty_allowed:
            self.reader.fault(node.place, f"{label}: expected at least one layer, got an empty list")
        return tuple(entry for item in node.items if (entry := self.entry(item)) is not None)

    def entry(self, node: Node) -> Entry | None:
        """One item; None after reporting why it is none."""
        siblings: dict[str, tuple[Node, Place]] = {}
        if isinstance(node, Mapping):
            siblings = {key: (node.items[key], node.keys[key]) for key in SIBLINGS if key in node.items}
        choice = self.choice(node)
        name, inputs = self.name(siblings), self.inputs(siblings)
        if choice is None:
            return None
        if choice.component.kind == "block":
            return self.block(choice, name, inputs, siblings)
        op, inits = self.reader.op(choice)
        return None if op is None else LayerEntry(op, inits, name, inputs, choice.place)

    def choice(self, node: Node) -> Choice | None:
        """The op or block that an item names."""
        parameters: Node
        if isinstance(node, Scalar) and isinstance(node.value, str):
            name, parameters, place = node.value, Scalar(None, node.place), node.place
        elif isinstance(node, Mapping):
            keys = [key for key in node.items if key not in SIBLINGS]
            if len(keys) != 1:
                self.not_one_op(node, keys)
                return None
            name, parameters, place = keys[0], node.items[keys[0]], node.keys[keys[0]]
        else:
            if plain(node) is not UNKNOWN:
                what = (
                    "write its items one level further out"
                    if isinstance(node, Sequence)
                    else "such as relu or {dense: 10}"
                )
                self.reader.fault(node.place, f"expected a layer, got {show(plain(node))}; {what}")
            return None
        found = self.reader.find("op", name, place, self.known)
        return Choice(found, parameters, place) if found else None

    def not_one_op(self, node: Mapping, keys: list[Any]) -> None:
        if not keys:
            self.reader.fault(
                node.place,
                f"expected an op's name, such as conv, beside {', '.join(map(str, node.items)) or 'nothing'}",
            )
            return
        first = self.known.get(keys[0])
        own = {p.name for p in first.parameters()} if first else set()
        inside = [str(key) for key in keys[1:] if key in own or str(key).endswith("_init")]
        named = " and ".join(map(str, keys))
        if inside and isinstance(node.items[keys[0]], Scalar):
            hint = f"; {', '.join(inside)} must be indented further than {keys[0]}"
        elif hint := nearest_only(str(keys[1]), SIBLINGS):
            pass
        else:
            hint = "; give each a `- ` of its own"
        self.reader.fault(node.keys[keys[1]], f"expected one op in an item, got {named}{hint}")

    # -- siblings ----------------------------------------------------------------------------------------

    def name(self, siblings: dict[str, tuple[Node, Place]]) -> str | None:
        if "name" not in siblings:
            return None
        node, _ = siblings["name"]
        value = checked(str | None, node, "name", self.reader.problems)
        if isinstance(value, str) and (not NAME.fullmatch(value) or value in ("input", "lengths")):
            self.reader.fault(
                node.place,
                f"name: expected letters, digits, _ and -, other than 'input' and 'lengths', got {value!r}",
            )
        return value if isinstance(value, str) else None

    def inputs(self, siblings: dict[str, tuple[Node, Place]]) -> tuple[str, ...] | None:
        if "inputs" not in siblings:
            return None
        node, _ = siblings["inputs"]
        value = checked(str | tuple[str, ...], node, "inputs", self.reader.problems)
        if value == ():
            self.reader.fault(node.place, "inputs: expected names of layers, got an empty list")
        return (value,) if isinstance(value, str) else (value if isinstance(value, tuple) else None)

    # -- blocks ------------------------------------------------------------------------------------------

    def block(
        self,
        choice: Choice,
        name: str | None,
        inputs: tuple[str, ...] | None,
        siblings: dict[str, tuple[Node, Place]],
    ) -> Entry | None:
        kind, place = choice.component.name, choice.place
        node = choice.node
        first = choice.component.parameters()[0].name
        if isinstance(node, Sequence):
            node = Mapping({first: node}, {first: node.place}, node.place)
            choice = Choice(choice.component, node, place)
        made = self.reader.make(choice)
        parts = {key: value for key, value in node.items.items()} if isinstance(node, Mapping) else {}
        lists = {
            key: self.items(parts[key], f"{kind}.{key}", key == "shortcut")
            for key in ("body", "shortcut", "layers")
            if key in parts
        }
        paths = self.paths(parts["paths"]) if "paths" in parts and kind == "branches" else ()
        if kind == "repeat":
            for key, (_, key_place) in siblings.items():
                self.reader.fault(
                    key_place, f"repeat takes no {key!r}: its layers stand in the list around it"
                )
        if made is None:
            return None
        if kind == "residual":
            return ResidualEntry(lists["body"], lists.get("shortcut", ()), made.scale, name, inputs, place)
        if kind == "branches":
            return BranchesEntry(paths, made.merge, name, inputs, place)
        return RepeatEntry(made.times, lists["layers"], place)

    def paths(self, node: Node) -> tuple[tuple[Entry, ...], ...]:
        if not isinstance(node, Sequence) or not node.items:
            if plain(node) is not UNKNOWN:
                self.reader.fault(
                    node.place, f"branches.paths: expected a list of lists of layers, got {show(plain(node))}"
                )
            return ()
        return tuple(self.items(path, "branches.paths") for path in node.items)


def nearest_only(name: str, known: tuple[str, ...]) -> str:
    """The hint where something is near, else nothing."""
    hint = nearest(name, known)
    return hint if hint.startswith("; did") else ""


def _count(entries: tuple[Entry, ...]) -> int:
    """Layers once `repeat` is unrolled."""
    total = 0
    for entry in entries:
        if isinstance(entry, RepeatEntry):
            total += entry.times * _count(entry.layers)
        elif isinstance(entry, ResidualEntry):
            total += _count(entry.body) + _count(entry.shortcut) + 1
        elif isinstance(entry, BranchesEntry):
            total += sum(map(_count, entry.paths)) + 1
        else:
            total += 1
    return total
