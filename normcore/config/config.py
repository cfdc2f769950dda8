"""A network's configuration, read, changed by overrides, checked as a whole, and resolved.

    config = load("lenet.yaml", overrides=["train.epochs=3"])

Everything wrong with a file is one ConfigError that lists each fault with its place. What comes out is made
of the registry's own descriptions (ops, loss, optimizer ...), so nothing after this looks anything up by
name.
"""

from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from normcore.config import overrides as override_syntax
from normcore.config.dump import dump, flow
from normcore.config.entries import Entry, Place
from normcore.config.reading import SectionReader
from normcore.config.sections import StartFrom
from normcore.config.train_settings import TrainSettings
from normcore.config.values import show
from normcore.config.variables import substitute
from normcore.config.yaml_file import (
    UNKNOWN,
    Mapping,
    Node,
    Scalar,
    at,
    from_plain,
    plain,
    read_file,
)
from normcore.errors import ConfigError, Problem
from normcore.registry import Registry, default

if TYPE_CHECKING:
    from normcore.data.settings import DataSettings
    from normcore.data.source import DataSource

__all__ = ["Config", "differences", "dump", "from_mapping", "load"]


@dataclass(frozen=True)
class Config:
    """One configuration, checked. Without a `data:` section, data and source are None and input is given.

    input: one sample's shape, channels first. loss, optimizer, schedule are None only where the registry
    has none of the default's name. path: the file it came from, None from Python. resolved: the whole of
    it as plain values (variables replaced, paths absolute, sections spelt out), as a run's config.yaml
    keeps it. base: where relative paths start.
    """

    name: str
    network: tuple[Entry, ...]
    seed: int = 0
    data: "DataSettings | None" = None
    source: "DataSource | None" = None
    input: tuple[int, ...] | None = None
    loss: Any = None
    optimizer: Any = None
    schedule: Any = None
    train: TrainSettings = field(default_factory=TrainSettings)
    start_from: StartFrom | None = None
    vars: MappingType[str, Any] = field(default_factory=dict)
    plugins: tuple[str, ...] = ()
    path: Path | None = None
    base: Path = field(default_factory=Path.cwd)
    resolved: MappingType[str, Any] = field(default_factory=dict)


def load(
    path: str | Path,
    overrides: Iterable[str] = (),
    registry: Registry | None = None,
    plugin_files: Iterable[str | Path] = (),
    allow_plugins: bool = False,
) -> Config:
    """The configuration in a YAML file. Raises ConfigError with all its faults, PluginError for a plugin
    file.

    overrides: "key.path=value" as --set takes them. plugin_files are loaded first; those that the file
    names in `plugins:` only with allow_plugins, since they run code.
    """
    problems: list[Problem] = []
    root = read_file(path, problems)
    base = Path(path).absolute().parent
    return _read(
        root, str(path), overrides, registry, plugin_files, allow_plugins, problems, Path(path), base
    )


def from_mapping(
    values: MappingType[str, Any],
    overrides: Iterable[str] = (),
    registry: Registry | None = None,
    plugin_files: Iterable[str | Path] = (),
    allow_plugins: bool = False,
    base: str | Path | None = None,
) -> Config:
    """The same from Python values shaped like the YAML. base: where relative paths start (the current
    folder)."""
    base = Path.cwd() if base is None else Path(base).absolute()
    root = from_plain(dict(values), Place())
    return _read(root, "", overrides, registry, plugin_files, allow_plugins, [], None, base)


def differences(before: MappingType[str, Any], after: MappingType[str, Any]) -> list[str]:
    """One line for each value that two resolved configurations do not share: "train.epochs: 10, now 20"."""
    old, new = dict(_flat(before, "")), dict(_flat(after, ""))
    lines = []
    for key in dict.fromkeys([*old, *new]):
        if key not in old or key not in new or old[key] != new[key]:
            was = flow(old[key]) if key in old else "absent"
            lines.append(f"{key}: {was}, now {flow(new[key]) if key in new else 'absent'}")
    return lines


def _flat(value: Any, path: str) -> Iterable[tuple[str, Any]]:
    if isinstance(value, MappingType) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(v, (MappingType, list, tuple)) for v in value):
        for index, inner in enumerate(value):
            yield from _flat(inner, f"{path}.{index}")
    else:
        yield path, value


# -- reading -------------------------------------------------------------------------------------------------


def _read(
    root: Node | None,
    file: str,
    overrides: Iterable[str],
    registry: Registry | None,
    plugin_files: Iterable[str | Path],
    allow_plugins: bool,
    problems: list[Problem],
    path: Path | None,
    base: Path,
) -> Config:
    changes = override_syntax.parse(overrides, problems)
    if root is None or (isinstance(root, Scalar) and root.value is None and root.value is not UNKNOWN):
        if not problems:
            problems.append(
                Problem("the file is empty; expected at least `network:` with a list of layers", file)
            )
    elif not isinstance(root, Mapping):
        problems.append(
            at(root.place, f"expected a mapping with `network:` and other keys, got {show(plain(root))}")
        )
    if not isinstance(root, Mapping):
        raise ConfigError(problems)
    registry = registry or default()
    for plugin in plugin_files:
        registry.load_file(plugin)
    changed = override_syntax.apply(root, changes, problems)
    assert isinstance(changed, Mapping)
    tree = substitute(changed, problems)
    work = SectionReader(tree, registry, problems, base)
    plugins = work.plugins(allow_plugins)
    fields = work.config(file, plugins)
    if problems:
        unique = list(dict.fromkeys(problems))
        raise ConfigError(sorted(unique, key=lambda p: (p.line == 0, p.line, p.column)))
    return Config(**fields, path=path, base=base)
