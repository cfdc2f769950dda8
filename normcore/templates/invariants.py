"""What a scalar function computes that does not depend on x, taken out of the loop over elements.

Where statistics are numbers the compiler does this. Where each element of a line has its own (normalization_lines.py)
it cannot, and would take the root and the quotient of (x - mean) * (1.0 / math.sqrt(variance + eps)) of every x:

    def normalize(x, mean, invariant_0):  return (x - mean) * invariant_0
    def invariant_0(variance, eps):       return 1.0 / math.sqrt(variance + eps)

Only divisions, powers and calls are taken out, only where they are computed in any case (not from a branch, where they
might be undefined), and each once, however many functions have it.
"""

import ast
from collections.abc import Iterator

from normcore.kernels.function import Function
from normcore.templates.declaration import Scalar

_PURE = (ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Call, ast.Attribute, ast.operator, ast.unaryop)
_STRAIGHT = (ast.Assign, ast.Return, ast.Pass, ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp)
_STRAIGHT += (ast.operator, ast.unaryop, ast.expr_context)  # type: ignore[assignment]
_CHEAP = ("abs", "min", "max", "real", "float")  # calls that are not worth a line of their own


class Invariants:
    """The invariants of one kernel's functions. parts: as functions of statistics and fields, by name."""

    def __init__(self) -> None:
        self.parts: dict[str, Scalar] = {}
        self._names: dict[tuple[object, ...], str] = {}

    def split(self, scalar: Scalar) -> Scalar:
        """The function that takes its invariants as further arguments."""
        definition = scalar.function.definition
        edits: list[tuple[ast.expr | ast.stmt, str]] = []
        stored = [
            n.id for n in ast.walk(definition) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        ]
        found = _Names(set(scalar.arguments), set(stored))
        for statement in definition.body:
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                continue  # a docstring
            if isinstance(statement, ast.Assign):
                target = statement.targets[0]
                once = isinstance(target, ast.Name) and stored.count(target.id) == 1
                if isinstance(target, ast.Name) and once and found.invariant(statement.value):
                    found.statements[target.id] = statement
                    continue
            elif not isinstance(statement, ast.Return):
                break  # what follows may not be computed
            value = statement.value
            edits += [(node, self._part(scalar, node, found)) for node in found.dear(value)] if value else []
        names = list(dict.fromkeys(name for _, name in edits))
        if not edits or definition.args.defaults or set(names) & (set(stored) | set(scalar.arguments)):
            return scalar
        edits += [(s, "pass") for s in found.unused(definition.body, [node for node, _ in edits])]
        last = definition.args.args[-1]
        # A name of its own: its derivatives are other functions than those of the whole one.
        old, name = scalar.function.name, f"{scalar.function.name}_of_line"
        text = _replaced(scalar.function.text, [*edits, (last, _added(last, names))])
        text = text.replace(f"def {old}(", f"def {name}(", 1)
        return Scalar(scalar.name, (*scalar.arguments, *names), _made(scalar.function, name, text))

    def _part(self, scalar: Scalar, node: ast.expr, found: "_Names") -> str:
        before, used = found.needed(node)
        arguments = [a for a in scalar.arguments if a in used]
        lines = [*map(ast.unparse, before), f"return {ast.unparse(node)}"]
        outside = sorted(used - set(arguments) - found.stored)
        namespace = scalar.function.namespace
        key = (tuple(arguments), tuple(lines), tuple((n, id(namespace.get(n))) for n in outside))
        if key not in self._names:
            name = self._names[key] = f"invariant_{len(self.parts)}"
            body = "".join(f"    {line}\n" for line in lines)
            text = f"def {name}({', '.join(arguments)}):\n{body}"
            self.parts[name] = Scalar(name, tuple(arguments), _made(scalar.function, name, text))
        return self._names[key]


def takes_x(scalar: Scalar) -> bool:
    return any(isinstance(n, ast.Name) and n.id == "x" for n in ast.walk(scalar.function.definition))


def slope_of_line(scalar: Scalar) -> Scalar | None:
    """The slope of a function whose graph over x is a straight line, found so from its source; else None."""
    inside = [n for statement in scalar.function.definition.body for n in ast.walk(statement)]
    if not all(isinstance(n, _STRAIGHT) for n in inside):
        return None
    slope = scalar.derivative("x")
    return None if slope is None or takes_x(slope) else slope


