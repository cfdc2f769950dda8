"""From Python functions to one self-contained module of source text per kernel.

A kernel and everything it reaches (helpers, constants, scalar functions of fused ops) are written into one text.
The text is the kernel's identity: its hash names the module file, so Numba's on-disk cache can never serve a
kernel that was compiled from other sources. Two changes are made to the author's text on the way, both at exact
positions so that comments stay: float literals are retyped to the kernel's dtype (`0.5` becomes `real(0.5)`;
a bare literal would turn float32 arithmetic into double), and `math.exp` and its kin are bound to the
vectorizing polynomials on the CPU.
"""

import ast
import builtins
import hashlib
import math
import pathlib
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from normcore.errors import PluginError
from normcore.kernels.function import Function, as_function, dotted_name
from normcore.kernels.packs import Simulated

HELPER_FLAGS = ("contract",)
SUM_FLAGS = ("contract", "nsz", "reassoc")
# How a CPU kernel says that it makes no arrays, so that Numba counts no references to any, and that it does.
UNCOUNTED, COUNTED = "_nrt=False, ", "_nrt=True, "


@dataclass
class Writer:
    """Collects one kernel's functions and constants and writes the module's text."""

    dtype: str
    target: str  # "cpu" or "cuda"
    math_functions: Mapping[str, Any] = field(default_factory=dict)  # math name -> helper, on the CPU
    constants: Mapping[str, Any] = field(
        default_factory=dict
    )  # numbers and functions in place of module-level names
    placeholders: Mapping[str, Function] = field(default_factory=dict)  # epilogue and the like
    parallel: bool = True
    lanes: int = 0  # what LANES stands for, in CUDA kernels

    def __post_init__(self) -> None:
        self._names: dict[int, str] = {}
        self._taken: dict[str, int] = {}
        self._constants: dict[str, str] = {}
        self._imports: dict[str, str] = {}
        self._functions: list[str] = []
        self._kept: list[Any] = []  # ids stay unique only while the objects live

    def write(self, entry: Function) -> str:
        name = self._emit(entry, entry=True)
        head = [
            f'"""Kernel {name} for {self.target}, {self.dtype}. Generated from the sources named below; do not edit."""',
            "",
            "import math",
            "",
            "import numpy as np",
        ]
        if self.target == "cpu":
            head.append("from numba import njit, prange" if self.parallel else "from numba import njit")
        else:
            head.append("from numba import cuda as cu")
        head += sorted(self._imports.values())
        head += ["", f"real = np.{self.dtype}", "wide = np.float64"]
        if self.target == "cpu" and not self.parallel:
            head.append("prange = range")
        head += [f"{key} = {value}" for key, value in self._constants.items()]
        return "\n".join(head) + "\n\n\n" + "\n\n".join(self._functions) + f"\n\nkernel = {name}\n"

    # -- names ------------------------------------------------------------------------------------------------

    def _claim(self, name: str, owner: object) -> str:
        if id(owner) in self._names:
            return self._names[id(owner)]
        unique, count = name, 1
        while unique in self._taken and self._taken[unique] != id(owner):
            count += 1
            unique = f"{name}_{count}"
        self._taken[unique] = id(owner)
        self._names[id(owner)] = unique
        self._kept.append(owner)
        return unique

    def _constant(self, name: str, value: Any) -> str:
        text = _literal(value)
        unique, count = name, 1
        while self._constants.get(unique, text) != text or (
            unique in self._taken and unique not in self._constants
        ):
            count += 1
            unique = f"{name}_{count}"
        self._constants[unique] = text
        self._taken.setdefault(unique, -1)
        return unique

    # -- functions --------------------------------------------------------------------------------------------

    def _emit(self, function: Function, entry: bool = False) -> str:
        if id(function) in self._names:
            return self._names[id(function)]
        name = self._claim(function.name, function)
        definition = function.definition
        edits: list[tuple[int, int, int, str]] = []
        if name != function.name:
            column = definition.col_offset + len("def ")
            edits.append((definition.lineno, column, column + len(function.name), name))
        for node in function.places:
            self._edit(node, function, edits)
        body = _apply(function.text, edits)
        self._functions.append(f"{self._origin(function)}{self._decorator(function, entry)}\n{body}")
        return name

    def _edit(self, node: ast.expr, function: Function, edits: list[tuple[int, int, int, str]]) -> None:
        def replace(new: str) -> None:
            assert node.end_col_offset is not None
            if node.lineno != node.end_lineno:
                raise PluginError(
                    f"{function.file}:{function.line}: a dotted name is split over lines; join it"
                )
            edits.append((node.lineno, node.col_offset, node.end_col_offset, new))

        if isinstance(node, ast.Constant):
            replace(f"real({node.value!r})")
        elif isinstance(node, ast.Attribute):
            dotted = dotted_name(node)
            root, attribute = dotted.split(".", 1)
            owner = function.namespace[root]
            if owner is not math:
                self._module(root, owner, function)
            elif not callable(getattr(math, attribute, None)):
                replace(f"real({dotted})")
            elif attribute in self.math_functions:
                replace(self._emit(as_function(self.math_functions[attribute], typed=True)))
        elif isinstance(node, ast.Name):
            new = self._resolve(node.id, function)
            if new != node.id:
                replace(new)

    def _resolve(self, name: str, function: Function) -> str:
        if name in self.constants:
            value = self.constants[name]
            return self._emit(value) if isinstance(value, Function) else self._constant(name, value)
        if name in self.placeholders:
            return self._emit(self.placeholders[name])
        if name in ("real", "wide", "prange", "cu"):
            return name
        if name == "LANES" and self.lanes:
            return self._constant(name, self.lanes)
        if name not in function.namespace:
            if hasattr(builtins, name):
                return name
            raise PluginError(
                f"{function.file}:{function.line}: {function.name} uses {name!r}, which is not defined there"
            )
        value = function.namespace[name]
        if isinstance(value, Simulated):
            value = value.here()
        if isinstance(value, types.ModuleType):
            self._module(name, value, function)
            return name
        if isinstance(value, Function) or (
            isinstance(value, types.FunctionType) and not hasattr(value, "__wrapped__")
        ):
            return self._emit(as_function(value, typed=function.typed))
        if _is_constant(value):
            return self._constant(name, value)
        if getattr(builtins, name, None) is value:
            return name
        return self._import(name, value, function)

    def _module(self, name: str, module: types.ModuleType, function: Function) -> None:
        if module.__name__ not in ("numpy", "math", "numba.cuda") or name not in ("np", "math", "cu"):
            raise PluginError(
                f"{function.file}:{function.line}: kernel code may use np, math and cu (numba.cuda), not the module {name!r}; "
                "import the function itself"
            )

    def _import(self, name: str, value: Any, function: Function) -> str:
        """Objects that have no portable text (intrinsics) are imported; their file's hash enters the text."""
        module = sys.modules.get(getattr(value, "__module__", None) or "")
        path = getattr(module, "__file__", None)
        found = (
            name
            if module is not None and getattr(module, name, None) is value
            else getattr(value, "__name__", "")
        )
        if module is None or path is None or getattr(module, found, None) is not value:
            raise PluginError(
                f"{function.file}:{function.line}: {function.name} uses {name!r} ({type(value).__name__}), which is neither a "
                "number, a function nor an object importable from its module; pass it as an argument"
            )
        digest = _digest(module)
        unique = self._claim(name, value)
        alias = "" if unique == found else f" as {unique}"
        self._imports[unique] = f"from {module.__name__} import {found}{alias}  # {digest}"
        return unique

    def _decorator(self, function: Function, entry: bool) -> str:
        flags = SUM_FLAGS if function.reassociate else HELPER_FLAGS
        if self.target == "cuda":
            return "@cu.jit" if entry else "@cu.jit(device=True)"
        shared = f'{UNCOUNTED}error_model="numpy", fastmath={{{", ".join(map(repr, flags))}}}'
        if entry:
            # Numba warns where there is nothing to spread.
            parallel = self.parallel and "prange" in function.text
            return f"@njit(parallel={parallel}, cache=True, nogil=True, {shared})"
        # Nobody calls a helper from Python: without its wrappers it compiles a fifth faster.
        shared = f"no_cpython_wrapper=True, no_cfunc_wrapper=True, {shared}"
        force = function.force or function.scalar
        if force or function.apart:  # unless told otherwise it is inlined into what is inlined
            shared = f"forceinline={force}, {shared}"
        return f"@njit({shared})"

    def _origin(self, function: Function) -> str:
        return f"# {pathlib.Path(function.file).name}:{function.line}\n" if function.file else ""


