"""The source of a function that becomes part of kernels: read from its Python file, or text made by a generator."""

import ast
import linecache
import textwrap
import types
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import Any

from normcore.errors import PluginError

CASTS = ("real", "wide", "np.float32", "np.float64")  # a literal inside keeps the type that it is given there


class Function:
    """The source of one function: of a Python function, read at the first need, or text made by a generator.

    name: in the generated module, unless it is taken there. text: from `def` on, without decorators. namespace:
    where its free names live. Flags: reassociate (a sum whose order the compiler may choose), typed (literals
    carry their types already), scalar (elementwise arithmetic only: whole-number literals are retyped as well),
    force (inlined whatever its size: a call left in a loop keeps it from vectorizing), apart (not inlined because its
    caller is: a long loop of its own keeps its constants in registers).
    """

    def __init__(
        self,
        name: str,
        text: str | None = None,
        namespace: Mapping[str, Any] | None = None,
        python: Callable[..., Any] | None = None,
        *,
        reassociate: bool = False,
        typed: bool = False,
        scalar: bool = False,
        force: bool = False,
        apart: bool = False,
    ):
        self.name, self.python = name, python
        self._text, self._namespace, self._line = text, namespace or {}, 0
        self.reassociate, self.typed, self.scalar, self.force = reassociate, typed, scalar, force
        self.apart = apart
        self.file = python.__code__.co_filename if python is not None else ""

    @property
    def text(self) -> str:
        if self._text is None:
            self._read()
        assert self._text is not None
        return self._text

    @cached_property
    def definition(self) -> ast.FunctionDef:
        """The text's syntax tree; one helper stands in many kernels."""
        definition = ast.parse(self.text).body[0]
        assert isinstance(definition, ast.FunctionDef)
        return definition

    @cached_property
    def places(self) -> tuple[ast.expr, ...]:
        """What a Writer may have to change, outer expressions first: literals to retype, dotted and free names.

        One pass, breadth first: it is most of what a start with every kernel in the cache has to compute.
        """
        found: list[ast.expr] = []
        arguments = self.definition.args
        local = {a.arg for a in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
        queue: list[tuple[ast.AST, bool]] = [(self.definition, not self.typed)]  # and: retype literals inside
        for node, literals in queue:
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Load):
                    found.append(node)
                elif isinstance(node.ctx, ast.Store):
                    local.add(node.id)
            elif isinstance(node, ast.Constant):
                if literals and (type(node.value) is float or (self.scalar and type(node.value) is int)):
                    found.append(node)
            elif isinstance(node, ast.Attribute) and self._module_of(node):
                found.append(node)
            else:
                typed = _typed_inside(node)
                for name in node._fields:
                    child = getattr(node, name, None)
                    for one in child if type(child) is list else (child,):
                        if isinstance(one, ast.AST) and one._fields:  # not an operator, nor a context
                            queue.append((one, literals and one not in typed))
        return tuple(node for node in found if _root(node) not in local)

    def _module_of(self, node: ast.Attribute) -> bool:
        """Whether it is a dotted name whose first part is a module, unless the function binds that itself."""
        return isinstance(self.namespace.get(_root(node)), types.ModuleType)

    @property
    def namespace(self) -> Mapping[str, Any]:
        if self._text is None:
            self._read()
        return self._namespace

    @property
    def line(self) -> int:
        """The line of `def` in its file; 0 for generated text."""
        if self._text is None:
            self._read()
        return self._line

    def _read(self) -> None:
        """Raises PluginError when Python cannot show the source (typed at a prompt, for example)."""
        python = self.python
        assert python is not None
        lines, self._line = _definition_lines(python)
        text = textwrap.dedent("".join(lines))
        if not text.startswith("def "):
            raise PluginError(
                f"{python!r} at line {self._line} must be written with `def`, not as a lambda or a class"
            )
        self._text = text.replace(f"def {python.__code__.co_name}(", f"def {self.name}(", 1)
        self._namespace = python.__globals__  # the live one: a helper may stand below the kernel that uses it
        if python.__closure__:
            cells = zip(python.__code__.co_freevars, python.__closure__, strict=True)
            self._namespace = ChainMap({name: cell.cell_contents for name, cell in cells}, python.__globals__)

    def __call__(self, *args: Any) -> Any:
        if self.python is None:
            raise TypeError(f"{self.name} has no Python body; it lives in generated kernels only")
        return self.python(*args)


class Inline(Function):
    """A helper made by @inline: callable from Python, compiled into each kernel that reaches it."""

    def __init__(
        self,
        python: Callable[..., Any],
        *,
        reassociate: bool = False,
        typed: bool = False,
        force: bool = False,
    ):
        super().__init__(python.__name__, python=python, reassociate=reassociate, typed=typed, force=force)
        self.__doc__ = python.__doc__
        self.__wrapped__ = python


def read(
    python: Callable[..., Any],
    name: str = "",
    *,
    typed: bool = False,
    scalar: bool = False,
    force: bool = False,
) -> Function:
    """The source of a Python function, under its own or another name; read when it is needed."""
    return Function(name or python.__name__, python=python, typed=typed, scalar=scalar, force=force)


def as_function(value: Any, typed: bool = False) -> Function:
    """A helper as source; the same Python function gives the same object, so that it is written once a kernel."""
    return value if isinstance(value, Function) else _read_once(value, typed)


@cache
def _read_once(python: Callable[..., Any], typed: bool) -> Function:
    return read(python, typed=typed, force=typed)


def _definition_lines(python: Callable[..., Any]) -> tuple[list[str], int]:
    """The function's lines from `def` on, and the number of the first one.

    inspect finds a function's end by tokenizing, which takes most of the time that a start with every kernel
    in the cache spends on reading; the instructions know it already.
    """
    code = python.__code__
    file = linecache.getlines(code.co_filename, python.__globals__)
    lines = file[code.co_firstlineno - 1 : _last_line(code)]
    if not lines:
        raise PluginError(
            f"the source of {python.__name__!r} cannot be read (no line {code.co_firstlineno} in {code.co_filename}); "
            "kernels are compiled from source, so define the function in a file"
        )
    decorators = next((k for k, line in enumerate(lines) if line.lstrip().startswith("def ")), 0)
    return lines[decorators:], code.co_firstlineno + decorators


def _last_line(code: types.CodeType) -> int:
    inner = [_last_line(c) for c in code.co_consts if isinstance(c, types.CodeType)]
    return max([code.co_firstlineno, *inner, *(end for _, end, _, _ in code.co_positions() if end)])


def dotted_name(node: ast.expr) -> str:
    """The text "np.float32" of such an expression; of any other, nothing."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        base = dotted_name(node.value)
        return f"{base}.{node.attr}" if base else ""
    return ""


def _root(node: ast.expr) -> str:
    return dotted_name(node).split(".")[0]


def _typed_inside(node: ast.AST) -> Sequence[ast.AST]:
    """Its children whose literals stay as they are: of casts, whole powers and subscripts."""
    if isinstance(node, ast.Call) and dotted_name(node.func) in CASTS:
        return [
            a for a in node.args if isinstance(a.operand if isinstance(a, ast.UnaryOp) else a, ast.Constant)
        ]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and _is_whole(node.right):
        return (node.right,)
    return (node.slice,) if isinstance(node, ast.Subscript) else ()


def _is_whole(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)
