"""The JSON Schema (draft 2020-12) of a network's file, from everything that is installed.

Editors complete and check from it: `normcore schema > normcore.schema.json`, then in the YAML file
    # yaml-language-server: $schema=normcore.schema.json
It knows types and names; what only check() and the shapes can tell, `normcore lint` says.
"""

import inspect
from typing import Any

from normcore.component import Component, Parameter
from normcore.config.components import INIT, Reader, nested, written
from normcore.config.data_section import DataKeys
from normcore.config.layers import NAME
from normcore.config.reading import KEYS
from normcore.config.sections import BLOCKS, StartFrom
from normcore.config.train_settings import TrainSettings
from normcore.config.values import adapter
from normcore.registry import Registry, default

Schema = dict[str, Any]
# `${act}` may stand for any value.
VARIABLE: Schema = {"type": "string", "pattern": r"\$\{[^{}]*\}"}
_DOCUMENTED = {
    "name": "the network's name; its runs go to runs/NAME-N",
    "seed": "of everything random",
    "vars": "values that ${name} stands for; --set vars.name=value changes them",
    "plugins": "Python files with plugins; they run only with --allow-plugins",
    "data": "where samples come from and how batches are made of them",
    "input": "one sample's shape, channels first, for a network without data",
    "network": "the layers, in order",
    "loss": "what training makes small",
    "optimizer": "how parameters move",
    "schedule": "how the learning rate changes; every schedule takes warmup_epochs",
    "train": "how long and under which limits it trains",
    "start_from": "weights of another run to start from",
}


def schema(registry: Registry | None = None) -> Schema:
    """The schema as plain values, ready for json.dumps."""
    return _Writer(registry or default()).file()


class _Writer:
    def __init__(self, registry: Registry):
        self.reader = Reader(registry, [])
        self.definitions: dict[str, Schema] = {}

    def file(self) -> Schema:
        self.definitions["variable"] = VARIABLE
        self.definitions["layers"] = {"type": "array", "items": {"$ref": "#/$defs/layer"}}
        self.definitions["layer"] = self.layer()
        properties: dict[str, Schema] = {
            "name": {"type": ["string", "null"]},
            "seed": {"type": "integer", "minimum": 0, "default": 0},
            "vars": {"type": ["object", "null"]},
            "plugins": _either(
                {"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "null"}
            ),
            "data": _either(self.data(), {"type": "null"}),
            "input": {"type": ["array", "null"], "items": {"type": "integer", "minimum": 1}, "minItems": 1},
            "network": {"$ref": "#/$defs/layers", "minItems": 1},
            **{
                kind: _either(self.choice(kind), {"type": "null"})
                for kind in ("loss", "optimizer", "schedule")
            },
            "train": _either(self.parameters(TrainSettings), {"type": "null"}),
            "start_from": _either(self.parameters(StartFrom), {"type": "null"}),
        }
        described = {key: {**properties[key], "description": _DOCUMENTED[key]} for key in KEYS}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "A network for normcore",
            "type": "object",
            "properties": described,
            "required": ["network"],
            "additionalProperties": False,
            "$defs": {key: self.definitions[key] for key in sorted(self.definitions)},
        }

    def layer(self) -> Schema:
        """An op's name, or a mapping of one op or block, with name and inputs beside it."""
        known = {**self.reader.known("op"), **BLOCKS}
        siblings: dict[str, Schema] = {
            "name": {
                "type": ["string", "null"],
                "pattern": f"^{NAME.pattern}$|\\$\\{{",
                "description": "the layer's name",
            },
            "inputs": {
                **_either({"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}),
                "description": "layers that replace the one before it as input; `input` is the net's",
            },
        }
        mapping = {
            "type": "object",
            "properties": {**{name: self.reference(op) for name, op in sorted(known.items())}, **siblings},
            "patternProperties": {VARIABLE["pattern"]: True},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 3,
        }
        return _either(*self.bare(known), mapping, {"$ref": "#/$defs/variable"})

    def choice(self, kind: str) -> Schema:
        """A component of a kind: its name, or {name: parameters}."""
        key = kind.replace(" ", "_")
        if key not in self.definitions:
            known = self.reader.known(kind)
            mapping = {
                "type": "object",
                "properties": {name: self.reference(component) for name, component in sorted(known.items())},
                "patternProperties": {VARIABLE["pattern"]: True},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 1,
            }
            self.definitions[key] = _either(*self.bare(known), mapping, {"$ref": "#/$defs/variable"})
        return {"$ref": f"#/$defs/{key}"}

    def bare(self, known: Any) -> list[Schema]:
        """Names that stand alone: components that need no parameter."""
        return [
            {"const": name, "description": _doc(component)}
            for name, component in sorted(known.items())
            if not any(p.required for p in component.parameters())
        ]

    def reference(self, component: type[Component]) -> Schema:
        """What stands behind a component's name."""
        key = f"{component.kind}.{component.name}".replace(" ", "_")
        if key not in self.definitions:
            self.definitions[
                key
            ] = {}  # held while its own parameters are written: kinds may contain each other
            declared = component.parameters()
            forms = [self.parameters(component)]
            if not any(p.required for p in declared):
                forms.append({"type": "null"})
            if declared and not any(p.required for p in declared[1:]):
                forms.append(self.value(declared[0], component))
            self.definitions[key] = {**_either(*forms), "description": _doc(component)}
        return {"$ref": f"#/$defs/{key}"}

    def parameters(self, component: type[Component], more: dict[str, Schema] | None = None) -> Schema:
        """A mapping of the component's parameters."""
        declared = component.parameters()
        properties: dict[str, Schema] = {}
        for parameter in declared:
            properties[parameter.name] = _either(
                self.value(parameter, component), {"$ref": "#/$defs/variable"}
            )
            if not parameter.required:
                properties[parameter.name]["default"] = written(parameter.default)
        for array in getattr(component, "learnable", ()):
            properties.setdefault(array + INIT, self.choice("initializer"))
        return {
            "type": "object",
            "properties": {**properties, **(more or {})},
            "required": [p.name for p in declared if p.required],
            "additionalProperties": False,
        }

    def value(self, parameter: Parameter, component: type[Component]) -> Schema:
        if component.kind == "block" and parameter.annotation is Any:
            layers: Schema = {"$ref": "#/$defs/layers"}
            return {"type": "array", "items": layers, "minItems": 1} if parameter.name == "paths" else layers
        kind, many = nested(parameter.annotation)
        if kind:
            return {"type": "array", "items": self.choice(kind)} if many else self.choice(kind)
        found = adapter(parameter.annotation).json_schema()
        for name, definition in found.pop("$defs", {}).items():
            self.definitions[name] = definition
        return found

    def data(self) -> Schema:
        """One form for each source: the shared keys and its own."""
        shared = self.parameters(DataKeys)["properties"]
        forms = []
        for name, source in sorted(self.reader.known("data source").items()):
            form = self.parameters(source, shared)
            form["properties"] = {
                "source": {"const": name, "description": _doc(source)},
                **form["properties"],
            }
            form["required"] = ["source", *form["required"]]
            forms.append(form)
        return _either(*forms)


def _either(*forms: Schema) -> Schema:
    flat: list[Schema] = []
    for form in forms:
        flat += form["anyOf"] if set(form) == {"anyOf"} else [form]
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


def _doc(component: type[Component]) -> str:
    return inspect.cleandoc(component.__doc__ or "")
