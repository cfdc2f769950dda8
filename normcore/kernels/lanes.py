"""Sixteen bytes of a flat array in one thread's registers: LANES elements, loaded and stored at once.

A kernel takes a stretch lo..hi of an array (a plane, a row) by slots. A slot is LANES neighbouring elements from a
multiple of 16 bytes on, so the first and the last one may stick out of the stretch:

    v = cu.local.array(LANES, real)
    i = slot_at(lo, slot)
    take(x, i, lo, hi, v)
    for j in range(LANES):
        v[j] = ...                  # an element of the stretch if inside(i + j, lo, hi), else anything
    give(y, i, lo, hi, v)

A slot that is whole and aligned is one load or store, any other goes element by element. Arrays hold float32,
float64, float16 or bfloat16 bits (packs.py); v is of the kernel's dtype. Loops over LANES are unrolled and local
arrays become registers (tests/cuda/test_ptx.py looks at that).
"""

from normcore.kernels import LANES, cu, inline, wide
from normcore.kernels.packs import PACK_BYTES, aligned, load_one, read_pack, store_one, write_pack
from normcore.kernels.warps import ALL, larger


@inline
def slots_of(length):
    """Slots that cover any stretch of this length in an array of such stretches."""
    return length // LANES if length % LANES == 0 else (length + 2 * LANES - 2) // LANES


@inline
def slot_at(lo, slot):
    """The first element of a slot of the stretch that begins at lo."""
    return lo - lo % LANES + slot * LANES


@inline
def inside(i, lo, hi):
    return (i >= lo) & (i < hi)


@inline
def packed(x, i, lo, hi):
    """Whether the slot at i lies in lo..hi whole and is aligned in x."""
    return i >= lo and i + LANES <= hi and aligned(x, i)


@inline
def split(i, size):
    """(i // size, i % size) with one division."""
    quotient = i // size
    return quotient, i - quotient * size


@inline
def stepped(i, step, size):
    """(i + step) % size, and 1 where that wrapped, else 0, for i < size and step <= size: no division."""
    i += step
    return (i - size, 1) if i >= size else (i, 0)


@inline
def take(x, i, lo, hi, v):
    """v[j] = x[i + j] where i + j lies in lo..hi; the other lanes stay."""
    if packed(x, i, lo, hi):
        read_pack(x, i, v)
    else:
        for j in range(LANES):
            if inside(i + j, lo, hi):
                v[j] = load_one(x, i + j)


@inline
def take_padded(x, i, lo, hi, v):
    """As take, but the other lanes become 0: nothing of v has to stay in registers from slot to slot."""
    clear(v)
    take(x, i, lo, hi, v)


@inline
def give(y, i, lo, hi, v):
    """y[i + j] = v[j] where i + j lies in lo..hi."""
    if packed(y, i, lo, hi):
        write_pack(y, i, v)
    else:
        for j in range(LANES):
            if inside(i + j, lo, hi):
                store_one(y, i + j, v[j])


@inline
def take_real(p, i, v):
    """v[j] = p[i + j] where p has it, for a parameter or statistic, held in the kernel's own precision."""
    if packed(p, i, 0, p.size):
        read_pack(p, i, v)
        if LANES == 8:
            read_pack(p, i + 4, v[4:])
    else:
        for j in range(LANES):
            if inside(i + j, 0, p.size):
                v[j] = p[i + j]


@inline
def whole_rows(x, columns):
    """Whether rows of so many columns, one behind the other, are whole slots of 16 bytes."""
    return (columns % LANES == 0) & aligned(x, 0)


@inline
def take_columns(x, i, count, whole, v):
    """v[j] = x[i + j] for the first `count` lanes. whole: whole_rows."""
    if whole:
        read_pack(x, i, v)
    else:
        for j in range(LANES):
            if j < count:
                v[j] = load_one(x, i + j)


@inline
def take_columns_padded(x, i, count, whole, v):
    """As take_columns, but the other lanes become 0, see take_padded."""
    clear(v)
    take_columns(x, i, count, whole, v)


@inline
def give_columns(y, i, count, whole, v):
    """y[i + j] = v[j] for the first `count` lanes. whole: whole_rows."""
    if whole:
        write_pack(y, i, v)
    else:
        for j in range(LANES):
            if j < count:
                store_one(y, i + j, v[j])


@inline
def clear(v):
    for j in range(LANES):
        v[j] = 0


@inline
def clear_sums(sums):
    """The thread's own sums, one for each lane, in a shared float64 array (warps, LANES, 32): see column_sums."""
    for j in range(LANES):
        sums[cu.threadIdx.x // 32, j, cu.threadIdx.x % 32] = 0


@inline
def widen(narrow, sums):
    """Adds what the thread has summed in the kernel's precision, and begins anew. Registers hold no float64 so."""
    for j in range(LANES):
        sums[cu.threadIdx.x // 32, j, cu.threadIdx.x % 32] += wide(narrow[j])
        narrow[j] = 0


@inline
def put_columns(narrow, sums):
    """What the thread has of its lanes, into such an array."""
    for j in range(LANES):
        sums[cu.threadIdx.x // 32, j, cu.threadIdx.x % 32] = wide(narrow[j])


@inline
def joined(a, b, largest):
    return larger(a, b) if largest else a + b


@inline
def join_columns(sums, width, lanes, out, first, largest):
    """column_sums, or maxima if `largest`, of threads that hold the first `lanes` lanes only."""
    w, lane = cu.threadIdx.x // 32, cu.threadIdx.x % 32
    for j in range(lanes):
        v = sums[w, j, lane]
        half = 16
        while half >= width:
            v = joined(v, cu.shfl_xor_sync(ALL, v, half), largest)
            half //= 2
        sums[w, j, lane] = v
    cu.syncthreads()
    for column in range(cu.threadIdx.x, min(width * lanes, out.size - first), cu.blockDim.x):
        total = sums[0, column % lanes, column // lanes]
        for other in range(1, cu.blockDim.x // 32):
            total = joined(total, sums[other, column % lanes, column // lanes], largest)
        out[first + column] = total


@inline
def column_sums(sums, width, out, first):
    """Adds up the sums of all threads whose number is the same modulo `width`, and writes them to the array `out`.

    Lane j of thread t stands for column first + t % width * LANES + j of `out`; columns beyond its end are dropped.
    width: a power of two, at most 32. Every thread of the block takes part.
    """
    join_columns(sums, width, LANES, out, first, False)


def tiles_of(columns: int, itemsize: int) -> tuple[int, int]:
    """(width, tiles): the threads side by side that take a row of so many columns, 16 bytes each, and the blocks.

    The width is a power of two, at most 32.
    """
    lanes = PACK_BYTES // itemsize
    width = 1
    while width < 32 and width * lanes < columns:
        width *= 2
    return width, -(-columns // (width * lanes))
