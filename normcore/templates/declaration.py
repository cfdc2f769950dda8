"""What a template op's class declares: scalar functions, their arguments, their derivatives as source."""

import inspect
import math
import operator
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from normcore.derivation import Derived
from normcore.errors import PluginError
from normcore.kernels.function import Function, read
from normcore.op import check_attributes

BLOCK = 4096  # values summed in the kernel's own precision before float64 takes over
PASSED_ON = ("samples", "error_samples", "benchmarks", "check", "in_torch", "reference")


@dataclass(frozen=True, eq=False)
class Scalar:
    """One scalar function. arguments: their names, in order."""

    name: str
    arguments: tuple[str, ...]
    function: Function

    @classmethod
    def of(cls, op: str, name: str, python: Any) -> "Scalar":
        code = python.__code__
        function = read(python, f"{op}_{name}", scalar=True, force=True)
        return cls(name, code.co_varnames[: code.co_argcount], function)

    def call(self, texts: Mapping[str, str]) -> str:
        """The text of a call, given texts of what its arguments may be."""
        return f"{self.function.name}({', '.join(texts[a] for a in self.arguments)})"

    @cached_property
    def _derivatives(self) -> "dict[str, Scalar]":
        return {}

    def derivative(self, by: str) -> "Scalar | None":
        """Derived from the source; None where it is zero."""
        if by not in self.arguments:
            return None
        if by not in self._derivatives:
            name = f"{self.function.name}_by_{by}"
            stem = f"{self.name}_by_{by}"
            made = Derived(self.function, by, name, stem, self.arguments, self.arguments)
            made.force = True
            self._derivatives[by] = Scalar(stem, self.arguments, made)
        found = self._derivatives[by]
        return None if found.function.text.endswith("return 0.0\n") else found


def scalars_of(definition: type, op: str) -> dict[str, Scalar]:
    """The scalar functions of a class, in order; not its checks and tests.

    A function f_by_a is the author's derivative of the function f by its argument a, with f's arguments.
    Raises PluginError where it has others.
    """
    found = {
        name: Scalar.of(op, name, member)
        for name, member in vars(definition).items()
        if inspect.isfunction(member) and name not in PASSED_ON and not name.startswith("__")
    }
    for name in list(found):
        of, _, by = name.partition("_by_")
        if by and of in found:
            derivative = found.pop(name)
            if derivative.arguments != found[of].arguments or by not in derivative.arguments:
                raise PluginError(
                    f"{op}: {name} is the derivative of {of} and takes its arguments ({', '.join(found[of].arguments)})"
                )
            found[of]._derivatives[by] = derivative
    return found


def check_arguments(op: str, scalar: Scalar, first: str, known: Iterable[str]) -> None:
    """Raises PluginError unless a function takes `first` and otherwise only what is known where it stands."""
    known = list(known)
    unknown = [a for a in scalar.arguments if a != first and a not in known]
    if unknown or first not in scalar.arguments:
        raise PluginError(
            f"{op}: {scalar.name}({', '.join(scalar.arguments)}) may take {first}"
            f"{''.join(', ' + k for k in known)}" + (f"; {unknown[0]!r} is none of these" if unknown else "")
        )


def make(definition: type, op: str, base: type, attributes: Mapping[str, Any], **keywords: Any) -> Any:
    """The op class of a declaration. Raises PluginError for an attribute that its base does not have."""
    check_attributes(op, base, attributes, keywords)
    hints = typing.get_type_hints(definition)
    members = vars(definition)
    namespace: dict[str, Any] = {
        "__doc__": inspect.cleandoc(definition.__doc__ or ""),
        "__module__": definition.__module__,
        "__annotations__": hints,
        "definition": definition,
        **{key: members[key] for key in (*hints, *PASSED_ON) if key in members},
        **attributes,
    }
    return type(definition.__name__, (base,), namespace, name=op, **keywords)


def text(
    name: str, arguments: Sequence[str], lines: Sequence[str], names: Mapping[str, Any], **flags: Any
) -> Function:
    """A generated function. Lines may hold further lines, indented by themselves."""
    body = "".join(f"    {part}\n" for line in lines for part in line.splitlines())
    return Function(name, f"def {name}({', '.join(arguments)}):\n{body}", dict(names), typed=True, **flags)


def indented(lines: Sequence[str]) -> list[str]:
    return [f"    {part}" for line in lines for part in line.splitlines()]


_CHEAP = ("add", "sub", "mul", "truediv")
_ASKED = ("lt", "le", "gt", "ge", "eq", "ne")


class _Watched:
    """A number that notes when a math function is taken of it, or a power that is not written as a whole number."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: float):
        self.value, self.dear = value, False

    def __float__(self) -> float:
        self.dear = True
        return self.value

    def __pow__(self, power: Any) -> Any:
        self.dear = self.dear or not isinstance(power, int)
        return self

    def __rpow__(self, base: Any) -> Any:
        self.dear = True
        return self

    def _same(self, *others: Any) -> Any:
        return self

    def _asked(name: str) -> Any:  # type: ignore[misc]
        compare = getattr(operator, name)
        return lambda self, other: compare(self.value, getattr(other, "value", other))

    __abs__ = __neg__ = __pos__ = _same
    for _name in _CHEAP:
        locals()[f"__{_name}__"] = locals()[f"__r{_name}__"] = _same
    for _name in _ASKED:
        locals()[f"__{_name}__"] = _asked(_name)


def is_dear(scalar: Scalar, fields: Mapping[str, Any]) -> bool:
    """Whether a function of x takes a math function or a power with these fields: tens of times a product's time."""
    found = []
    for at in (-1.5, 1.5):
        x = _Watched(at)
        scalar.function(*(x if a == "x" else float(fields[a]) for a in scalar.arguments))
        found.append(x.dear)
    return any(found)


def numbers(op: Any, parameters: Sequence[str]) -> list[float]:
    return [float(getattr(op, name)) for name in parameters]


def finite(scalar: Scalar) -> Any:
    """The function as plain Python, infinite or NaN where Python raises."""

    def call(*values: float) -> float:
        try:
            return float(scalar.function(*map(float, values)))
        except OverflowError:
            return math.inf
        except (ZeroDivisionError, ValueError):
            return math.nan

    return call
