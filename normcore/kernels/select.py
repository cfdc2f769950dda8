"""A choice between two values that stays one, whatever is done with it.

    y[i] = select(better, x[i], y[i])

LLVM turns `y[i] = x[i] if better else y[i]` into a store that is left out where nothing changes. In vectors that is a masked
store: good with 512 bits, one by one for bytes with 256, and a slow one on AMD's processors even for floats. With select
y[i] is always written: poolings of whole maps and maxout became 3 to 4 times as fast on a Zen 3. Both values must be of one type.
"""

from typing import Any

from llvmlite import ir

from normcore.kernels.lowered import Lowered


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    """Frozen, the second value is not seen to be what lies there already: else the code generator masks the store, too."""
    condition, chosen, otherwise = values
    frozen = ir.Instruction(builder.block, otherwise.type, "freeze", [otherwise])
    builder._insert(frozen)
    return builder.select(condition, chosen, frozen)


def _python(condition, chosen, otherwise):  # type: ignore[no-untyped-def]
    return chosen if condition else otherwise


def _type(condition: Any, chosen: Any, otherwise: Any) -> Any:
    return chosen if chosen == otherwise else None


select = Lowered("select", "bvv", _python, _emit, returns=_type)
