"""The blocks of a network and the section `start_from:`, declared like components.

So their keys are checked, documented and completed the same way as a plugin's.
"""

from dataclasses import field
from typing import Any, ClassVar, Literal

from normcore.component import Component
from normcore.errors import ParameterError


class StartFrom(Component, name="start_from"):
    """Weights of another run to start from.

    run: its folder. freeze: patterns of layers that do not learn. lr_multipliers: pattern -> factor of
    the learning rate.
    """

    kind: ClassVar[str] = "section"
    run: str
    freeze: tuple[str, ...] = ()
    lr_multipliers: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        for pattern, factor in self.lr_multipliers.items():
            if not 0 <= factor < float("inf"):
                raise ParameterError("lr_multipliers", f"a number >= 0 for {pattern!r}", factor)


class Residual(Component, name="residual"):
    """body plus shortcut (the identity when absent); scale multiplies the body's output before the sum."""

    kind: ClassVar[str] = "block"
    body: Any
    shortcut: Any = ()
    scale: float = 1.0


class Branches(Component, name="branches"):
    """Paths side by side on one input, merged by concatenating their channels or adding them."""

    kind: ClassVar[str] = "block"
    paths: Any
    merge: Literal["concat", "add"] = "concat"


class Repeat(Component, name="repeat"):
    """The same layers several times, each with weights of its own, numbered as if they were written out."""

    kind: ClassVar[str] = "block"
    times: int
    layers: Any

    def check(self) -> None:
        if self.times < 1:
            raise ParameterError("times", "a whole number, at least 1", self.times)


BLOCKS: dict[str, type[Component]] = {block.name: block for block in (Residual, Branches, Repeat)}
