"""From the source of a scalar function to the source of its derivative.

The statements are followed with pairs (value, slope), so the derivative has the shape of the function: the same
assignments, the same tests. What the author's value already is (y) is read where that makes the inputs unnecessary.
"""

import ast
import math
import types
from collections.abc import Mapping, Sequence
from typing import Any

from normcore.derivation import ranges, rules
from normcore.derivation.expressions import EXPONENTIALS, Term, Terms, body, walk
from normcore.derivation.rules import Slope
from normcore.errors import PluginError
from normcore.kernels import approximations
from normcore.kernels.function import Function, as_function

Pair = tuple[Term, Slope]
HELPERS = {
    id(getattr(approximations, name)): name
    for name in ("is_single", *EXPONENTIALS, "expm1_nonpositive", "log1p_unit", "normal_tail", "normal_slope")
}  # functions with a rule of their own, by identity
_OPERATORS = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.Pow: "**",
    ast.Mod: "%",
    ast.FloorDiv: "//",
}
_SIGNS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
_TIE_LEFT = {"<": False, "<=": True, ">": True, ">=": False}  # equal counts as below
_DEEPEST = 20  # helpers calling helpers


class Derived(Function):
    """The derivative of `forward` by one of its arguments, as source; derived when it is first needed.

    stem: what the author would call it. arguments: of the derivative, in order; one of them may be "y", the forward
    function's value.
    """

    def __init__(
        self,
        forward: Function,
        by: str,
        name: str,
        stem: str,
        inputs: Sequence[str],
        arguments: Sequence[str],
    ):
        super().__init__(name, scalar=True)
        self.forward, self.by, self.stem = forward, by, stem
        self.inputs, self.arguments = tuple(inputs), tuple(arguments)

    def _read(self) -> None:
        lines, used = _derive(self)
        self._text = "".join(
            (f"def {self.name}({', '.join(self.arguments)}):\n", *(f"    {line}\n" for line in lines))
        )
        self._namespace = {"math": math, **{name: getattr(approximations, name) for name in used}}

    def __call__(self, *values: Any) -> Any:
        """The derivative as plain Python."""
        space = dict(self.namespace)
        exec(compile(self.text, f"<{self.name}>", "exec"), space)
        return space[self.name](*values)


def _derive(wanted: Derived) -> tuple[list[str], set[str]]:
    """The body's lines and the helpers that they use."""
    terms, ties = Terms(), _Ties()
    _Follower(wanted, terms, ties, bounded=False).result()  # finds the tests that abs goes by
    value, slope = _Follower(wanted, terms, ties, bounded=False).result()
    given = {id(value): "y"} if "y" in wanted.arguments and value.kind not in ("const", "name") else {}
    inner = walk(slope, value if given else None) if slope is not None else ()
    stays = {t.value for t in inner if t.kind == "name"} & set(wanted.inputs)
    if stays or not given:
        # y would be read beside the inputs: they give it too, at the price of arithmetic only.
        value, slope = _Follower(wanted, terms, ties, bounded=True).result()
        given = {}
    if slope is None:
        return ["return 0.0"], set()
    terms_used = list(walk(slope, value if given else None))
    seen = {t.function for t in terms_used}
    return body(slope, given, set(wanted.arguments), ranges.total(terms_used)), seen & set(HELPERS.values())


class _Ties:
    """On which side of 0 the author's tests put a 0, by the term tested: abs then has the slope of that side."""

    def __init__(self) -> None:
        self._left: dict[int, set[bool]] = {}

    def note(self, terms: Terms, sign: str, a: Term, b: Term) -> None:
        if sign in _TIE_LEFT:
            left = _TIE_LEFT[sign]
            for term, side in ((terms.sub(a, b), left), (terms.sub(b, a), not left)):
                self._left.setdefault(id(term), set()).add(side)

    def left(self, term: Term) -> bool:
        return self._left.get(id(term)) == {True}


