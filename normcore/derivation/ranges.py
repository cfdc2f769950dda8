"""What can be told about a term's value from its form: its sign, a bound, whether computing it can fail."""

from collections.abc import Iterable

from normcore.derivation.expressions import EXPONENTIALS, Term

LIMITS = (88.0, 709.0)  # the largest whole numbers whose exp is finite, in float32 and in float64
# Functions that no finite number can make fail when they run as plain Python.
_TOTAL = frozenset(
    {
        "abs",
        "fabs",
        "tanh",
        "atan",
        "erf",
        "erfc",
        "copysign",
        "asinh",
        "is_single",
        "normal_tail",
        "normal_slope",
    }
)


def not_negative(u: Term) -> bool:
    if u.kind == "const":
        return bool(u.value >= 0)
    if u.kind == "call":
        return u.function in ("abs", "fabs", "exp", *EXPONENTIALS, "sqrt", "cosh", "hypot", "erfc")
    if u.kind == "*":
        a, b = u.arguments
        return a is b or _signs(a) * _signs(b) > 0
    if u.kind in ("+", "/"):
        return all(not_negative(a) for a in u.arguments)
    if u.kind == "**":
        return u.arguments[1].is_const(2.0, 4.0, 6.0)
    if u.kind == "select":
        return all(not_negative(a) for a in u.arguments[1:])
    return False


def _signs(u: Term) -> int:
    """1: never negative, -1: never positive, 0: unknown."""
    if not_negative(u):
        return 1
    negative = u.kind == "const" or (u.kind == "neg" and not_negative(u.arguments[0]))
    if u.kind == "*":
        negative = _signs(u.arguments[0]) * _signs(u.arguments[1]) < 0 or _square_of_negative(u)
    return -1 if negative else 0


def _square_of_negative(u: Term) -> bool:
    """(-c x) x and the like, as -0.5 * x * x is parsed."""
    a, b = u.arguments
    return a.kind == "*" and a.arguments[1] is b and _signs(a.arguments[0]) < 0


def at_most(u: Term, limit: float) -> bool:
    """Whether u is known not to exceed the limit (which is positive)."""
    if u.kind == "const":
        return bool(u.value <= limit)
    if u.kind == "select":
        test, a, b = u.arguments
        if test.kind == "compare" and test.value in (">", ">=") and test.arguments == (b, a):
            return at_most(a, limit)  # b where b > a is not so: min(a, b)
        return at_most(a, limit) and at_most(b, limit)
    return _signs(u) < 0


def positive(u: Term) -> bool:
    if u.kind == "const":
        return bool(u.value > 0)
    if u.kind == "+":
        a, b = u.arguments
        return (positive(a) and not_negative(b)) or (not_negative(a) and positive(b))
    if u.kind == "select":
        return all(positive(a) for a in u.arguments[1:])
    return u.kind in ("*", "/") and all(positive(a) for a in u.arguments)


def total(terms: Iterable[Term]) -> set[int]:
    """The ids of those (arguments first) that can be computed even where they are not needed: nothing in them fails."""
    found: set[int] = set()
    for term in terms:
        sure = term.kind not in ("/", "**", "//", "%", "call") or term.function in _TOTAL
        sure = sure or (term.kind == "/" and positive(term.arguments[1]))
        sure = sure or (term.function == "exp" and at_most(term.arguments[0], LIMITS[1]))
        sure = sure or (term.function in ("sqrt", "log1p_unit") and not_negative(term.arguments[0]))
        if sure and all(id(a) in found for a in term.arguments):
            found.add(id(term))
    return found
