"""Initial values of learnable arrays and running state, drawn by Philox: the same on any machine.

fan is (fan_in, fan_out) as the op declares it: for dense (in, out), for convolutions (in / groups * window,
out / groups * window), as PyTorch computes them.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np

from normcore import random
from normcore.component import Component
from normcore.errors import ParameterError
from normcore.op import Array


class Initializer(Component):
    """Base: `fill(shape, fan, key)` returns float64 values of that shape.

    key is a Philox key of this array alone, so its values depend on the seed and its path only.
    """

    kind: ClassVar[str] = "initializer"

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        raise NotImplementedError(f"initializer {self.name!r} has no fill()")


class Zeros(Initializer, name="zeros"):
    """All zeros."""

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return np.zeros(shape)


class Ones(Initializer, name="ones"):
    """All ones."""

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return np.ones(shape)


class Constant(Initializer, name="constant"):
    """One value everywhere (AlexNet: biases 1 in some layers)."""

    value: float

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return np.full(shape, float(self.value))


class Identity(Initializer, name="identity"):
    """The identity matrix along the last two axes (a covariance before any data)."""

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return np.broadcast_to(np.eye(shape[-2], shape[-1]), shape).copy()


class Normal(Initializer, name="normal"):
    """N(mean, std^2) (AlexNet: std 0.01)."""

    std: float = 0.01
    mean: float = 0.0

    def check(self) -> None:
        if self.std < 0:
            raise ParameterError("std", "a number >= 0", self.std)

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return self.mean + self.std * random.normal(key, shape, "float64")


class Uniform(Initializer, name="uniform"):
    """Uniform on [low, high)."""

    low: float = -0.05
    high: float = 0.05

    def check(self) -> None:
        if self.high < self.low:
            raise ParameterError("high", f"a number >= low = {self.low}", self.high)

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return _uniform(key, shape, self.low, self.high)


class XavierUniform(Initializer, name="xavier_uniform", aliases=("glorot_uniform",)):
    """Uniform on +-gain sqrt(6 / (fan_in + fan_out)). Glorot and Bengio 2010."""

    gain: float = 1.0

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        bound = self.gain * math.sqrt(6.0 / sum(fan))
        return _uniform(key, shape, -bound, bound)


class XavierNormal(Initializer, name="xavier_normal", aliases=("glorot_normal", "xavier")):
    """N(0, gain^2 * 2 / (fan_in + fan_out)). Glorot and Bengio 2010."""

    gain: float = 1.0

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return self.gain * math.sqrt(2.0 / sum(fan)) * random.normal(key, shape, "float64")


class HeUniform(Initializer, name="he_uniform", aliases=("kaiming_uniform",)):
    """Uniform on +-sqrt(3) * std with std = sqrt(2 / ((1 + a^2) fan)). He et al. 2015, arXiv:1502.01852."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"
    a: float = 0.0

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        bound = math.sqrt(6.0 / ((1.0 + self.a**2) * fan[self.mode == "fan_out"]))
        return _uniform(key, shape, -bound, bound)


class HeNormal(Initializer, name="he_normal", aliases=("kaiming_normal", "he")):
    """N(0, 2 / ((1 + a^2) fan)). He et al. 2015, arXiv:1502.01852."""

    mode: Literal["fan_in", "fan_out"] = "fan_in"
    a: float = 0.0

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        std = math.sqrt(2.0 / ((1.0 + self.a**2) * fan[self.mode == "fan_out"]))
        return std * random.normal(key, shape, "float64")


class LecunNormal(Initializer, name="lecun_normal", aliases=("lecun",)):
    """N(0, 1 / fan_in). LeCun et al. 1998, Efficient BackProp."""

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        return math.sqrt(1.0 / fan[0]) * random.normal(key, shape, "float64")


class Orthogonal(Initializer, name="orthogonal"):
    """gain times a random matrix with orthonormal rows or columns. Saxe et al. 2013, arXiv:1312.6120."""

    gain: float = 1.0

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        rows, columns = shape[0], math.prod(shape[1:])
        tall = random.normal(key, (max(rows, columns), min(rows, columns)), "float64")
        q, r = np.linalg.qr(tall)
        q = q * np.sign(np.diag(r))  # makes the distribution uniform over orthogonal matrices
        return self.gain * (q if rows >= columns else q.T).reshape(shape)


class TorchDefaultWeight(Initializer, name="torch_default_weight"):
    """Uniform on +-1 / sqrt(fan_in): what PyTorch's Linear and Conv start their weights from."""

    def fill(self, shape: tuple[int, ...], fan: tuple[int, int], key: int) -> np.ndarray:
        bound = 1.0 / math.sqrt(fan[0])
        return _uniform(key, shape, -bound, bound)


class TorchDefaultBias(TorchDefaultWeight, name="torch_default_bias"):
    """Uniform on +-1 / sqrt(fan_in): what PyTorch's Linear and Conv start their biases from."""


BUILT_IN = (
    Constant,
    HeNormal,
    HeUniform,
    LecunNormal,
    Normal,
    Ones,
    Identity,
    Orthogonal,
    TorchDefaultBias,
    TorchDefaultWeight,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)


def initial_values(array: Array, override: Any, seed: int, path: str) -> np.ndarray:
    """The starting values (float64) of the array at `path`, such as "conv1.weight".

    override: an initializer, its name, or a mapping {name: parameters}; None takes the op's own.
    """
    initializer = resolve(array.init if override is None else override)
    fan = array.fan or _fan_of(array.shape)
    return initializer.fill(tuple(array.shape), fan, random.key_of(seed, path))


def resolve(spec: Any) -> Initializer:
    """An initializer from its name, a mapping {name: parameters or first value}, or itself."""
    from normcore.registry import default

    if isinstance(spec, Initializer):
        return spec
    if isinstance(spec, str):
        return default().get("initializer", spec).component.make()  # type: ignore[no-any-return]
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, values),) = spec.items()
        component = default().get("initializer", name).component
        if not isinstance(values, Mapping):
            values = {component.parameters()[0].name: values}
        return component.make(**values)  # type: ignore[no-any-return]
    raise ParameterError("init", "an initializer's name or {name: parameters}", spec)


def _fan_of(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) < 2:
        return (max(1, math.prod(shape)),) * 2
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


def _uniform(key: int, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    return low + (high - low) * random.uniform(key, shape, "float64")
