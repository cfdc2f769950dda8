"""A part of a flat array at no cost: what x[lo:hi] gives for 0 <= lo <= hi <= x.size.

Numba's slice looks at the signs of both ends, and in kernels that make arrays it counts a reference, which every thread
changes in one place; in short loops that takes longer than the loop, and most of the time that a kernel of a few lines
needs to compile.

    window(x, lo, hi)                   x: one-dimensional and contiguous; the memory stays its owner's
"""

from typing import Any

import numpy as np
from numba.core import types

from normcore.kernels.lowered import Lowered, number


def _emit(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    from numba.np.arrayobj import make_array, populate_array  # slow to import, and only compiling needs it

    x, lo, hi = values
    whole = make_array(signature.args[0])(context, builder, value=x)
    part = make_array(signature.return_type)(context, builder)
    size = number(signature.args[0].dtype.bitwidth // 8)
    populate_array(
        part,
        data=builder.gep(whole.data, [lo], inbounds=True),
        shape=[builder.sub(hi, lo)],
        strides=[size],
        itemsize=size,
        meminfo=None,
    )
    return part._getvalue()


def _type(x: Any, lo: Any, hi: Any) -> Any:
    return types.Array(x.dtype, 1, "C", readonly=not x.mutable, aligned=x.aligned)


def _python(x: np.ndarray, lo: int, hi: int) -> np.ndarray:
    return x[lo:hi]


window = Lowered("window", "aii", _python, _emit, returns=_type)
