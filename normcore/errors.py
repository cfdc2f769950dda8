"""Every error a user can meet. Each message says what was expected, what came, and what to do.

The command line prints the message and ends with `exit_status`; a traceback appears only with --debug.
"""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


class NormcoreError(Exception):
    """Base of all errors that are the input's fault, not the program's."""

    exit_status = 1


class DataError(NormcoreError):
    """A data file, an image or a label that cannot be used."""


class NumbersError(NormcoreError):
    """A loss or a gradient that is no longer finite."""


class UsageError(NormcoreError):
    """Wrong arguments, or a configuration that cannot be built."""

    exit_status = 2


class ShapeError(UsageError):
    """Arrays or layers whose shapes do not fit; the message prints the arithmetic."""


class ParameterError(UsageError):
    """A parameter with a wrong value.

    name: the parameter; expected: what would be right; got: what came.
    """

    def __init__(self, name: str, expected: str, got: object):
        self.name, self.expected, self.got = name, expected, got
        super().__init__(f"{name}: expected {expected}, got {got!r}")


class DeviceError(UsageError):
    """A device that is not there; the message says what is missing and how to install it."""


class MemoryBudgetError(UsageError):
    """Buffers that would not fit in memory; raised before anything is allocated."""


class PluginError(UsageError):
    """A plugin that cannot be used: import error, wrong hook, duplicate name."""


@dataclass(frozen=True)
class Problem:
    """One fault in a configuration, with its place (1-based; 0 where there is none)."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = (
            f"{self.file}:{self.line}:{self.column}: "
            if self.line
            else (f"{self.file}: " if self.file else "")
        )
        return place + self.message


class ConfigError(UsageError):
    """All faults of one configuration at once."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


LISTED = 15  # names that a message lists; more of them hide the message


def nearest(name: str, known: Iterable[str], listing: str = "") -> str:
    """The hint "; did you mean 'relu'?" for an error's end, or the known names when none is near.

    listing: the command that prints them, such as "normcore ops", where they may be too many for a message.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    if len(known) > LISTED:
        rest = f"`{listing}` lists them" if listing else f"such as {', '.join(known[:LISTED])}"
        return f"; {len(known)} are known: {rest}"
    return f"; known: {', '.join(known)}" if known else ""


def snake_case(name: str) -> str:
    """MyNorm, my-norm -> my_norm; may be no name where there are no letters."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()).strip("_")


def listing_of(kind: str) -> str:
    """The command that lists the components of a kind."""
    return "normcore ops" if kind == "op" else "normcore plugins list --json"
