"""The calculus: what each operation and function does to a pair (value, slope). A slope of None is exactly zero.

The rules are chosen for how they compute, not for how short they are:
- a quotient's slope is (a' - q b') / b with the quotient q itself, which does not overflow where a' b - a b' over b^2 does;
- tanh gives (1 - y)(1 + y), expm1 gives exp, sqrt gives 1 / (2 y): no term is lost beside 1;
- the argument of exp is held below overflow (`bounded`), so that what saturates has slope 0 far out and not inf / inf;
- a conditional's slope is the conditional of the slopes under the same test, so that all take the same side of a kink.
"""

import math
from collections.abc import Callable, Mapping

from normcore.derivation.expressions import EXPONENTIALS, Term, Terms

Slope = Term | None


def plus(T: Terms, a: Slope, b: Slope) -> Slope:
    return b if a is None else a if b is None else T.add(a, b)


def minus(T: Terms, a: Slope, b: Slope) -> Slope:
    return a if b is None else T.neg(b) if a is None else T.sub(a, b)


def times(T: Terms, factor: Term, a: Slope) -> Slope:
    return None if a is None else T.mul(factor, a)


def over(T: Terms, a: Slope, divisor: Term) -> Slope:
    return None if a is None else T.div(a, divisor)


def choose(T: Terms, test: Term, a: Slope, b: Slope) -> Slope:
    if a is b:
        return a
    zero = T.const(0.0)
    return T.select(test, zero if a is None else a, zero if b is None else b)


def operation(T: Terms, kind: str, y: Term, a: Term, da: Slope, b: Term, db: Slope) -> Slope:
    """The slope of y = a <kind> b. Raises KeyError where there is no rule."""
    if da is None and db is None:
        return None
    if kind == "+":
        return plus(T, da, db)
    if kind == "-":
        return minus(T, da, db)
    if kind == "*":
        if a is b:
            return times(T, T.mul(T.const(2.0), a), da)
        return plus(T, times(T, b, da), times(T, a, db))
    if kind == "/":
        if da is None:
            assert db is not None
            return T.neg(T.div(T.mul(y, db), b))
        return over(T, minus(T, da, times(T, y, db)), b)
    if kind == "**":
        return power(T, y, a, da, b, db)
    if kind == "//":
        return None
    if kind == "%":
        return minus(T, da, times(T, T("//", a, b), db))
    raise KeyError(kind)


def power(T: Terms, y: Term, a: Term, da: Slope, b: Term, db: Slope) -> Slope:
    """d a^b = b a^(b-1) a' + a^b log(a) b'; the second term is 0 at a = 0."""
    zero, one = T.const(0.0), T.const(1.0)
    base: Slope = None
    if da is not None:
        if b.kind == "const":
            lower = b.value - 1.0
            if lower == 0.0:
                below = one
            elif lower == 1.0:
                below = a
            elif lower == 2.0:
                below = T.mul(a, a)
            else:
                below = T("**", a, T.const(lower))
            base = None if b.value == 0.0 else times(T, T.mul(T.const(float(b.value)), below), da)
        else:
            slope = T.mul(b, T("**", a, T.sub(b, one)))
            base = times(T, T.select(T.compare("==", b, zero), zero, slope), da)
    exponent: Slope = None
    if db is not None:
        if a.kind == "const" and a.value > 0:
            exponent = times(T, T.mul(T.const(math.log(a.value)), y), db)
        else:
            slope = T.mul(y, T.call("math.log", a))
            exponent = times(T, T.select(T.compare("==", a, zero), zero, slope), db)
    return plus(T, base, exponent)


# -- functions of one argument: (terms, y, u) -> dy/du ----------------------------------------------------------


def _reciprocal(T: Terms, u: Term) -> Term:
    return T.div(T.const(1.0), u)


def _one_less_square(T: Terms, u: Term) -> Term:
    """1 - u^2, exact near 1."""
    one = T.const(1.0)
    return T.mul(T.sub(one, u), T.add(one, u))


def _square(T: Terms, u: Term) -> Term:
    return T.mul(u, u)


def _bell(T: Terms, u: Term, factor: float, width: float) -> Term:
    return T.mul(T.const(factor), T.call("math.exp", T.neg(T.mul(T.const(width), _square(T, u)))))