def is_x(scalar: Scalar) -> bool:
    """Whether the function gives x itself."""
    last = scalar.function.definition.body[-1]
    return isinstance(last, ast.Return) and isinstance(last.value, ast.Name) and last.value.id == "x"


class _Names:
    """Which names of a function do not depend on x, and by which statements."""

    def __init__(self, arguments: set[str], stored: set[str]):
        self.arguments, self.stored = arguments, stored
        self.statements: dict[str, ast.Assign] = {}

    def invariant(self, node: ast.expr) -> bool:
        def fixed(n: ast.AST) -> bool:
            if not isinstance(n, ast.Name):
                return isinstance(n, (*_PURE, ast.expr_context))
            return n.id in self.statements or (n.id not in self.stored and n.id not in ("x", "wide"))

        return all(map(fixed, ast.walk(node)))

    def dear(self, node: ast.expr) -> Iterator[ast.expr]:
        """The largest invariant expressions inside, of those that are always computed and cost more than a load."""
        if self.invariant(node) and not isinstance(node, ast.UnaryOp):
            statements, names = self.needed(node)
            inside = [n for part in (node, *(s.value for s in statements)) for n in ast.walk(part)]
            if names & self.arguments and any(map(_dear, inside)):
                yield node
                return
        if isinstance(node, ast.IfExp | ast.BoolOp):
            children: list[ast.AST] = [node.test if isinstance(node, ast.IfExp) else node.values[0]]
        elif isinstance(node, ast.Call):
            children = [*node.args]
        else:
            children = [] if isinstance(node, ast.Attribute) else list(ast.iter_child_nodes(node))
        for child in children:
            if isinstance(child, ast.expr):
                yield from self.dear(child)

    def unused(self, body: list[ast.stmt], taken: list[ast.AST]) -> list[ast.stmt]:
        """The invariant assignments that nothing reads once the expressions `taken` are."""
        read: set[str] = set()
        todo: list[ast.AST] = [s for s in body if s not in self.statements.values()]
        while todo:
            node = todo.pop()
            if isinstance(node, ast.Name) and node.id in self.statements and node.id not in read:
                read.add(node.id)
                todo.append(self.statements[node.id].value)
            todo += [child for child in ast.iter_child_nodes(node) if child not in taken]
        return [statement for name, statement in self.statements.items() if name not in read]

    def needed(self, node: ast.AST) -> tuple[list[ast.Assign], set[str]]:
        """The assignments that an expression needs, in order, and all names in it and in them."""
        names, todo = set[str](), [node]
        while todo:
            for n in ast.walk(todo.pop()):
                if isinstance(n, ast.Name) and n.id not in names:
                    names.add(n.id)
                    todo += [self.statements[n.id].value] if n.id in self.statements else []
        return [s for name, s in self.statements.items() if name in names], names


def _dear(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return not (isinstance(node.func, ast.Name) and node.func.id in _CHEAP)
    if not isinstance(node, ast.BinOp):
        return False
    if isinstance(node.op, ast.Pow):
        return not (isinstance(node.right, ast.Constant) and isinstance(node.right.value, int))
    return isinstance(node.op, ast.Div | ast.Mod | ast.FloorDiv)


def _added(last: ast.arg, names: list[str]) -> str:
    return ", ".join([ast.unparse(last), *names])


def _replaced(text: str, edits: list[tuple[ast.expr | ast.stmt | ast.arg, str]]) -> str:
    """The text with nodes replaced; comments and everything else stay."""
    encoded = text.encode()  # ast counts columns in UTF-8 bytes
    starts = [0]
    for line in encoded.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node, new in sorted(edits, key=lambda e: (e[0].lineno, e[0].col_offset), reverse=True):
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        encoded = encoded[:begin] + new.encode() + encoded[end:]
    return encoded.decode()


def _made(of: Function, name: str, text: str) -> Function:
    made = Function(name, text, of.namespace, scalar=True, force=True)
    made.file, made._line = of.file, of.line if of.file else 0
    return made
