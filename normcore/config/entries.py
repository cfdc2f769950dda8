"""A network as the configuration gives it to the graph builder: validated, with places for error messages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from normcore.op import Op


@dataclass(frozen=True)
class Place:
    """Where something stands in the user's file; line 0 when it was given from Python."""

    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class LayerEntry:
    """One op. inits: array name -> initializer spec. inputs: names that replace the layer before it as input."""

    op: Op
    inits: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None
    inputs: tuple[str, ...] | None = None
    place: Place = Place()


@dataclass(frozen=True)
class ResidualEntry:
    """body plus shortcut (the identity when empty); scale multiplies the body's output before the sum."""

    body: tuple["Entry", ...]
    shortcut: tuple["Entry", ...] = ()
    scale: float = 1.0
    name: str | None = None
    inputs: tuple[str, ...] | None = None
    place: Place = Place()


@dataclass(frozen=True)
class BranchesEntry:
    """Paths side by side on one input, merged by "concat" (channels) or "add"."""

    paths: tuple[tuple["Entry", ...], ...]
    merge: str = "concat"
    name: str | None = None
    inputs: tuple[str, ...] | None = None
    place: Place = Place()


@dataclass(frozen=True)
class RepeatEntry:
    """layers, times over; unrolled into the enclosing block's numbering."""

    times: int
    layers: tuple["Entry", ...]
    place: Place = Place()


Entry = LayerEntry | ResidualEntry | BranchesEntry | RepeatEntry
