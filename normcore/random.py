"""Counter-based random numbers: Philox 4x32-10, the same on the host and inside kernels.

A number is a pure function of (key, index, call, stream): no state is kept, so it does not depend on the
order in which numbers are drawn, on threads, on the memory format or on the device.

    key     64 bits, from the seed and a path ("conv1.weight"): `key_of`
    index   64 bits, the logical index of the element or of the data sample
    call    32 bits, the number of the call, step or epoch
    stream  32 bits, for one that needs several independent numbers per index

The counter of a block is (block low, block high, call, stream) and gives four words of 32 bits. A float32
uniform takes one word (24 bits), a float64 uniform two (53 bits). Elements are dealt out in groups of 32
blocks, lane after lane, so that neighbouring blocks serve neighbouring elements (a loop over j below
vectorizes, and a warp writes whole lines):

    float32   words w0, w1, w2, w3 of block 32 g + j belong to elements 128 g + j + (0, 32, 64, 96)
    float64   words (w0, w1), (w2, w3) of block 32 g + j belong to elements 64 g + j + (0, 32)

A kernel that goes through memory in logical order draws a block for four (two) elements at once in this
pattern; one that does not calls `uniform_32` or `uniform_64` with the logical index and gets the same number.

The scalar half of the file (`philox`, `unit_32`, `unit_64`, `uniform_32`, `uniform_64`) is compiled into
kernels and also runs as plain Python; the array half (`words`, `uniform`, `normal`, `permutation`) is NumPy
only.

Source: Salmon, Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3" (SC11).
"""

# mypy: allow-untyped-defs
import hashlib
import math

import numpy as np

from normcore.kernels import inline

__all__ = [
    "Words",
    "key_of",
    "normal",
    "permutation",
    "philox",
    "uniform",
    "uniform_32",
    "uniform_64",
    "unit_32",
    "unit_64",
    "words",
]

# Section 4.3 of the paper: two multipliers, and the Weyl increments of the key (golden ratio, sqrt(3) - 1).
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_INCREMENTS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_CHUNK = 1 << 14  # blocks worked on at once: the state stays in the second-level cache


# ---- scalars, for kernels
# Every integer is a uint64 that holds 32 bits: Numba makes a float of uint64 with int64, NumPy complains of
# the overflow of uint32 scalars, and a 32 x 32 -> 64 bit product is one instruction in either type.


@inline(typed=True)
def philox(key, block, call, stream):
    """Four words of 32 bits, each in a uint64, of the block with this counter."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    k0 = np.uint64(key) & low
    k1 = np.uint64(key) >> half
    c0 = np.uint64(block) & low
    c1 = np.uint64(block) >> half
    c2 = np.uint64(call) & low
    c3 = np.uint64(stream) & low
    for _ in range(10):
        p0 = np.uint64(0xD2511F53) * c0
        p1 = np.uint64(0xCD9E8D57) * c2
        c0 = (p1 >> half) ^ c1 ^ k0
        c1 = p1 & low
        c2 = (p0 >> half) ^ c3 ^ k1
        c3 = p0 & low
        k0 = (k0 + np.uint64(0x9E3779B9)) & low
        k1 = (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@inline(typed=True)
def unit_32(word):
    """The upper 24 bits of a word as a float32 in [0, 1); exact, and at most 1 - 2^-24."""
    return np.float32(np.int32(word >> np.uint64(8))) * np.float32(5.9604644775390625e-08)  # 2^-24


@inline(typed=True)
def unit_64(first, second):
    """53 bits of two words as a float64 in [0, 1); exact, and at most 1 - 2^-53."""
    bits = ((first >> np.uint64(5)) << np.uint64(26)) | (second >> np.uint64(6))
    return np.float64(np.int64(bits)) * np.float64(1.1102230246251565e-16)  # 2^-53


@inline(typed=True)
def uniform_32(key, index, call, stream):
    """The float32 uniform of one element; `uniform(key, shape, "float32", call, stream).flat[index]`."""
    at = np.uint64(index)
    block = ((at >> np.uint64(7)) << np.uint64(5)) | (at & np.uint64(31))
    w0, w1, w2, w3 = philox(key, block, call, stream)
    lane = (at >> np.uint64(5)) & np.uint64(3)
    word = w0
    if lane == np.uint64(1):
        word = w1
    if lane == np.uint64(2):
        word = w2
    if lane == np.uint64(3):
        word = w3
    return unit_32(word)


@inline(typed=True)
def uniform_64(key, index, call, stream):
    """The float64 uniform of one element; `uniform(key, shape, "float64", call, stream).flat[index]`."""
    at = np.uint64(index)
    block = ((at >> np.uint64(6)) << np.uint64(5)) | (at & np.uint64(31))
    w0, w1, w2, w3 = philox(key, block, call, stream)
    if ((at >> np.uint64(5)) & np.uint64(1)) == np.uint64(0):
        first, second = w0, w1
    else:
        first, second = w2, w3
    return unit_64(first, second)


# ---- arrays, on the host


def key_of(seed: int, path: str) -> int:
    """The 64-bit key of a path under a seed: the same on every machine and in every process."""
    text = f"{int(seed)}\0{path}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Words:
    """Philox on an array of block numbers, in memory taken once; for those who draw at every step.

    `Words(n)` serves up to n blocks a call. The array that `draw` returns lives until its next call.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._even = np.empty((2, size), np.uint64)  # counter words 0 and 2
        self._odd = np.empty((2, size), np.uint64)  # counter words 1 and 3
        self._product = np.empty((2, size), np.uint64)
        self._out = np.empty((size, 4), np.uint32)

    def draw(self, key: int, blocks: np.ndarray, call: int = 0, stream: int = 0) -> np.ndarray:
        """Words of `blocks` (integers, shape (n,)): uint32, shape (n, 4)."""
        n = len(blocks)
        even, odd, product = self._even[:, :n], self._odd[:, :n], self._product[:, :n]
        np.copyto(product[0], blocks, casting="unsafe")
        np.bitwise_and(product[0], _LOW, out=even[0])
        np.right_shift(product[0], _HALF, out=odd[0])
        even[1] = np.uint64(call & 0xFFFFFFFF)
        odd[1] = np.uint64(stream & 0xFFFFFFFF)
        k0, k1 = key & 0xFFFFFFFF, key >> 32
        weyl = np.empty((2, 1), np.uint64)
        for _ in range(_ROUNDS):
            weyl[0, 0], weyl[1, 0] = k0, k1
            np.multiply(even, _MULTIPLIERS, out=product)
            np.right_shift(product[::-1], _HALF, out=even)
            np.bitwise_xor(even, odd, out=even)
            np.bitwise_xor(even, weyl, out=even)
            np.bitwise_and(product[::-1], _LOW, out=odd)
            k0, k1 = (k0 + _INCREMENTS[0]) & 0xFFFFFFFF, (k1 + _INCREMENTS[1]) & 0xFFFFFFFF
        out = self._out[:n]
        out[:, 0::2] = even.T
        out[:, 1::2] = odd.T
        return out


