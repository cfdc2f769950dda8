"""The `data:` section: keys that every source shares, and beside them those of the source that it names."""

import dataclasses
import os
import typing
from pathlib import Path
from typing import Any

from normcore.component import Component, Parameter
from normcore.config.components import PATH_NAMES, Reader, described, written
from normcore.config.values import BAD, is_text, show
from normcore.config.yaml_file import UNKNOWN, Mapping, Node, Scalar, plain

if typing.TYPE_CHECKING:
    from normcore.data.settings import DataSettings
    from normcore.data.source import DataSource


class DataKeys(Component, name="data"):
    """What is asked of the data, whatever its source; see normcore.data.settings.DataSettings."""

    @classmethod
    def parameters(cls) -> tuple[Parameter, ...]:
        """DataSettings' own, with the types of the components behind normalize and augment."""
        from normcore.data.augmentation import Augmentation
        from normcore.data.normalize import Normalizer
        from normcore.data.settings import DataSettings

        hints = typing.get_type_hints(DataSettings)
        hints |= {"normalize": Normalizer, "augment": tuple[Augmentation, ...]}
        found = []
        for field in dataclasses.fields(DataSettings):
            if field.name != "source":
                found.append(
                    Parameter(
                        field.name, hints[field.name], field.default, field.default is dataclasses.MISSING
                    )
                )
        return tuple(found)


def read(node: Node, reader: Reader, base: Path) -> tuple["DataSettings", "DataSource"] | None:
    """(settings, source) with absolute paths, or None after reporting. base: where paths from Python
    start."""
    from normcore.data.settings import DataSettings

    if not isinstance(node, Mapping):
        if plain(node) is not UNKNOWN:
            wrong = f"{{source: {plain(node)}}}" if is_text(node) else "{source: mnist_sample}"
            reader.fault(node.place, f"data: expected a mapping such as {wrong}, got {show(plain(node))}")
        return None
    source_node = node.get("source")
    known = reader.known("data source")
    source: type[Component] | None = None
    if source_node is None:
        reader.fault(node.place, f"data: source is missing; give it one of {', '.join(sorted(known))}")
    elif is_text(source_node):
        source = reader.find("data source", plain(source_node), source_node.place, known)
    elif plain(source_node) is not UNKNOWN:
        reader.fault(
            source_node.place, f"data.source: expected a source's name, got {show(plain(source_node))}"
        )
    shared = {p.name for p in DataKeys.parameters()} | {"source"}
    # Without a source nobody knows the keys that are its own, so only the shared ones are looked at.
    own = (
        [p.name for p in source.parameters() if p.name not in shared]
        if source
        else [k for k in node.items if k not in shared]
    )
    shared_part = _part(node, lambda key: key not in own and key != "source")
    settings = reader.parameters(DataKeys, shared_part, node.place, "data", own)
    if source is None or source_node is None:
        return None
    own_part = _absolute(_part(node, lambda key: key in own), base)
    made_source = reader.parameters(source, own_part, source_node.place, "data")
    origin = reader.build(source, *made_source, source_node.place, "data") if made_source else None
    if settings is None or origin is None:
        return None
    values, places = settings
    for key in ("normalize", "augment"):
        if key in values:
            values[key] = _spec(values[key])
    made = reader.build(DataSettings, {"source": source.name, **values}, places, node.place, "data")
    return None if made is None else (made, origin)


def resolved(settings: "DataSettings", source: "DataSource") -> dict[str, Any]:
    """The section with everything spelt out, for a run's config.yaml."""
    shared = {f.name: written(getattr(settings, f.name)) for f in dataclasses.fields(settings)}
    name = shared.pop("source")
    own = {key: written(value) for key, value in source.hyperparameters().items()}
    return {"source": name, **own, **shared}


def absolute(node: Node, base: Path) -> Node:
    """A path as an absolute one: from the file it stands in, from the current folder with --set, else
    from base."""
    if not is_text(node):
        return node
    assert isinstance(node, Scalar)
    origin = node.origin or node.place
    if origin.line:
        base = Path(origin.file).parent
    elif origin.file.startswith("--set"):
        base = Path()
    full = os.path.abspath(base / Path(node.value).expanduser())
    return Scalar(full, node.place, node.origin)


def _absolute(node: Mapping, base: Path) -> Mapping:
    items = {
        k: absolute(v, base) if k in PATH_NAMES or k.endswith("_path") else v for k, v in node.items.items()
    }
    return dataclasses.replace(node, items=items)


def _part(node: Mapping, wanted: typing.Callable[[Any], bool]) -> Mapping:
    keys = [key for key in node.items if wanted(key)]
    return Mapping({k: node.items[k] for k in keys}, {k: node.keys[k] for k in keys}, node.place)


def _spec(value: Any) -> Any:
    """Components as DataSettings takes them: {name: parameters}."""
    if isinstance(value, tuple):
        return tuple(map(_spec, value))
    return described(value) if isinstance(value, Component) and value is not BAD else value
