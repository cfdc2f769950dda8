"""Terms of scalar arithmetic, each made once, and the source text that computes one of them.

A term that occurs twice is the same object, so common subexpressions are found as they arise. Terms are kept as the
author wrote them: nothing is expanded, cancelled or reordered, so that no accuracy is lost which the author had.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

# e^x as normcore.kernels.approximations has it
EXPONENTIALS = ("exp_normal", "exp_unclamped", "exp_nonpositive")

# How tightly the text of a kind binds; higher is tighter.
_LEVELS = {
    "select": 0,
    "or": 1,
    "and": 2,
    "not": 3,
    "compare": 4,
    "+": 5,
    "-": 5,
    "*": 6,
    "/": 6,
    "//": 6,
    "%": 6,
    "neg": 7,
    "**": 8,
}


class Term:
    """kind: "const", "name", "call", "select" (test, then, otherwise), "compare", "and", "or", "not", "neg" or a
    binary operator. value: the number, the name, the callee's text or the comparison's sign."""

    __slots__ = ("arguments", "kind", "order", "value")

    def __init__(self, kind: str, arguments: tuple["Term", ...], value: Any, order: int):
        self.kind, self.arguments, self.value, self.order = kind, arguments, value, order

    @property
    def function(self) -> str:
        """The called function's own name: "exp" for math.exp(...); "" for other kinds."""
        return self.value.rpartition(".")[2] if self.kind == "call" else ""

    def is_const(self, *values: float) -> bool:
        return self.kind == "const" and (not values or self.value in values)


class Terms:
    """Makes terms, the same one for the same arguments."""

    def __init__(self) -> None:
        self._made: dict[tuple[Any, ...], Term] = {}

    def __call__(self, kind: str, *arguments: Term, value: Any = None) -> Term:
        key = (kind, *map(id, arguments), type(value), repr(value))
        if key not in self._made:
            self._made[key] = Term(kind, arguments, value, len(self._made))
        return self._made[key]

    def const(self, value: float) -> Term:
        return self("const", value=value)

    def name(self, name: str) -> Term:
        return self("name", value=name)

    def call(self, callee: str, *arguments: Term) -> Term:
        return self("call", *arguments, value=callee)

    # -- for derivatives: zeros and ones disappear, numbers are computed ---------------------------------------

    def neg(self, a: Term) -> Term:
        if a.kind == "const":
            return self.const(-a.value)
        return a.arguments[0] if a.kind == "neg" else self("neg", a)

    def add(self, a: Term, b: Term) -> Term:
        if a.is_const() and b.is_const():
            return self.const(a.value + b.value)
        if a.is_const(0.0):
            return b
        if b.is_const(0.0):
            return a
        if b.kind == "neg":
            return self.sub(a, b.arguments[0])
        if a.kind == "neg":
            return self.sub(b, a.arguments[0])
        return self("+", a, b)

    def sub(self, a: Term, b: Term) -> Term:
        if a.is_const() and b.is_const():
            return self.const(a.value - b.value)
        if a.is_const(0.0):
            return self.neg(b)
        if b.is_const(0.0):
            return a
        if a.is_const(1.0) and b.kind == "*" and [f.kind for f in b.arguments] == ["-", "+"]:
            (one, u), (other, v) = (f.arguments for f in b.arguments)
            if one is a and other is a and u is v:
                return self("*", u, u)  # 1 - (1 - u)(1 + u) would cancel
        return self.add(a, b.arguments[0]) if b.kind == "neg" else self("-", a, b)

    def mul(self, a: Term, b: Term) -> Term:
        if a.is_const() and b.is_const():
            return self.const(a.value * b.value)
        if b.is_const():
            a, b = b, a
        if a.is_const(1.0):
            return b
        if a.is_const(-1.0):
            return self.neg(b)
        if a.kind == "neg":
            return self.neg(self.mul(a.arguments[0], b))
        if b.kind == "neg":
            return self.neg(self.mul(a, b.arguments[0]))
        return self("*", a, b)

    def div(self, a: Term, b: Term) -> Term:
        if b.is_const(1.0):
            return a
        return self.neg(self.div(a.arguments[0], b)) if a.kind == "neg" else self("/", a, b)

    def select(self, test: Term, a: Term, b: Term) -> Term:
        return a if a is b else self("select", test, a, b)

    def compare(self, sign: str, a: Term, b: Term) -> Term:
        return self("compare", a, b, value=sign)