class _Follower:
    """Follows one function's statements with pairs (value, slope)."""

    def __init__(self, wanted: Derived, terms: Terms, ties: _Ties, bounded: bool):
        self.wanted, self.T, self.ties, self.bounded = wanted, terms, ties, bounded
        self.where: list[Function] = []

    def result(self) -> Pair:
        definition = self.wanted.forward.definition
        names = [a.arg for a in definition.args.args]
        one = self.T.const(1.0)
        return self.function(
            self.wanted.forward, [(self.T.name(n), one if n == self.wanted.by else None) for n in names]
        )

    def fail(self, node: ast.AST, what: str) -> PluginError:
        function = self.where[-1]
        arguments = ", ".join(self.wanted.arguments)
        line = function.line + getattr(node, "lineno", 1) - 1
        return PluginError(
            f"{function.file}:{line}: the derivative cannot be derived: {what}; "
            f"write {self.wanted.stem}({arguments}) yourself"
        )

    def function(self, function: Function, values: Sequence[Pair]) -> Pair:
        self.where.append(function)
        definition = function.definition
        names = [a.arg for a in definition.args.args]
        if len(self.where) > _DEEPEST:
            raise self.fail(definition, f"{function.name} calls itself")
        if len(names) != len(values) or definition.args.vararg or definition.args.kwonlyargs:
            raise self.fail(definition, f"{function.name} does not take {len(values)} arguments by position")
        found = self.block(definition.body, dict(zip(names, values, strict=True)))
        if found is None:
            raise self.fail(definition, f"{function.name} can end without a return")
        self.where.pop()
        return found

    # -- statements -------------------------------------------------------------------------------------------

    def block(self, statements: Sequence[ast.stmt], space: dict[str, Pair]) -> Pair | None:
        """Follows statements; the value returned, or None when the end is reached."""
        for k, statement in enumerate(statements):
            if isinstance(statement, ast.Return) and statement.value is not None:
                return self.value(statement.value, space)
            if isinstance(statement, ast.If):
                test = self.test(statement.test, space)
                rest = statements[k + 1 :]
                if any(
                    isinstance(n, ast.Return)
                    for s in (*statement.body, *statement.orelse)
                    for n in ast.walk(s)
                ):
                    a = self.block([*statement.body, *rest], dict(space))
                    b = self.block([*statement.orelse, *rest], dict(space))
                    return None if a is None or b is None else self.choose(test, a, b)
                then, otherwise = dict(space), dict(space)
                self.block(statement.body, then)
                self.block(statement.orelse, otherwise)
                for name in then.keys() & otherwise.keys():
                    space[name] = self.choose(test, then[name], otherwise[name])
            elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
                self.assign(statement, space)
            elif not isinstance(statement, ast.Pass) and not (
                isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            ):
                kind = {ast.For: "a loop (for)", ast.While: "a loop (while)"}.get(type(statement))
                raise self.fail(
                    statement, kind or f"the statement `{ast.unparse(statement).splitlines()[0]}`"
                )
        return None

    def assign(self, statement: ast.Assign | ast.AnnAssign | ast.AugAssign, space: dict[str, Pair]) -> None:
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        value = statement.value
        for target in targets:
            pairs = [(target, value)]
            if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
                pairs = list(zip(target.elts, value.elts, strict=True))
            found: dict[str, Pair] = {}
            for left, right in pairs:
                if not isinstance(left, ast.Name) or right is None:
                    raise self.fail(statement, f"the assignment `{ast.unparse(statement)}`")
                if isinstance(statement, ast.AugAssign):
                    name = ast.copy_location(ast.Name(left.id, ast.Load()), left)
                    right = ast.copy_location(ast.BinOp(name, statement.op, right), statement)
                found[left.id] = self.value(right, space)
            space |= found

    # -- expressions ------------------------------------------------------------------------------------------

    def choose(self, test: Term, a: Pair, b: Pair) -> Pair:
        return self.T.select(test, a[0], b[0]), rules.choose(self.T, test, a[1], b[1])

    def test(self, node: ast.expr, space: Mapping[str, Pair]) -> Term:
        return self.value(node, space)[0]

    def value(self, node: ast.expr, space: Mapping[str, Pair]) -> Pair:
        T = self.T
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
            return T.const(node.value if isinstance(node.value, bool) else float(node.value)), None
        if isinstance(node, ast.Name):
            if node.id in space:
                return space[node.id]
            return self.number(node, node.id, self.where[-1].namespace.get(node.id))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self.where[-1].namespace.get(node.value.id)
            return self.number(node, ast.unparse(node), getattr(module, node.attr, None))
        if isinstance(node, ast.UnaryOp):
            a, da = self.value(node.operand, space)
            if isinstance(node.op, ast.UAdd):
                return a, da
            if isinstance(node.op, ast.Not):
                return T("not", a), None
            if isinstance(node.op, ast.USub):
                return T.neg(a), rules.minus(T, None, da)
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
            kind = _OPERATORS[type(node.op)]
            (a, da), (b, db) = self.value(node.left, space), self.value(node.right, space)
            y = T(kind, a, b)
            return y, rules.operation(T, kind, y, a, da, b, db)
        if isinstance(node, ast.IfExp):
            test = self.test(node.test, space)
            return self.choose(test, self.value(node.body, space), self.value(node.orelse, space))
        if isinstance(node, ast.BoolOp):
            values = [self.test(v, space) for v in node.values]
            kind = "and" if isinstance(node.op, ast.And) else "or"
            for v in values[1:]:
                values[0] = T(kind, values[0], v)
            return values[0], None
        if isinstance(node, ast.Compare) and all(type(o) in _SIGNS for o in node.ops):
            return self.comparison(node, space), None
        if isinstance(node, ast.Call) and not node.keywords:
            return self.call(node, space)
        raise self.fail(node, f"`{ast.unparse(node)}`")

    def number(self, node: ast.expr, text: str, found: Any) -> Pair:
        if isinstance(found, bool | int | float) or type(found).__module__ == "numpy":
            return self.T.const(float(found)), None
        raise self.fail(node, f"{text!r} is neither a number nor set before")

    def comparison(self, node: ast.Compare, space: Mapping[str, Pair]) -> Term:
        terms = [self.test(v, space) for v in (node.left, *node.comparators)]
        found: Term | None = None
        for sign, a, b in zip(node.ops, terms, terms[1:], strict=False):
            one = self.compare(_SIGNS[type(sign)], a, b)
            found = one if found is None else self.T("and", found, one)
        assert found is not None
        return found

    def compare(self, sign: str, a: Term, b: Term) -> Term:
        self.ties.note(self.T, sign, a, b)
        return self.T.compare(sign, a, b)

    def call(self, node: ast.Call, space: Mapping[str, Pair]) -> Pair:
        text = ast.unparse(node.func)
        values = [self.value(a, space) for a in node.args]
        callee = self.callee(node, text)
        if isinstance(callee, Function):
            return self.function(callee, values)
        name = rules.OTHER_NAMES.get(callee.rpartition(".")[2], callee.rpartition(".")[2])
        T, terms = self.T, [value for value, _ in values]
        if name == "float" and len(values) == 1:
            return values[0]
        if name in ("min", "max") and len(values) > 1:
            # As Python does: the first stays unless a later one is beyond it.
            best = values[0]
            for other in values[1:]:
                best = self.choose(
                    self.compare("<" if name == "min" else ">", other[0], best[0]), other, best
                )
            return best
        if self.bounded and name in ("exp", "sinh", "cosh") and len(values) == 1:
            terms = [self.bound(terms[0], both=name != "exp")]
        y = T.call(callee, *terms)
        if name == "is_single" or name in rules.STEPS:
            return y, None
        if name == "abs" and len(values) == 1:
            u, du = values[0]
            zero = T.const(0.0)
            if self.ties.left(u):
                return y, du and T.select(T.compare(">", u, zero), du, T.neg(du))
            return y, du and T.select(T.compare("<", u, zero), T.neg(du), du)
        try:
            if len(values) == 1 and name in rules.FUNCTIONS:
                du = values[0][1]
                return y, None if du is None else T.mul(rules.FUNCTIONS[name](T, y, terms[0]), du)
            if len(values) == 2:
                (a, da), (b, db) = values
                return y, None if da is None and db is None else rules.pair(T, name, y, a, da, b, db)
        except KeyError:
            pass
        raise self.fail(node, f"no derivative of {text} is known")

    def callee(self, node: ast.Call, text: str) -> Any:
        """A helper's source, or the text to call: "math.exp", "abs", "log1p_unit"."""
        root, _, attribute = text.partition(".")
        found = self.where[-1].namespace.get(root)
        if root == "real" or (found is None and text in ("abs", "min", "max", "float", "round")):
            return text
        if id(found) in HELPERS:
            return HELPERS[id(found)]
        if isinstance(found, types.ModuleType) and found.__name__ in ("math", "numpy") and attribute:
            known = rules.OTHER_NAMES.get(attribute, attribute)
            return attribute if known in ("min", "max", "abs") else f"math.{known}"
        if isinstance(found, Function | types.FunctionType):
            return as_function(found)
        raise self.fail(node, f"no derivative of {text} is known")

    def bound(self, u: Term, both: bool) -> Term:
        """u held where exp of it is finite; where u is known to be there, u itself."""
        T, (single, double) = self.T, ranges.LIMITS
        if ranges.at_most(u, single) and not both:
            return u
        limit = T.select(T.call("is_single"), T.const(single), T.const(double))
        low = T.select(T.call("is_single"), T.const(-single), T.const(-double))
        u = T.select(T.compare(">", u, limit), limit, u)
        return T.select(T.compare("<", u, low), low, u) if both else u