FUNCTIONS: Mapping[str, Callable[[Terms, Term, Term], Term]] = {
    "exp": lambda T, y, u: y,
    "exp2": lambda T, y, u: T.mul(T.const(math.log(2.0)), y),
    "expm1": lambda T, y, u: T.call("math.exp", u),
    "log": lambda T, y, u: _reciprocal(T, u),
    "log1p": lambda T, y, u: _reciprocal(T, T.add(T.const(1.0), u)),
    "log2": lambda T, y, u: T.div(T.const(1.0 / math.log(2.0)), u),
    "log10": lambda T, y, u: T.div(T.const(1.0 / math.log(10.0)), u),
    "sqrt": lambda T, y, u: T.div(T.const(0.5), y),
    "sin": lambda T, y, u: T.call("math.cos", u),
    "cos": lambda T, y, u: T.neg(T.call("math.sin", u)),
    "tan": lambda T, y, u: T.add(T.const(1.0), _square(T, y)),
    "asin": lambda T, y, u: _reciprocal(T, T.call("math.sqrt", _one_less_square(T, u))),
    "acos": lambda T, y, u: T.neg(_reciprocal(T, T.call("math.sqrt", _one_less_square(T, u)))),
    "atan": lambda T, y, u: _reciprocal(T, T.add(T.const(1.0), _square(T, u))),
    "sinh": lambda T, y, u: T.call("math.cosh", u),
    "cosh": lambda T, y, u: T.call("math.sinh", u),
    "tanh": lambda T, y, u: _one_less_square(T, y),
    "asinh": lambda T, y, u: _reciprocal(T, T.call("math.hypot", u, T.const(1.0))),
    "acosh": lambda T, y, u: _reciprocal(
        T, T.call("math.sqrt", T.mul(T.sub(u, T.const(1.0)), T.add(u, T.const(1.0))))
    ),
    "atanh": lambda T, y, u: _reciprocal(T, _one_less_square(T, u)),
    "erf": lambda T, y, u: _bell(T, u, 2.0 / math.sqrt(math.pi), 1.0),
    "erfc": lambda T, y, u: T.neg(_bell(T, u, 2.0 / math.sqrt(math.pi), 1.0)),
    "degrees": lambda T, y, u: T.const(180.0 / math.pi),
    "radians": lambda T, y, u: T.const(math.pi / 180.0),
    # normcore.kernels.approximations: near enough to e^u, log(1 + u) and the normal distribution's tail
    **dict.fromkeys(EXPONENTIALS, lambda T, y, u: y),
    "expm1_nonpositive": lambda T, y, u: T.add(y, T.const(1.0)),
    "log1p_unit": lambda T, y, u: _reciprocal(T, T.add(T.const(1.0), u)),
    "normal_tail": lambda T, y, u: T.neg(_bell(T, u, 1.0 / math.sqrt(2.0 * math.pi), 0.5)),
    "normal_slope": lambda T, y, u: T.mul(
        T.sub(_square(T, u), T.const(2.0)), _bell(T, u, 1.0 / math.sqrt(2.0 * math.pi), 0.5)
    ),
}
STEPS = frozenset(
    {"floor", "ceil", "trunc", "round", "rint", "sign", "isnan", "isinf", "isfinite"}
)  # slope 0
OTHER_NAMES = {  # NumPy's names, and math's second ones
    "absolute": "abs",
    "fabs": "abs",
    "arcsin": "asin",
    "arccos": "acos",
    "arctan": "atan",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "maximum": "max",
    "minimum": "min",
    "power": "pow",
    "arctan2": "atan2",
    "float32": "float",
    "float64": "float",
    "real": "float",
}


def pair(
    T: Terms, name: str, y: Term, a: Term, da: Slope, b: Term, db: Slope
) -> Slope:  # functions of two arguments
    """The slope of y = name(a, b) for hypot, atan2, copysign, pow and fmod. Raises KeyError for another name."""
    if name == "hypot":
        return over(T, plus(T, times(T, a, da), times(T, b, db)), y)
    if name == "atan2":
        squares = T.add(_square(T, a), _square(T, b))
        return over(T, minus(T, times(T, b, da), times(T, a, db)), squares)
    if name == "copysign":
        one = T.const(1.0)
        signs = T.mul(T.call("math.copysign", one, a), T.call("math.copysign", one, b))
        return times(T, signs, da)
    if name == "pow":
        return power(T, y, a, da, b, db)
    if name == "fmod" and db is None:
        return da
    raise KeyError(name)
