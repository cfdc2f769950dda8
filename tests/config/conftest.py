"""A registry with the core's own components and a few toy ops, and a reader of configuration texts."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest

import normcore
from normcore.config.config import Config, load
from normcore.errors import ConfigError, ParameterError
from normcore.op import Op
from normcore.registry import Registry


class Conv(Op, name="conv", learnable=("weight", "bias")):
    """A window that slides."""

    out_channels: int
    kernel_size: int | Sequence[int] = 3
    padding: int | str | Sequence[int | Sequence[int]] = 0
    bias: bool = True

    def check(self) -> None:
        if self.out_channels < 1:
            raise ParameterError("out_channels", "a whole number, at least 1", self.out_channels)
        if isinstance(self.padding, int) and self.padding < 0:
            raise ParameterError("padding", "a whole number >= 0", self.padding)


class Norm(Op, name="batch_norm", aliases=("bn",), learnable=("gamma",)):
    """Statistics."""

    eps: float = 1e-5
    momentum: float | None = 0.1
    mode: Literal["mean", "sum"] = "mean"


class Relu(Op, name="relu"):
    """max(x, 0)"""


class Tanh(Op, name="tanh"):
    """tanh(x)"""


class Resize(Op, name="resize"):
    """A tuple first."""

    size: tuple[int, int] | None = None


class Between(Op, name="between"):
    """Two parameters that one complaint is about."""

    low: float = 1.0
    high: float = 2.0

    def check(self) -> None:
        if self.low > self.high:
            raise ParameterError("low", f"at most high, which is {self.high}", self.low)


class Toys:
    @staticmethod
    @normcore.hookimpl
    def normcore_ops() -> list[Any]:
        return [Conv, Norm, Relu, Tanh, Resize, Between]


@pytest.fixture(scope="session")
def registry() -> Registry:
    from normcore import builtins

    made = Registry()
    made.add(builtins, "core")
    made.add(Toys, "toys")
    return made


class Reader:
    """read(text) -> Config; read.problems(text) -> the faults, one string each, without the file's folder."""

    def __init__(self, folder: Any, registry: Registry):
        self.folder, self.registry = folder, registry

    def __call__(self, text: str, *overrides: str, **options: Any) -> Config:
        file = self.folder / "net.yaml"
        file.write_text(text, encoding="utf-8")
        return load(file, overrides, self.registry, **options)

    def problems(self, text: str, *overrides: str, **options: Any) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self(text, *overrides, **options)
        return [str(p).replace(f"{self.folder}/", "") for p in caught.value.problems]

    def layer_problems(self, layer: str) -> list[str]:
        """The faults of one item of a network, written in column 5 of line 3."""
        return self.problems(f"input: [3, 8, 8]\nnetwork:\n  - {layer}\n")


@pytest.fixture
def read(tmp_path: Any, registry: Registry) -> Reader:
    return Reader(tmp_path, registry)