def walk(root: Term, stop: Term | None = None) -> Iterator[Term]:
    """Every term below root, each once, arguments first; `stop` is given but not entered."""
    seen: set[int] = set()
    stack = [(root, False)]
    while stack:
        term, done = stack.pop()
        if done:
            yield term
        elif id(term) not in seen:
            seen.add(id(term))
            stack.append((term, True))
            if term is not stop:
                stack += [(a, False) for a in reversed(term.arguments)]


def _always(root: Term, stop: Term | None) -> set[int]:
    """Terms that are computed whatever the tests say."""
    found: set[int] = set()
    stack = [root]
    while stack:
        term = stack.pop()
        if id(term) not in found:
            found.add(id(term))
            if term is not stop:
                conditional = term.kind in ("select", "and", "or")
                stack += term.arguments[:1] if conditional else term.arguments
    return found


def body(root: Term, given: Mapping[int, str], taken: set[str], total: set[int]) -> list[str]:
    """Lines of Python that compute root and return it; what is used twice is computed once.

    given: texts of terms that exist already, by id. taken: names not to use. Terms that could fail (those not in
    `total`, such as a logarithm) and stand in branches only stay there, so that the lines also run as plain Python.
    """
    stop = next((t for t in walk(root) if id(t) in given), None)
    terms = list(walk(root, stop))
    uses: dict[int, int] = {}
    for term in terms:
        for a in term.arguments if term is not stop else ():
            uses[id(a)] = uses.get(id(a), 0) + 1
    free = total | _always(root, stop)
    names = dict(given)
    lines: list[str] = []
    count = 0
    for term in terms:
        shared = uses.get(id(term), 0) > 1 and term.kind not in ("const", "name") and id(term) in free
        if shared and id(term) not in names:
            text = _text(term, names)[0]
            count += 1
            while f"v{count}" in taken:
                count += 1
            names[id(term)] = f"v{count}"
            lines.append(f"v{count} = {text}")
    return [*lines, f"return {_text(root, names)[0]}"]


def _text(term: Term, names: Mapping[int, str]) -> tuple[str, int]:
    """The text of a term and how tightly it binds."""
    if id(term) in names:
        return names[id(term)], 9
    if term.kind == "const":
        return _number(term.value)
    if term.kind == "name":
        return str(term.value), 9
    level = _LEVELS.get(term.kind, 9)

    def part(k: int, least: int) -> str:
        text, tight = _text(term.arguments[k], names)
        return text if tight >= least else f"({text})"

    if term.kind == "call":
        return f"{term.value}({', '.join(_text(a, names)[0] for a in term.arguments)})", 9
    if term.kind == "select":
        return f"{part(1, 1)} if {part(0, 1)} else {part(2, 0)}", level
    if term.kind == "not":
        return f"not {part(0, level)}", level
    if term.kind == "neg":
        return f"-{part(0, level)}", level
    if term.kind == "compare":
        return f"{part(0, level + 1)} {term.value} {part(1, level + 1)}", level
    if term.kind == "**":
        exponent = term.arguments[1]
        whole = exponent.kind == "const" and float(exponent.value).is_integer()
        right = str(int(exponent.value)) if whole and abs(exponent.value) < 100 else part(1, 9)
        return f"{part(0, 9)} ** {right}", level
    return f"{part(0, level)} {term.kind} {part(1, level + 1)}", level


def _number(value: Any) -> tuple[str, int]:
    if isinstance(value, bool):
        return str(value), 9
    if math.isnan(value):
        return "math.nan", 9
    if math.isinf(value):
        return ("math.inf", 9) if value > 0 else ("-math.inf", 7)
    return repr(float(value)), 7 if math.copysign(1.0, value) < 0 else 9
