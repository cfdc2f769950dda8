"""Components from a configuration: a bare name, a name with a bare value, or a name with a mapping of
parameters.

relu                    the defaults
dense: 10               the first parameter
conv: {out_channels: 8, kernel_size: 3, weight_init: he_normal}
"""

import typing
from collections.abc import Mapping as MappingType
from dataclasses import dataclass
from typing import Any

from normcore.component import Component, Parameter
from normcore.config.entries import Place
from normcore.config.values import BAD, checked, describe, show
from normcore.config.yaml_file import UNKNOWN, Mapping, Node, Scalar, Sequence, at, plain
from normcore.errors import NormcoreError, ParameterError, Problem, listing_of, nearest
from normcore.op import Op
from normcore.registry import Registry

INIT = "_init"
PATH_NAMES = ("path", "run", "folder", "file")


@dataclass(frozen=True)
class Choice:
    """A component named in a configuration: its class, the node of its parameters, and where its name
    stands."""

    component: type[Component]
    node: Node
    place: Place


class Reader:
    """Reads components; every fault goes to `problems`, and a faulty component is None."""

    def __init__(self, registry: Registry, problems: list[Problem]):
        self.registry, self.problems = registry, problems
        self.said_aside = False

    def fault(self, place: Place, message: str) -> None:
        self.problems.append(at(place, message))

    # -- which component ---------------------------------------------------------------------------------

    def known(self, kind: str) -> MappingType[str, type[Component]]:
        """The components of a kind by name and alias."""
        if kind in ("augmentation", "normalization"):
            return _data_parts(kind)
        return {name: self.registry.get(kind, name).component for name in self.registry.names(kind)}

    def choice(self, kind: str, node: Node, label: str) -> Choice | None:
        """What a node names: `name` or `{name: parameters}`."""
        parameters: Node
        if isinstance(node, Scalar) and isinstance(node.value, str):
            name, parameters, place = node.value, Scalar(None, node.place), node.place
        elif isinstance(node, Mapping) and len(node.items) == 1:
            ((name, parameters),) = node.items.items()
            place = node.keys[name]
        else:
            if plain(node) is not UNKNOWN:
                came = (
                    "several: " + " and ".join(map(str, node.items))
                    if isinstance(node, Mapping) and node.items
                    else show(plain(node))
                )
                self.fault(
                    node.place, f"{label}: expected one {kind}, a name or {{name: parameters}}, got {came}"
                )
            return None
        found = self.find(kind, name, place, self.known(kind))
        return Choice(found, parameters, place) if found else None

    def find(
        self, kind: str, name: Any, place: Place, known: MappingType[str, type[Component]]
    ) -> type[Component] | None:
        if name in known:
            return known[name]
        if name is not UNKNOWN:
            hint = nearest(str(name), known, listing_of(kind))
            self.fault(place, f"unknown {kind} {str(name)!r}{hint}{self._set_aside()}")
        return None

    def _set_aside(self) -> str:
        """Which plugins could not be loaded, which may be why a name is unknown; said once a file."""
        broken = [plugin.name for plugin in self.registry.plugins if plugin.error]
        if not broken or self.said_aside:
            return ""
        self.said_aside = True
        return f" (set aside: plugin {', '.join(broken)}; see `normcore plugins list`)"

    def component(self, kind: str, node: Node, label: str) -> Any:
        """The component a node describes, or None after reporting why not."""
        choice = self.choice(kind, node, label)
        return self.make(choice) if choice else None

    # -- its parameters ----------------------------------------------------------------------------------

    def make(self, choice: Choice, label: str = "") -> Any:
        """The component with its parameters, or None."""
        label = label or choice.component.name
        found = self.parameters(choice.component, choice.node, choice.place, label)
        return None if found is None else self.build(choice.component, *found, choice.place, label)

    def parameters(
        self,
        component: type[Component],
        node: Node,
        place: Place,
        label: str,
        also: typing.Collection[str] = (),
    ) -> tuple[dict[str, Any], dict[str, Place]] | None:
        """(values, where they stand), or None. `also`: keys that somebody else reads."""
        declared = {p.name: p for p in component.parameters()}
        given = self.given(component, declared, node, label)
        if given is None:
            return None
        before = len(self.problems)
        values, places = {}, {}
        for key, (value_node, key_place) in given.items():
            if key in declared:
                places[key] = value_node.place
                values[key] = self.value(declared[key], value_node, f"{label}.{key}")
            elif key not in also and key is not UNKNOWN:
                self.unknown_key(component, key, key_place, label, [*declared, *also])
        for parameter in declared.values():
            if parameter.required and parameter.name not in given:
                self.fault(place, f"{label}: {parameter.name} is missing; give it {_wanted(parameter)}")
        good = {key: value for key, value in values.items() if value is not BAD}
        if len(self.problems) == before and len(good) == len(values):
            return values, places
        if all(p.name in good for p in declared.values() if p.required):
            self.attempt(component, good, places, label=label)  # what check() has to say about the others
        return None

    def given(
        self, component: type[Component], declared: dict[str, Parameter], node: Node, label: str
    ) -> dict[Any, tuple[Node, Place]] | None:
        """Parameter -> its node and place, with a bare value under the first parameter's name."""
        if isinstance(node, Mapping):
            return {key: (value, node.keys[key]) for key, value in node.items.items()}
        if isinstance(node, Scalar) and node.value is None:
            return {}
        if isinstance(node, Scalar) and node.value is UNKNOWN:
            return None
        if not declared:
            self.fault(node.place, f"{label} takes no parameters, got {show(plain(node))}; write it alone")
            return None
        return {next(iter(declared)): (node, node.place)}

    def unknown_key(
        self, component: type[Component], key: Any, place: Place, label: str, known: list[str]
    ) -> None:
        if issubclass(component, Op) and key in ("name", "inputs"):
            self.fault(place, f"{label}: {key!r} stands beside {label}, not in it; move it one level out")
            return
        noun = "key" if component.kind in ("section", "component") else "parameter"
        hint = nearest(str(key), known) if known else "; it takes none"
        self.fault(place, f"{label} has no {noun} {str(key)!r}{hint}")

    def value(self, parameter: Parameter, node: Node, label: str) -> Any:
        kind, many = nested(parameter.annotation)
        if not kind:
            value = checked(parameter.annotation, node, label, self.problems)
            return value
        if isinstance(node, Scalar) and node.value is None and (many or parameter.default is None):
            return () if many else None
        if not many:
            return self.component(kind, node, label) or BAD
        if not isinstance(node, Sequence):
            self.fault(
                node.place,
                f"{label}: expected a list such as [{{name: parameters}}], got {show(plain(node))}",
            )
            return BAD
        found = [self.component(kind, item, label) for item in node.items]
        return BAD if None in found else tuple(found)

    def build(
        self, component: Any, values: dict[str, Any], places: dict[str, Place], place: Place, label: str
    ) -> Any:
        """The component itself; what its check() finds is reported at the parameter."""
        before = len(self.problems)
        made = self.attempt(component, values, places, place, label=label)
        return made if len(self.problems) == before else None

    def attempt(
        self,
        component: Any,
        values: dict[str, Any],
        places: dict[str, Place],
        place: Place | None = None,
        *,
        label: str,
    ) -> Any:
        """Construct it; after a complaint about one parameter again without it, so that all are heard.

        Without a place, some values are missing: only complaints about given ones count.
        """
        values = dict(values)
        while True:
            try:
                return component(**values)
            except ParameterError as fault:
                where = places.get(fault.name, place) if fault.name in values or place else None
                if where is None:
                    return None
                came = show(list(fault.got) if isinstance(fault.got, tuple) else fault.got)
                self.fault(where, f"{label}.{fault.name}: expected {fault.expected}, got {came}")
                if values.pop(fault.name, None) is None:
                    return None
                place = None  # what is said of the default in its place would mislead
            except TypeError:
                if place is None or len(values) < len(places):  # one that it cannot do without was wrong
                    return None
                raise
            except (NormcoreError, ValueError) as fault:
                if place is not None:
                    self.fault(place, f"{label}: {fault}")
                return None

    def op(self, choice: Choice) -> tuple[Any, dict[str, Any]]:
        """(op or None, its initializers by array)."""
        component, node = choice.component, choice.node
        learnable = {f"{name}{INIT}": name for name in getattr(component, "learnable", ())}
        own = {p.name for p in component.parameters()}
        learnable = {key: name for key, name in learnable.items() if key not in own}
        inits = {}
        if isinstance(node, Mapping):
            for key, name in learnable.items():
                if key in node.items:
                    inits[name] = self.component("initializer", node.items[key], f"{component.name}.{key}")
        found = self.parameters(component, node, choice.place, component.name, learnable)
        made = None if found is None else self.build(component, *found, choice.place, component.name)
        return made, {name: init for name, init in inits.items() if init is not None}