@cache
def _digest(module: types.ModuleType) -> str:
    """Of a module's file and of the files of its own package that it uses, however deep."""
    package = module.__name__.split(".")[0]
    todo, seen = [module], {module.__name__: module}
    while todo:
        for value in vars(todo.pop()).values():
            is_module = isinstance(value, types.ModuleType)
            name = str(value.__name__ if is_module else getattr(value, "__module__", ""))
            used = sys.modules.get(name)
            if name in seen or name.split(".")[0] != package or not getattr(used, "__file__", None):
                continue
            assert used is not None
            seen[name] = used
            todo.append(used)
    total = hashlib.sha256()
    for name in sorted(seen):
        total.update(pathlib.Path(str(seen[name].__file__)).read_bytes())
    return total.hexdigest()[:16]


def _apply(text: str, edits: list[tuple[int, int, int, str]]) -> str:
    lines = [line.encode() for line in text.splitlines()]  # ast counts columns in UTF-8 bytes
    for row, begin, end, new in sorted(set(edits), reverse=True):
        line = lines[row - 1]
        lines[row - 1] = line[:begin] + new.encode() + line[end:]
    return b"\n".join(lines).decode() + "\n"


def _is_constant(value: Any) -> bool:
    import numpy as np

    if isinstance(value, tuple):
        return all(_is_constant(v) for v in value)
    return isinstance(value, bool | int | float | np.generic) or (
        isinstance(value, type) and issubclass(value, np.generic)
    )


def _literal(value: Any) -> str:
    import numpy as np

    if isinstance(value, type) and issubclass(value, np.generic):
        return f"np.{value.__name__}"
    if isinstance(value, np.generic):
        return f"np.{type(value).__name__}({_literal(value.item())})"
    if isinstance(value, tuple):
        return "(" + "".join(_literal(v) + ", " for v in value) + ")"
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    return repr(value)
