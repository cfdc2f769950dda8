"""Telling the compiler that no other array of a loop overlaps this one.

A loop that adds to several lines of scratch is vectorized behind a comparison of each line with every other array,
at each call: with four sums, four inputs and six lines of constants that takes as long as a line of 64 elements.

    total = unaliased(scratch[k])  # the same memory; from here on only read and written through this name

That is for scratch. The compiler may leave out a store whose value is not read again through this name in the same
kernel, so outputs need the other form, of a whole helper:

    @inline(force=True)
    def add_row(x, total):
        nothing_overlaps()  # its first statement: of its arguments
        for i in range(total.size):
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils

from normcore.kernels.lowered import Lowered

_POINTER = ir.IntType(8).as_pointer()


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """A view whose address comes from a call that LLVM takes to return fresh memory, and cannot look into."""
    from numba.np.arrayobj import make_array  # slow to import, and only compiling needs it

    function = builder.module.globals.get("normcore_unaliased")
    if function is None:
        kind = ir.FunctionType(_POINTER, [_POINTER])
        function = ir.Function(builder.module, kind, "normcore_unaliased")
        function.linkage = "linkonce_odr"
        function.return_value.add_attribute("noalias")
        for attribute in ("noinline", "nounwind"):
            function.attributes.add(attribute)
        inside = ir.IRBuilder(function.append_basic_block())
        inside.ret(inside.asm(kind, "", "=r,0", [function.args[0]], False))
    array = make_array(signature.return_type)(context, builder, value=values[0])
    address = builder.call(function, [builder.bitcast(array.data, _POINTER)])
    array.data = builder.bitcast(address, array.data.type)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)  # the memory stays its owner's
    return array._getvalue()


unaliased = Lowered("unaliased", "a", lambda line: line, _emit, returns=lambda line: line)


def _emit_nothing(context: Any, builder: Any, signature: Any, values: Any) -> None:
    """Marks the addresses of the helper's arrays, which Numba names after their place among an array's fields."""
    for argument in builder.function.args:
        if isinstance(argument.type, ir.PointerType) and argument.name.endswith(".4"):
            argument.add_attribute("noalias")


def _nothing() -> None:
    """Plain Python compares no addresses."""


nothing_overlaps = Lowered("nothing_overlaps", "", _nothing, _emit_nothing)
