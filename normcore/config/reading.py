"""The sections of a configuration, from the tree of its file to checked values."""

import re
from pathlib import Path
from typing import Any

from normcore.component import Component
from normcore.config import data_section
from normcore.config.components import Choice, Reader, written
from normcore.config.layers import LayerReader
from normcore.config.sections import StartFrom
from normcore.config.train_settings import TrainSettings
from normcore.config.values import BAD, checked, is_text, show
from normcore.config.variables import SECTION
from normcore.config.yaml_file import UNKNOWN, Mapping, Node, Scalar, Sequence, at, plain
from normcore.errors import PluginError, Problem, nearest
from normcore.registry import Registry

KEYS = (
    "name",
    "seed",
    "vars",
    "plugins",
    "data",
    "input",
    "network",
    "loss",
    "optimizer",
    "schedule",
    "train",
    "start_from",
)
# What a file without these sections means.
DEFAULTS: dict[str, tuple[str, dict[str, Any]]] = {
    "loss": ("cross_entropy", {}),
    "optimizer": ("sgd", {"lr": 0.1, "momentum": 0.9}),
    "schedule": ("constant", {}),
}
_FOLDER_NAME = re.compile(r"[^/\\:*?\"<>|\x00-\x1f]+")


class SectionReader:
    """Reads the sections of a tree whose variables are replaced; every fault goes to `problems`."""

    def __init__(self, tree: Mapping, registry: Registry, problems: list[Problem], base: Path):
        self.tree, self.problems, self.base = tree, problems, base
        self.reader = Reader(registry, problems)

    def plugins(self, allowed: bool) -> tuple[str, ...]:
        """Load the plugin files that the configuration names; before anything is looked up."""
        node = self.tree.get("plugins")
        if node is None or (isinstance(node, Scalar) and node.value is None):
            return ()
        if checked(str | tuple[str, ...], node, "plugins", self.problems) is BAD:
            return ()
        files = []
        for item in node.items if isinstance(node, Sequence) else (node,):
            file = data_section.absolute(item, self.base)
            assert isinstance(file, Scalar)
            files.append(file.value)
            if not allowed:
                self.reader.fault(
                    item.place,
                    f"plugins: {plain(item)} would run code; if you trust it, give --allow-plugins",
                )
                continue
            try:
                self.reader.registry.load_file(file.value)
            except PluginError as fault:
                self.reader.fault(item.place, str(fault))
        return tuple(files)

    def config(self, file: str, plugins: tuple[str, ...]) -> dict[str, Any]:
        """The fields of Config, complete only where nothing went to `problems`."""
        tree = self.tree
        for key in tree.items:
            if key not in KEYS and key is not UNKNOWN:
                self.reader.fault(tree.keys[key], f"unknown key {str(key)!r}{nearest(str(key), KEYS)}")
        fields: dict[str, Any] = {"name": self.name(file), "seed": self.seed(), "input": self.input()}
        data_node = tree.get("data")
        if data_node is not None and _empty(data_node):
            data_node = None
        data = data_section.read(data_node, self.reader, self.base) if data_node is not None else None
        if data_node is None and _empty(tree.get("input")):
            message = (
                "says neither `data:` nor `input:`; give the data, or a sample's shape (input: [1, 28, 28])"
            )
            self.reader.fault(tree.place, message)
        if "network" in tree.items:
            fields["network"] = LayerReader(self.reader).network(tree.items["network"])
        else:
            self.reader.fault(tree.place, "network is missing; give it a list of layers")
        for key in DEFAULTS:
            fields[key] = self.component(key)
        fields["train"] = self.section("train", TrainSettings) or TrainSettings()
        fields["start_from"] = self.section("start_from", StartFrom)
        if self.problems:
            return fields
        fields["vars"] = plain(tree.items[SECTION]) or {} if SECTION in tree.items else {}
        fields["plugins"] = plugins
        fields["data"], fields["source"] = data or (None, None)
        return {**fields, "resolved": self.resolved(fields)}

    def resolved(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The configuration as plain values, sections spelt out, empty ones left out."""
        given = {
            "name": fields["name"],
            "seed": fields["seed"],
            "vars": fields["vars"],
            "plugins": list(fields["plugins"]),
            "data": data_section.resolved(fields["data"], fields["source"]) if fields["data"] else None,
            "input": written(fields["input"]),
            "network": plain(self.tree.items["network"]),
            **{key: written(fields[key]) for key in DEFAULTS},
            "train": written(fields["train"].hyperparameters()),
            "start_from": written(fields["start_from"].hyperparameters()) if fields["start_from"] else None,
        }
        return {key: value for key, value in given.items() if value not in (None, {}, [])}

    def name(self, file: str) -> Any:
        value = self.value("name", str | None)
        if value is None:
            value = Path(file).stem if file else "network"
        if isinstance(value, str) and (not _FOLDER_NAME.fullmatch(value) or value.strip(". ") != value):
            message = f"name: expected text that can name a folder, got {value!r}"
            node = self.tree.get("name")
            self.problems.append(at(node.place, message) if node else Problem(message, file))
        return value

    def seed(self) -> Any:
        value = self.value("seed", int)
        if isinstance(value, int) and not 0 <= value < 2**63:
            place = self.tree.items["seed"].place
            self.reader.fault(place, f"seed: expected a whole number from 0 to 2^63 - 1, got {value}")
        return 0 if value is None else value

    def input(self) -> Any:
        value = self.value("input", tuple[int, ...] | None)
        if isinstance(value, tuple) and not (value and all(size > 0 for size in value)):
            place, came = self.tree.items["input"].place, show(list(value))
            self.reader.fault(place, f"input: expected one sample's shape, such as [1, 28, 28], got {came}")
        return value

    def value(self, key: str, annotation: Any) -> Any:
        """The checked value of a top-level key, None where it is absent."""
        node = self.tree.get(key)
        return None if node is None else checked(annotation, node, key, self.problems)

    def component(self, kind: str) -> Any:
        """The loss, optimizer or schedule; the default where the section is absent."""
        node = self.tree.get(kind)
        if node is not None and not _empty(node):
            return self.reader.component(kind, node, kind)
        name, values = DEFAULTS[kind]
        known = self.reader.known(kind)
        if name not in known:
            return None
        own = {p.name for p in known[name].parameters()}
        return known[name].make(**{key: value for key, value in values.items() if key in own})

    def section(self, key: str, component: type[Component]) -> Any:
        node = self.tree.get(key)
        if node is None or _empty(node):
            return None
        if not isinstance(node, Mapping):
            if plain(node) is not UNKNOWN:
                first = component.parameters()[0].name
                self.reader.fault(
                    node.place, f"{key}: expected a mapping such as {{{first}: ...}}, got {show(plain(node))}"
                )
            return None
        if component is StartFrom and is_text(node.get("run")):
            node = Mapping(
                {**node.items, "run": data_section.absolute(node.items["run"], self.base)},
                node.keys,
                node.place,
            )
        return self.reader.make(Choice(component, node, self.tree.keys[key]), key)


def _empty(node: Node | None) -> bool:
    return node is None or (isinstance(node, Scalar) and node.value is None)
