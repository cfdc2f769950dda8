"""What the small exchangeable parts share: initializers, losses, optimizers, schedules, data sources, augmentations.

Like an op, a component is a frozen description whose dataclass fields are its parameters, so the YAML schema, the
documentation and the checks of all of them come from the same declarations.
"""

import dataclasses
import typing
from dataclasses import dataclass
from typing import Any, ClassVar

from normcore.errors import ParameterError, nearest


@dataclass(frozen=True)
class Parameter:
    """A declared parameter: its name, its type as annotated, and its default (`required` when there is none)."""

    name: str
    annotation: Any
    default: Any
    required: bool

    def type_name(self) -> str:
        return (
            self.annotation.__name__
            if isinstance(self.annotation, type)
            else str(self.annotation).replace("typing.", "").replace("collections.abc.", "")
        )


@typing.dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Component:
    """Base of Initializer, Loss, Optimizer, Schedule, DataSource, Augmentation. Class keywords: name, aliases."""

    kind: ClassVar[str] = "component"
    name: ClassVar[str] = ""
    aliases: ClassVar[tuple[str, ...]] = ()
    _fields: ClassVar[dict[str, dataclasses.Field[Any]]] = {}
    _parameter_names: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, *, name: str = "", aliases: tuple[str, ...] = (), **kwargs: Any):
        super().__init_subclass__(**kwargs)
        cls.name, cls.aliases = name, tuple(aliases)
        # What dataclass would write and compile for each of two hundred classes stands below, once.
        dataclasses.dataclass(init=False, eq=False, repr=False)(cls)
        cls._fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
        cls._parameter_names = tuple(cls._fields)

    def __init__(self, *args: Any, **values: Any):
        """Takes the parameters in their order, keyword-only ones by name; raises TypeError and ParameterError."""
        given = dict(zip((name for name, f in self._fields.items() if not f.kw_only), args))
        if len(given) < len(args):
            raise TypeError(
                f"{type(self).__name__} takes {len(given)} positional parameters, got {len(args)}"
            )
        for name in values:
            if name not in self._fields or name in given:
                fault = "is given twice" if name in given else "is no parameter"
                raise TypeError(f"{type(self).__name__}: {name!r} {fault}")
        given.update(values)
        for name, f in self._fields.items():
            if name in given:
                value = given[name]
            elif f.default is not dataclasses.MISSING:
                value = f.default
            elif f.default_factory is not dataclasses.MISSING:
                value = f.default_factory()
            else:
                raise TypeError(f"{type(self).__name__}: parameter {name!r} is missing")
            object.__setattr__(self, name, value)
        self.check()

    def __setattr__(self, name: str, value: Any) -> None:
        """Each parameter is set once, when the component is made."""
        if name in vars(self) or name not in self._parameter_names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super().__setattr__(name, value)

    def __delattr__(self, name: str) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.hyperparameters() == other.hyperparameters()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), *self.hyperparameters().values()))

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in self.hyperparameters().items())
        return f"{type(self).__qualname__}({values})"

    def check(self) -> None:
        """Raise ParameterError for a parameter with a bad value."""

    @classmethod
    def parameters(cls) -> tuple[Parameter, ...]:
        """The parameters in order, keyword-only ones last; the first is what a bare YAML value sets."""
        hints = typing.get_type_hints(cls)
        out = []
        for f in sorted(dataclasses.fields(cls), key=lambda f: f.kw_only is True):  # type: ignore[arg-type]
            default = f.default
            if f.default_factory is not dataclasses.MISSING:
                default = f.default_factory()
            required = default is dataclasses.MISSING
            default = None if required else default
            out.append(Parameter(f.name, hints[f.name], default, required))
        return tuple(out)

    @classmethod
    def make(cls, **values: Any) -> Any:
        """The component with these parameters; a wrong name or a missing one is a ParameterError."""
        known = {p.name: p for p in cls.parameters()}
        for key in values:
            if key not in known:
                raise ParameterError(key, f"a parameter of {cls.name}{nearest(key, known)}", values[key])
        missing = [p.name for p in known.values() if p.required and p.name not in values]
        if missing:
            raise ParameterError(missing[0], f"a value ({cls.name} cannot do without it)", None)
        return cls(**values)

    def __reduce__(self) -> Any:
        """Pickled and copied by its parameters: what it found out since (kernels) is no part of it."""
        return _made, (type(self), self.hyperparameters())

    def hyperparameters(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self._parameter_names}


def _made(cls: type[Component], values: dict[str, Any]) -> Component:
    return cls(**values)
