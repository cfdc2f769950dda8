"""`--set key.path=value`: changes to a configuration from the command line, made before it is checked.

The value is YAML: a number, text, [a list] or {a: mapping}. The path goes through keys and list numbers
(network.3.dense=10). A name that stands bare takes parameters: with `optimizer: sgd`, optimizer.sgd.lr=0.1
works.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from normcore.config.entries import Place
from normcore.config.yaml_file import Mapping, Node, Scalar, Sequence, at, plain, read_text
from normcore.errors import Problem

FLAG = "--set "


@dataclass(frozen=True)
class Override:
    path: tuple[str, ...]
    value: Node
    place: Place  # its file is "--set train.epochs"; relative paths in it start at the current folder


def parse(texts: Iterable[str], problems: list[Problem]) -> list[Override]:
    """The overrides in order; faults go to `problems`."""
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        place = Place(f"{FLAG}{key.strip()}")
        path = tuple(part.strip() for part in key.split("."))
        if not equals:
            problems.append(Problem("expected key=value, such as --set train.epochs=3", f"{FLAG}{text}"))
        elif not all(path):
            problems.append(Problem("expected a key before '=', such as train.epochs=3", f"{FLAG}{text}"))
        else:
            before = len(problems)
            node = read_text(value, place.file, problems, positions=False)
            if len(problems) == before:
                found.append(Override(path, node if node is not None else Scalar(None, place), place))
    return found


def apply(root: Node, overrides: Iterable[Override], problems: list[Problem]) -> Node:
    """The tree with every override in its place. The given tree is not modified."""
    for override in overrides:
        root = _put(root, override.path, override, (), problems)
    return root


def _put(
    node: Node | None,
    path: tuple[str, ...],
    override: Override,
    done: tuple[str, ...],
    problems: list[Problem],
) -> Node:
    if not path:
        return override.value
    key, rest = path[0], path[1:]
    if isinstance(node, Sequence):
        return _put_item(node, key, rest, override, done, problems)
    if node is None or (isinstance(node, Scalar) and node.value is None):
        node = Mapping({}, {}, override.place)
    elif isinstance(node, Scalar):
        if node.value != key:  # a bare name, such as `- relu`, becomes the mapping that takes parameters
            here = ".".join(done)
            problems.append(
                at(
                    override.place,
                    f"{here} is {plain(node)!r}, which has no key {key!r}; set the whole of {here}",
                )
            )
            return node
        node = Mapping({key: Scalar(None, node.place)}, {key: node.place}, node.place)
    value = _put(node.get(key), rest, override, (*done, key), problems)
    keys = {**node.keys, key: node.keys.get(key, override.place)}
    if not rest:
        keys[key] = override.place
    return replace(node, items={**node.items, key: value}, keys=keys)


def _put_item(
    node: Sequence,
    key: str,
    rest: tuple[str, ...],
    override: Override,
    done: tuple[str, ...],
    problems: list[Problem],
) -> Node:
    here, count = ".".join(done), len(node.items)
    if not key.isdecimal() or int(key) >= count:
        numbers = f"0 to {count - 1}" if count else "none: it is empty"
        problems.append(
            at(override.place, f"{here} is a list; expected the number of an item ({numbers}), got {key!r}")
        )
        return node
    index = int(key)
    items = list(node.items)
    items[index] = _put(items[index], rest, override, (*done, key), problems)
    return replace(node, items=tuple(items))
