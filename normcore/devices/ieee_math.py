"""The math module as a GPU has it: infinities and NaN instead of exceptions, results in the argument's
type."""

import math
import types
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

SAME = (
    *("exp", "expm1", "log", "log1p", "log2", "log10", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh"),
    *("copysign", "fmod", "hypot", "isnan", "isinf", "isfinite", "fabs"),
)
OTHER = {"acos": "arccos", "asin": "arcsin", "atan": "arctan", "atan2": "arctan2", "pow": "power"}


@cache
def ieee_math() -> types.SimpleNamespace:
    """What `math` is inside simulated kernels. Silence NumPy's warnings around them with np.errstate."""
    functions: dict[str, Any] = {name: getattr(np, name) for name in SAME}
    functions.update({name: getattr(np, other) for name, other in OTHER.items()})
    functions.update({name: _whole(getattr(math, name)) for name in ("floor", "ceil", "trunc")})
    functions.update({name: _special(getattr(math, name)) for name in ("erf", "erfc", "gamma", "lgamma")})
    return types.SimpleNamespace(**functions, pi=math.pi, e=math.e, inf=math.inf, nan=math.nan, tau=math.tau)


def _whole(f: Callable[[Any], int]) -> Callable[[Any], int]:
    return lambda x: f(float(x)) if math.isfinite(x) else 0


def _special(f: Callable[[float], float]) -> Callable[[Any], Any]:
    def call(x: Any) -> Any:
        try:
            value = f(float(x))
        except (OverflowError, ValueError):
            value = math.inf
        return type(x)(value)

    return call
