"""The functions of packs.py as LLVM IR for numba-cuda. Imported only where numba-cuda is installed.

A pack is one load or store of four 32-bit words (two 64-bit ones for float64) with align 16, which becomes
ld.global.v4 and st.global.v4. Halves of a word are converted in registers: float16 by the hardware's cvt, bfloat16
by shifts, for it is the upper half of a float32.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.cuda.extending import intrinsic

I1, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))
SINGLE, HALF = ir.FloatType(), ir.HalfType()


def _real(array: Any) -> Any:
    """What the elements of an array are in arithmetic."""
    return types.float64 if array.dtype == types.float64 else types.float32


def _lanes(array: Any) -> int:
    return 128 // int(array.dtype.bitwidth)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any, target: Any) -> Any:
    """A pointer to the element at `index`, as a pointer to `target`."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), target.as_pointer())


def _widened(builder: Any, kind: Any, bits: Any) -> Any:
    """float32 from 16 bits."""
    if kind.dtype == types.float16:
        return builder.fpext(builder.bitcast(bits, HALF), SINGLE)
    return builder.bitcast(builder.shl(builder.zext(bits, I32), I32(16)), SINGLE)


def _narrowed(builder: Any, kind: Any, value: Any) -> Any:
    """16 bits from float32, rounded to the nearest, ties to even."""
    if kind.dtype == types.float16:
        return builder.bitcast(builder.fptrunc(value, HALF), I16)
    bits = builder.bitcast(value, I32)
    odd = builder.and_(builder.lshr(bits, I32(16)), I32(1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, I32(0x7FFF))), I32(16))
    quiet = builder.or_(builder.lshr(bits, I32(16)), I32(0x40))  # rounding could turn a NaN into an infinity
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(is_nan, quiet, rounded), I16)


def _words(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """16 bytes in one load, as the values of their elements in arithmetic."""
    narrow = kind.dtype.bitwidth == 16
    word = I32 if narrow else context.get_value_type(kind.dtype)
    count = 4 if narrow else _lanes(kind)
    vector = ir.VectorType(word, count)
    loaded = builder.load(_address(context, builder, kind, array, index, vector), align=16)
    words = [builder.extract_element(loaded, I32(k)) for k in range(count)]
    if narrow:
        halves = [h for w in words for h in (w, builder.lshr(w, I32(16)))]  # the lower one comes first
        words = [_widened(builder, kind, builder.trunc(h, I16)) for h in halves]
    return words


def _put(context: Any, builder: Any, kind: Any, array: Any, index: Any, words: Any) -> None:
    """The other way, in one store."""
    if kind.dtype.bitwidth == 16:
        halves = [builder.zext(_narrowed(builder, kind, w), I32) for w in words]
        words = [builder.or_(low, builder.shl(high, I32(16))) for low, high in zip(halves[::2], halves[1::2])]
    vector = ir.VectorType(words[0].type, len(words))
    value = ir.Constant(vector, ir.Undefined)
    for k, word in enumerate(words):
        value = builder.insert_element(value, word, I32(k))
    builder.store(value, _address(context, builder, kind, array, index, vector), align=16)


def _local(context: Any, builder: Any, kind: Any, array: Any) -> list[Any]:
    """Pointers to the elements of a local array, as many as a pack has; they become registers."""
    data = context.make_array(kind)(context, builder, array).data
    return [builder.gep(data, [I64(k)]) for k in range(8)]


@intrinsic
def aligned(typingctx, array, i):
    def codegen(context, builder, signature, arguments):
        at = builder.ptrtoint(_address(context, builder, signature.args[0], *arguments, I16), I64)
        return builder.icmp_unsigned("==", builder.and_(at, I64(15)), I64(0))

    return types.boolean(array, types.int64), codegen


@intrinsic
def load_one(typingctx, array, i):
    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        if kind.dtype.bitwidth == 16:
            return _widened(builder, kind, builder.load(_address(context, builder, kind, *arguments, I16)))
        element = context.get_value_type(kind.dtype)
        return builder.load(_address(context, builder, kind, *arguments, element))

    return _real(array)(array, types.int64), codegen


@intrinsic
def store_one(typingctx, array, i, value):
    def codegen(context, builder, signature, arguments):
        kind, value = signature.args[0], arguments[2]
        if kind.dtype.bitwidth == 16:
            value = _narrowed(builder, kind, value)
        builder.store(value, _address(context, builder, kind, *arguments[:2], value.type))
        return context.get_dummy_value()

    return types.void(array, types.int64, _real(array)), codegen


@intrinsic
def load_pack(typingctx, array, i):
    def codegen(context, builder, signature, arguments):
        words = _words(context, builder, signature.args[0], *arguments)
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(_real(array), _lanes(array))(array, types.int64), codegen


@intrinsic
def store_pack(typingctx, array, i, values):
    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        words = [builder.extract_value(arguments[2], k) for k in range(_lanes(kind))]
        _put(context, builder, kind, *arguments[:2], words)
        return context.get_dummy_value()

    values = types.UniTuple(_real(array), _lanes(array))
    return types.void(array, types.int64, values), codegen


@intrinsic
def read_pack(typingctx, array, i, into):
    def codegen(context, builder, signature, arguments):
        words = _words(context, builder, signature.args[0], *arguments[:2])
        for word, place in zip(words, _local(context, builder, signature.args[2], arguments[2])):
            builder.store(word, place)
        return context.get_dummy_value()

    return types.void(array, types.int64, into), codegen


@intrinsic
def write_pack(typingctx, array, i, values):
    def codegen(context, builder, signature, arguments):
        kind = signature.args[0]
        places = _local(context, builder, signature.args[2], arguments[2])[: _lanes(kind)]
        _put(context, builder, kind, *arguments[:2], [builder.load(place) for place in places])
        return context.get_dummy_value()

    return types.void(array, types.int64, values), codegen
