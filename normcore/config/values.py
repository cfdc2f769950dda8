"""One value against its declared type, with sentences for what was expected and what came.

Types are strict, as annotated: "3" is no whole number, 1.0 neither, true is no number; 1 is a number, and a
list is what YAML has for a tuple. pydantic does the checking; its errors are translated here.
"""

import types
import typing
from collections.abc import Iterable
from collections.abc import Mapping as MappingType
from collections.abc import Sequence as SequenceType
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Strict, TypeAdapter, ValidationError

from normcore.config.yaml_file import UNKNOWN, Mapping, Node, Scalar, Sequence, at, plain, resolve
from normcore.errors import Problem, nearest

BAD = UNKNOWN  # returned for a value that has been reported
_SEQUENCES = (list, tuple, set, frozenset, SequenceType, Iterable)
_ONE = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Path: "a path",
}
_MANY = {int: "whole numbers", float: "numbers", bool: "true or false", str: "texts", Path: "paths"}


def checked(annotation: Any, node: Node, label: str, problems: list[Problem]) -> Any:
    """The node's value as `annotation` has it, lists as tuples; or BAD after faults went to `problems`."""
    value = plain(node)
    if _has_unknown(value):
        return BAD
    try:
        return frozen(adapter(annotation).validate_python(value))
    except ValidationError as fault:
        for part, path in _deepest(node, [error["loc"] for error in fault.errors(include_url=False)]):
            inner = f", in which {path} is {show(plain(part))}" if path else ""
            message = f"{label}: expected {describe(annotation)}, got {show(value)}{inner}"
            problems.append(at(part.place, message + _hint(annotation, plain(part))))
        return BAD


@cache
def adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(_strict(annotation), config=ConfigDict(strict=True, arbitrary_types_allowed=True))


def frozen(value: Any) -> Any:
    """Lists as tuples, throughout, so that descriptions stay hashable."""
    if isinstance(value, (list, tuple)):
        return tuple(map(frozen, value))
    return {key: frozen(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _strict(annotation: Any) -> Any:
    """The annotation with tuples that take lists and paths that take text, strict otherwise."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Path:
        return Annotated[Path, Strict(False)]
    if origin is Annotated:
        return Annotated[_strict(arguments[0]), *arguments[1:]]
    if origin in (typing.Union, types.UnionType):
        return typing.Union[tuple(map(_strict, arguments))]  # noqa: UP007
    if origin is tuple or annotation is tuple:
        inner = tuple(a if a is Ellipsis else _strict(a) for a in arguments) or (Any, ...)
        return Annotated[tuple.__class_getitem__(inner), BeforeValidator(_as_tuple)]
    if origin in (list, SequenceType, Iterable) and arguments:
        return list[_strict(arguments[0])]  # type: ignore[misc]
    if origin in (dict, MappingType) and len(arguments) == 2:
        return dict[_strict(arguments[0]), _strict(arguments[1])]  # type: ignore[misc]
    return annotation


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _has_unknown(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_unknown(inner) or key is UNKNOWN for key, inner in value.items())
    return any(map(_has_unknown, value)) if isinstance(value, list) else value is UNKNOWN


def _deepest(node: Node, places: list[tuple[Any, ...]]) -> list[tuple[Node, str]]:
    """The innermost wrong nodes with their path in the value; an error inside a list says more than one
    about it."""
    found: dict[str, tuple[int, Node]] = {}
    for loc in places:
        current, path = node, []
        for part in loc:
            if (isinstance(current, Sequence) and isinstance(part, int) and part < len(current.items)) or (
                isinstance(current, Mapping) and part in current.items
            ):
                current = current.items[part]
            else:
                continue
            path.append(f"item {part}" if isinstance(part, int) else str(part))
        found[" of ".join(reversed(path))] = (len(path), current)
    depth = max(d for d, _ in found.values())
    return [(current, path) for path, (d, current) in found.items() if d == depth]


# -- sentences -----------------------------------------------------------------------------------------------


def describe(annotation: Any, many: bool = False) -> str:
    """The annotation in words: "a whole number, or a list of whole numbers"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in (Any, object):
        return "values" if many else "a value"
    if origin is Annotated:
        return describe(arguments[0], many)
    if origin is Literal:
        return _one_of([_literal(a) for a in arguments])
    if origin in (typing.Union, types.UnionType):
        return _one_of([describe(a, many) for a in arguments])
    if origin in _SEQUENCES or annotation in _SEQUENCES:
        return _describe_list(origin is tuple, arguments, many)
    if origin in (dict, MappingType) or annotation in (dict, MappingType):
        inner = (
            f" of {describe(arguments[0], True)} to {describe(arguments[1], True)}"
            if len(arguments) == 2
            else ""
        )
        return f"mapping{'s' if many else ''}{inner}" if many else f"a mapping{inner}"
    known = (_MANY if many else _ONE).get(annotation)
    return known or str(getattr(annotation, "__name__", annotation)).replace("typing.", "")


def _describe_list(is_tuple: bool, arguments: tuple[Any, ...], many: bool) -> str:
    start = "lists" if many else "a list"
    if not arguments:
        return start
    if is_tuple and (len(arguments) < 2 or arguments[1] is not Ellipsis):
        inner = list(dict.fromkeys(describe(a, True) for a in arguments))
        return f"{start} of {len(arguments)} {' and '.join(inner)}"
    return f"{start} of {describe(arguments[0], True)}"


def _one_of(words: list[str]) -> str:
    words = list(dict.fromkeys(words))
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _literal(value: Any) -> str:
    return show(value) if not isinstance(value, str) else repr(value)


def show(value: Any) -> str:
    """What came, as YAML has it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {_short(repr(value))}"
    if isinstance(value, dict):
        return f"a mapping of {', '.join(map(str, list(value)[:5]))}" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"the list {_short(_inline(value))}"
    return str(value)


def _inline(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_inline(inner)}" for key, inner in value.items()) + "}"
    return repr(value) if isinstance(value, str) else show(value)


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _hint(annotation: Any, got: Any) -> str:
    """What to do about the usual slips."""
    accepted = _leaves(annotation)
    words = [a for a in accepted if isinstance(a, str)]
    if isinstance(got, str):
        meant = resolve(got)
        if (type(meant) is int and {int, float} & accepted) or (type(meant) is float and float in accepted):
            return "; remove the quotes"
        if bool in accepted and got.lower() in ("yes", "no", "on", "off", "y", "n", "true", "false"):
            return f"; write {'true' if got.lower() in ('yes', 'on', 'y', 'true') else 'false'}"
        if type(None) in accepted and got.lower() in ("none", "nil"):
            return "; write null"
        return nearest(got, words) if words and nearest(got, words).startswith("; did") else ""
    if isinstance(got, float) and int in accepted and got.is_integer():
        return f"; write {int(got)}"
    if (
        str in accepted
        and not {int, float} & accepted
        and (got is None or isinstance(got, (bool, int, float)))
    ):
        return "; put quotes around it"
    return ""


def _leaves(annotation: Any) -> set[Any]:
    """The scalar types and literal values somewhere in an annotation."""
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return set(arguments)
    return (
        set().union(*map(_leaves, arguments))
        if arguments
        else ({annotation} if annotation is not Ellipsis else set())
    )


def is_text(node: Node | None) -> bool:
    return isinstance(node, Scalar) and isinstance(node.value, str)
