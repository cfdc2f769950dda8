"""YAML 1.2 text -> a tree of nodes, each with its place, and every fault of the text at once.

The tree is built from ruamel.yaml's parse events, not by its constructors: those stop at the first duplicate
key, turn an anchored `true` into an int, and forget where values stood. Scalars follow the core schema of
YAML 1.2.2 (section 10.3.2): 5e-4 is a number, `on` is text, null is written null or ~ or nothing.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from normcore.config.entries import Place
from normcore.errors import ConfigError, Problem

MAX_DEPTH = 100  # nesting: deeper is a mistake, and Python's own stack ends near 1000
MAX_NODES = 200_000  # after aliases are followed; a "billion laughs" file ends here

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITY = re.compile(r"([-+]?)\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")

_TAG = "tag:yaml.org,2002:"
_HINTS = (
    ("found character '\\t'", "a tab cannot indent in YAML; use spaces"),
    ("found character '@'", "text that starts with @ needs quotes"),
    ("found character '`'", "text that starts with ` needs quotes"),
    ("found character '%'", "text that starts with % needs quotes"),
    ("mapping values are not allowed here", "a second ':' on one line, or a line indented too far; "
     "text that holds ': ' needs quotes"),
    ("expected <block end>", "this line is indented differently from the lines it belongs to"),
    ("expected ',' or ']'", "a list [ ... ] is not closed, or a comma is missing"),
    ("expected ',' or '}'", "a mapping { ... } is not closed, or a comma is missing"),
    ("found unexpected end of stream", "a quote is not closed"),
    ("expected the node content, but found '<stream end>'", "a list or mapping is not closed"),
    ("could not find expected ':'", "a key needs ': ' and a value behind it"),
)  # fmt: skip


class _Unknown:
    """The value where a fault is already reported, so that nobody reports it again."""

    def __repr__(self) -> str:
        return "?"


UNKNOWN = _Unknown()


@dataclass(frozen=True, eq=False)
class Scalar:
    """A single value: text, number, bool or None. origin: where substituted text came from, else its
    place."""

    value: Any
    place: Place
    origin: Place | None = None


@dataclass(frozen=True, eq=False)
class Sequence:
    items: tuple["Node", ...]
    place: Place


@dataclass(frozen=True, eq=False)
class Mapping:
    """Keys in document order; keys: where each key stands."""

    items: dict[Any, "Node"]
    keys: dict[Any, Place]
    place: Place

    def get(self, key: Any) -> "Node | None":
        return self.items.get(key)


Node = Scalar | Sequence | Mapping


def plain(node: Node) -> Any:
    """The node as Python values: dict, list, str, int, float, bool, None."""
    if isinstance(node, Mapping):
        return {key: plain(value) for key, value in node.items.items()}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def from_plain(value: Any, place: Place) -> Node:
    """Python values as a tree; every place is `place` with the path to the value behind it."""
    if isinstance(value, dict):
        places = {key: replace(place, file=f"{place.file}.{key}".lstrip(".")) for key in value}
        return Mapping({k: from_plain(v, places[k]) for k, v in value.items()}, places, place)
    if isinstance(value, (list, tuple)):
        items = (from_plain(v, replace(place, file=f"{place.file}.{i}")) for i, v in enumerate(value))
        return Sequence(tuple(items), place)
    return Scalar(str(value) if isinstance(value, Path) else value, place)


def at(place: Place, message: str) -> Problem:
    return Problem(message, place.file, place.line, place.column)


def read_file(path: str | Path, problems: list[Problem]) -> Node | None:
    """The tree of a file. Faults of the text go to `problems`; None where nothing can be read."""
    name = str(path)
    try:
        raw = Path(path).read_bytes()
    except FileNotFoundError:
        raise ConfigError(
            [Problem("there is no such file; give the path of a network in YAML", name)]
        ) from None
    except OSError as fault:
        reason = (
            "is a folder; expected a YAML file"
            if Path(path).is_dir()
            else f"cannot be read: {fault.strerror}"
        )
        raise ConfigError([Problem(reason, name)]) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        before = raw[: fault.start]
        line = before.count(b"\n") + 1
        column = len(before.rsplit(b"\n", 1)[-1]) + 1
        problems.append(
            Problem(f"byte {raw[fault.start]:#04x} is not UTF-8; save the file as UTF-8", name, line, column)
        )
        return None
    return read_text(text, name, problems)


def read_text(text: str, name: str, problems: list[Problem], positions: bool = True) -> Node | None:
    """The tree of a YAML text; `name` stands for it in messages. positions=False: text of the command
    line."""
    composer = _Composer(name, problems, positions)
    try:
        return composer.document(YAML(typ="safe", pure=True).parse(text))
    except MarkedYAMLError as fault:
        problems.append(composer.syntax_problem(fault))
    except ReaderError as fault:
        before = text[: fault.position]
        line, column = before.count("\n") + 1, len(before.rsplit("\n", 1)[-1]) + 1
        code = fault.character if isinstance(fault.character, int) else ord(str(fault.character)[0])
        problems.append(
            composer.problem(f"YAML allows no control character U+{code:04X}; remove it", line, column)
        )
    except YAMLError as fault:
        problems.append(Problem(f"cannot be read as YAML: {fault}", name))
    return None


class _Stop(Exception):
    """A fault after which the rest of the text means nothing."""


class _Composer:
    def __init__(self, name: str, problems: list[Problem], positions: bool):
        self.name, self.problems, self.positions = name, problems, positions
        self.anchors: dict[str, Node | None] = {}  # None while the anchored node is still open
        self.sizes: dict[int, int] = {}

    def place(self, mark: Any) -> Place:
        return Place(self.name, mark.line + 1, mark.column + 1) if self.positions else Place(self.name)

    def problem(self, message: str, line: int, column: int) -> Problem:
        return Problem(message, self.name, line, column) if self.positions else Problem(message, self.name)

    def syntax_problem(self, fault: MarkedYAMLError) -> Problem:
        said = fault.problem or str(fault)
        hint = next((hint for start, hint in _HINTS if said.startswith(start)), "")
        message = f"this is not YAML: {said}" + (f" ({hint})" if hint else "")
        mark = fault.problem_mark or fault.context_mark
        started = fault.context_mark
        if self.positions and started is not None and mark is not None and started.line != mark.line:
            message += f"; it began in line {started.line + 1}"
        return self.problem(message, mark.line + 1, mark.column + 1) if mark else Problem(message, self.name)

    def document(self, events: Iterator[Any]) -> Node | None:
        root: Node | None = None
        documents = 0
        try:
            for event in events:
                if isinstance(event, DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self.problems.append(
                            at(
                                self.place(event.start_mark),
                                "a second document starts here; expected one a file",
                            )
                        )
                        return root
                elif isinstance(event, (ScalarEvent, SequenceStartEvent, MappingStartEvent, AliasEvent)):
                    root = self.node(event, events, 0)
        except _Stop:
            return None
        return root

    def node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        place = self.place(event.start_mark)
        if isinstance(event, AliasEvent):
            return self.alias(event, place)
        if depth > MAX_DEPTH:
            self.fault(place, f"nested more than {MAX_DEPTH} levels deep; a network file needs a few")
            raise _Stop
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        node: Node
        if isinstance(event, ScalarEvent):
            node = Scalar(self.scalar(event, place), place)
        elif isinstance(event, SequenceStartEvent):
            node = self.sequence(event, events, place, depth)
        else:
            node = self.mapping(event, events, place, depth)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def fault(self, place: Place, message: str) -> None:
        self.problems.append(at(place, message))

    def alias(self, event: Any, place: Place) -> Node:
        found = self.anchors.get(event.anchor)
        if found is None:
            inside = event.anchor in self.anchors
            why = (
                "stands inside the value that it repeats"
                if inside
                else "repeats nothing; name it first with & there"
            )
            self.fault(place, f"*{event.anchor} {why}")
            return Scalar(UNKNOWN, place)
        return found

    def scalar(self, event: Any, place: Place) -> Any:
        text = event.value
        plain_implicit, quoted_implicit = event.implicit
        if plain_implicit:
            return resolve(text)
        tag = str(event.tag or "")
        if quoted_implicit or tag in ("!", _TAG + "str"):
            return text
        value = resolve(text)
        wanted: Any = {"int": int, "float": (int, float), "bool": bool, "null": type(None)}.get(
            tag.removeprefix(_TAG)
        )
        if wanted is None:
            self.fault(place, f"the tag {tag.replace(_TAG, '!!')} has no meaning here; remove it")
            return UNKNOWN
        elif not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            self.fault(place, f"{text!r} is no {tag.replace(_TAG, '!!')}")
            return UNKNOWN
        return float(value) if tag == _TAG + "float" and type(value) is int else value

    def sequence(self, event: Any, events: Iterator[Any], place: Place, depth: int) -> Node:
        self.collection_tag(event, place, "seq")
        items = []
        for inner in events:
            if isinstance(inner, SequenceEndEvent):
                break
            items.append(self.node(inner, events, depth + 1))
        return self.sized(Sequence(tuple(items), place), items)

    def mapping(self, event: Any, events: Iterator[Any], place: Place, depth: int) -> Node:
        self.collection_tag(event, place, "map")
        items: dict[Any, Node] = {}
        keys: dict[Any, Place] = {}
        merged: list[tuple[Place, Node]] = []
        for inner in events:
            if isinstance(inner, MappingEndEvent):
                break
            key_node = self.node(inner, events, depth + 1)
            key_place = self.place(inner.start_mark)
            value = self.node(next(events), events, depth + 1)
            key = key_node.value if isinstance(key_node, Scalar) else None
            if key is None or isinstance(key, bool) or (isinstance(key, float) and math.isnan(key)):
                self.fault(key_place, "a key must be text")
            elif key == "<<" and isinstance(inner, ScalarEvent) and inner.implicit[0]:
                merged.append((key_place, value))
            elif key in items:
                first = keys[key]
                where = f"; it stands in line {first.line} already" if first.line else ""
                self.fault(key_place, f"duplicate key {key!r}{where}; keep one of them")
            else:
                items[key], keys[key] = value, key_place
        for key_place, value in merged:
            self.merge(key_place, value, items, keys)
        return self.sized(Mapping(items, keys, place), list(items.values()))

    def merge(self, place: Place, value: Node, items: dict[Any, Node], keys: dict[Any, Place]) -> None:
        """`<<: *defaults`: keys of the named mapping that are not written here."""
        for source in value.items if isinstance(value, Sequence) else (value,):
            if not isinstance(source, Mapping):
                self.fault(
                    place, "<< takes over the keys of a mapping; write <<: *name of an anchored mapping"
                )
                continue
            for key, node in source.items.items():
                if key not in items:
                    items[key], keys[key] = node, source.keys[key]

    def collection_tag(self, event: Any, place: Place, usual: str) -> None:
        tag = "" if event.implicit else str(event.tag or "")
        if tag not in ("", "!", _TAG + usual):
            self.fault(place, f"the tag {tag.replace(_TAG, '!!')} has no meaning here; remove it")

    def sized(self, node: Sequence | Mapping, children: list[Node]) -> Node:
        size = 1 + sum(self.sizes.get(id(child), 1) for child in children)
        self.sizes[id(node)] = size
        if size > MAX_NODES:
            self.fault(
                node.place, f"more than {MAX_NODES:,} values once aliases are followed; expected a network"
            )
            raise _Stop
        return node


def resolve(text: str) -> Any:
    """The value of a plain scalar by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _INT.fullmatch(text) and len(text) < 1000:
        return int(text)
    if _OCTAL.fullmatch(text) or _HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if found := _INFINITY.fullmatch(text):
        return -math.inf if found[1] == "-" else math.inf
    if _NAN.fullmatch(text):
        return math.nan
    return text
