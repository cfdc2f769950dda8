"""Functions that compiled kernels take as LLVM IR, and helpers to emit it.

Lowered is what tile.py and vector_moves.py make their functions from. Python can call them too, so that kernels
run uncompiled.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer, infer_global
from numba.extending import lower_builtin

I32, I64 = ir.IntType(32), ir.IntType(64)
LINE_BYTES = 64  # of a cache


def host_features() -> dict[str, bool]:
    """What this processor can do, as LLVM names it; empty where LLVM cannot tell."""
    try:
        return dict(llvm.get_host_cpu_features())
    except RuntimeError:
        return {}


@cache
def host_is_zen() -> bool:
    """Whether this is one of AMD's Zen processors, which reads memory in other ways than Intel's: see prefetch.py."""
    return bool(llvm.get_host_cpu_name().startswith("znver"))


class Lowered:
    """A function that compiled kernels inline as LLVM IR and Python runs as it stands.

    kinds: one letter for each argument, a(rray), i(nteger), b(oolean) or v(alue of any type); the last one with a * stands
    for any number of such arguments.
    emit(context, builder, signature, values) writes the code, and gives the value where there is one.
    returns: the value's Numba type from those of the arguments; None where there is no value.
    """

    def __init__(
        self,
        name: str,
        kinds: str,
        python: Callable[..., Any],
        emit: Callable[..., Any],
        returns: Callable[..., Any] | None = None,
    ):
        self.__name__ = name
        self.__module__ = python.__module__  # kernels import it from there
        self.__doc__ = python.__doc__
        self._python = python

        scalars = {"i": types.intp, "b": types.boolean}

        def generic(template: Any, arguments: Any, keywords: Any) -> Any:
            letters = kinds
            if kinds.endswith("*"):
                letters = kinds[:-2].ljust(len(arguments), kinds[-2])
            if len(arguments) != len(letters) or keywords:
                return None
            kind_of_value = types.void if returns is None else returns(*arguments)
            if kind_of_value is None:
                return None
            return kind_of_value(*(scalars.get(kind, argument) for kind, argument in zip(letters, arguments)))

        template = infer(type(f"{name}_template", (AbstractTemplate,), {"key": self, "generic": generic}))
        infer_global(self, types.Function(template))

        def lower(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            value = emit(context, builder, signature, values)
            return context.get_dummy_value() if returns is None else value

        lower_builtin(self, types.VarArg(types.Any))(lower)  # type: ignore[attr-defined]

    def __call__(self, *arguments: Any) -> Any:
        return self._python(*arguments)

    def __repr__(self) -> str:
        return self.__name__


def number(n: int) -> Any:
    return ir.Constant(I64, n)


def element_of(array_type: Any) -> tuple[Any, int]:
    """LLVM type and bytes of an array's elements."""
    size = array_type.dtype.bitwidth // 8
    return (ir.FloatType() if size == 4 else ir.DoubleType()), size


def address_of(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    data = cgutils.create_struct_proxy(array_type)(context, builder, value=array).data
    size = array_type.dtype.bitwidth // 8
    return builder.add(builder.ptrtoint(data, I64), builder.mul(at, number(size)))


def loop(builder: Any, end: Any, step: int) -> Any:
    """A context in which code is emitted for i = 0, step, .. < end; its value is (i, _)."""
    return cgutils.for_range_slice(builder, number(0), end, number(step), intp=I64)


def call_small(builder: Any, name: str, arguments: list[Any], emit: Callable[[Any, Any], None]) -> None:
    """Call a void function of 64-bit integers, emitted once a module and kept small: neither inlined nor unrolled."""
    module = builder.module
    function = module.globals.get(name)
    if function is None:
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * len(arguments)), name)
        function.linkage = "linkonce_odr"
        for attribute in ("noinline", "minsize", "optsize", "nounwind"):
            function.attributes.add(attribute)
        inside = ir.IRBuilder(function.append_basic_block())
        emit(inside, function.args)
        inside.ret_void()
    builder.call(function, arguments)
