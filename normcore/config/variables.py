"""`${name}` in a configuration: values from its `vars:` section.

A scalar that is nothing but `${act}` becomes the variable's value, whatever its type; inside longer text its
text is put in; keys too (`- ${norm}: {eps: 1e-3}`). Variables may use variables. `$${` stands for a plain
`${`.
"""

import re
from dataclasses import replace
from typing import Any

from normcore.config.entries import Place
from normcore.config.yaml_file import UNKNOWN, Mapping, Node, Scalar, Sequence, at
from normcore.errors import Problem, nearest

SECTION = "vars"
_USE = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<name>[^{}]*)\}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def substitute(root: Mapping, problems: list[Problem]) -> Mapping:
    """The tree with every `${name}` replaced; faults go to `problems`."""
    section = root.get(SECTION)
    if section is not None and not isinstance(section, Mapping):
        if not (isinstance(section, Scalar) and section.value is None):
            problems.append(
                at(section.place, "vars: expected a mapping of names to values, such as vars: {act: relu}")
            )
        section = None
    work = _Substitution(section, problems)
    own = {SECTION: work.section()} if SECTION in root.items else {}
    rest = work.mapping(replace(root, items={k: node for k, node in root.items.items() if k != SECTION}))
    work.report_unused()
    places = {key: root.keys[key] for key in own}
    return replace(root, items={**own, **rest.items}, keys={**places, **rest.keys})


class _Substitution:
    def __init__(self, section: Mapping | None, problems: list[Problem]):
        self.variables = section.items if section else {}
        self.keys = section.keys if section else {}
        self.place = section.place if section else Place()
        self.problems = problems
        self.values: dict[str, Node] = {}  # variables whose own uses are replaced
        self.open: list[str] = []
        self.used: set[str] = set()

    def section(self) -> Mapping:
        for name, place in self.keys.items():
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                self.problems.append(at(place, f"a variable's name is letters, digits and _, got {name!r}"))
        return Mapping(
            {name: self.variable(name, self.keys[name]) for name in self.variables}, self.keys, self.place
        )

    def report_unused(self) -> None:
        """A variable that --set brings and nothing uses is a misspelt one."""
        for name, place in self.keys.items():
            if not place.line and place.file.startswith("--set") and name not in self.used:
                known = self.used | {key for key in self.keys if key != name}
                self.problems.append(
                    at(place, f"the file uses no variable {name!r}{nearest(str(name), map(str, known))}")
                )

    def variable(self, name: str, place: Place) -> Node:
        if name in self.values:
            return self.values[name]
        if name in self.open:
            around = " -> ".join([*self.open[self.open.index(name) :], name])
            self.problems.append(at(place, f"variables go around in a circle: {around}"))
            return Scalar(UNKNOWN, place)
        self.open.append(name)
        self.values[name] = self.node(self.variables[name])
        self.open.pop()
        return self.values[name]

    def node(self, node: Node) -> Node:
        if isinstance(node, Mapping):
            return self.mapping(node)
        if isinstance(node, Sequence):
            return replace(node, items=tuple(map(self.node, node.items)))
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        whole = _USE.fullmatch(node.value)
        if whole and not whole["escaped"]:
            value = self.use(whole["name"], node.place)
            if isinstance(value, Scalar):
                return Scalar(value.value, node.place, value.origin or value.place)
            return value if value is not None else Scalar(UNKNOWN, node.place)
        before = len(self.problems)
        text = self.text(node.value, node.place)
        return Scalar(text if len(self.problems) == before else UNKNOWN, node.place, node.origin)

    def mapping(self, node: Mapping) -> Mapping:
        items: dict[Any, Node] = {}
        keys: dict[Any, Place] = {}
        for key, value in node.items.items():
            place = node.keys[key]
            before = len(self.problems)
            new = self.text(key, place) if isinstance(key, str) and "$" in key else key
            if len(self.problems) > before:
                new = UNKNOWN
            elif new in items:
                self.problems.append(
                    at(place, f"duplicate key {new!r} once {key!r} is replaced; keep one of them")
                )
            items[new], keys[new] = self.node(value), place
        return replace(node, items=items, keys=keys)

    def text(self, text: str, place: Place) -> str:
        def value(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "${"
            found = self.use(match["name"], place)
            if found is None:
                return ""
            if not isinstance(found, Scalar):
                kind = "a list" if isinstance(found, Sequence) else "a mapping"
                self.problems.append(
                    at(place, f"variable {match['name']!r} is {kind}; it cannot stand inside text")
                )
                return ""
            return _written(found.value)

        return _USE.sub(value, text)

    def use(self, name: str, place: Place) -> Node | None:
        """The variable's value, or None for an unknown one, which is a problem."""
        self.used.add(name)
        if name not in self.variables:
            hint = (
                nearest(name, map(str, self.variables)) if self.variables else "; there is no vars: section"
            )
            self.problems.append(at(place, f"unknown variable {name!r}{hint}"))
            return None
        return self.variable(name, place)


def _written(value: Any) -> str:
    """A scalar as YAML writes it."""
    if value is UNKNOWN:
        return ""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