def words(key: int, blocks: np.ndarray | int, call: int = 0, stream: int = 0) -> np.ndarray:
    """The four words of each block: uint32, shape (n, 4). `blocks`: integers of shape (n,), or n for 0 .. n -
    1."""
    counters = np.arange(blocks, dtype=np.uint64) if isinstance(blocks, int) else np.asarray(blocks)
    out = np.empty((len(counters), 4), np.uint32)
    scratch = Words(min(len(counters), _CHUNK))
    for start in range(0, len(counters), _CHUNK):
        part = slice(start, start + _CHUNK)
        out[part] = scratch.draw(key, counters[part], call, stream)
    return out


def uniform(
    key: int, shape: int | tuple[int, ...], dtype: str = "float32", call: int = 0, stream: int = 0
) -> np.ndarray:
    """Uniform numbers in [0, 1) of any shape; element i (in C order) is what `uniform_32` or `uniform_64`
    gives at i."""
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    groups = -(-count // (128 if np.dtype(dtype) == np.float32 else 64))
    drawn = words(key, groups * 32, call, stream).reshape(groups, 32, 4)
    if np.dtype(dtype) == np.float32:
        values = (drawn >> np.uint32(8)).transpose(0, 2, 1).astype(np.float32, order="C")
        values *= np.float32(2.0**-24)
    else:
        first, second = drawn[:, :, 0::2] >> np.uint32(5), drawn[:, :, 1::2] >> np.uint32(6)
        bits = (first.astype(np.uint64) << np.uint64(26)) | second
        values = bits.transpose(0, 2, 1).astype(np.float64, order="C")
        values *= 2.0**-53
    values = values.reshape(-1)[:count]
    return values.reshape(shape)


def normal(
    key: int, shape: int | tuple[int, ...], dtype: str = "float32", call: int = 0, stream: int = 0
) -> np.ndarray:
    """Standard normal numbers by Box and Muller's method, computed in float64 whatever the dtype.

    Pair j takes the float64 uniforms 2j and 2j + 1. The largest magnitude is sqrt(2 ln 2^53) = 8.6.
    """
    count = math.prod(shape) if isinstance(shape, tuple) else shape
    pairs = uniform(key, (-(-count // 2), 2), "float64", call, stream)
    radius = np.sqrt(-2.0 * np.log1p(-pairs[:, 0]))  # 1 - u is in (0, 1]: never the logarithm of 0
    angle = (2.0 * math.pi) * pairs[:, 1]
    values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)[:count]
    return values.astype(dtype, copy=False).reshape(shape)


def permutation(key: int, count: int, call: int = 0, stream: int = 0) -> np.ndarray:
    """A random order of 0 .. count - 1 (int64): the indices sorted by 64 random bits each."""
    drawn = words(key, count, call, stream)
    tags = (drawn[:, 0].astype(np.uint64) << _HALF) | drawn[:, 1]
    return np.argsort(tags, kind="stable").astype(np.int64, copy=False)