def nested(annotation: Any) -> tuple[str, bool]:
    """(kind, several?) of a parameter that holds components, ("", False) for any other."""
    arguments = typing.get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Component):
        return annotation.kind, False
    if typing.get_origin(annotation) in (tuple, list) and arguments:
        kind, _ = nested(arguments[0])
        return kind, bool(kind)
    for argument in arguments:
        kind, many = nested(argument)
        if kind:
            return kind, many
    return "", False


def described(component: Component) -> Any:
    """A component as the configuration would write it, with every parameter spelt out."""
    values = {key: written(value) for key, value in component.hyperparameters().items()}
    return {component.name: values} if values else component.name


def written(value: Any) -> Any:
    """A parameter's value as plain YAML values."""
    if isinstance(value, Component):
        return described(value)
    if isinstance(value, (list, tuple)):
        return [written(item) for item in value]
    if isinstance(value, MappingType):
        return {key: written(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _wanted(parameter: Parameter) -> str:
    kind, many = nested(parameter.annotation)
    if parameter.annotation is Any:
        return "a list of layers"
    return f"{'a list of' if many else 'a'} {kind}" if kind else describe(parameter.annotation)


def _data_parts(kind: str) -> MappingType[str, type[Component]]:
    """What stands inside `data:` and comes with the core, not from plugins."""
    if kind == "augmentation":
        from normcore.data.augment import AUGMENTATIONS

        return AUGMENTATIONS
    from normcore.data.normalize import NORMALIZERS

    return NORMALIZERS
