"""PNG files of the common kind, 8 bits of grey or RGB, several times as fast as an image library opens them.

What a small image costs there is mostly the making of objects. Here it is one inflation and one pass over its pixels,
both without the interpreter's lock. Whatever is not plain (a palette, transparency, other depths, interlacing, an
orientation, a fault) is left to the caller, so nothing here decides what is an error.

Source: PNG Specification, 3rd edition (W3C 2025): chunks (5.3), filters (9.2).
"""

# mypy: allow-untyped-defs
import zlib
from collections.abc import Callable
from functools import cache
from struct import Struct

import numpy as np

from normcore.kernels import cpu, inline, variant

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHUNK, _HEADER = Struct(">I4s"), Struct(">4sIIBBBBBI")
HEADER_BYTES = 33  # signature and IHDR chunk
_CHANNELS = {0: 1, 2: 3}  # of the colour types grey and RGB
_SPECIAL = {b"tRNS", b"eXIf", b"iTXt", b"zTXt"}  # transparency; and where an orientation may stand
_PROFILE = b"Raw profile"  # such a text too


def plain_size(start: bytes) -> tuple[int, int, int] | None:
    """(channels, H, W) from a file's first HEADER_BYTES; None for a PNG that is not plain, and for anything else."""
    if len(start) < HEADER_BYTES or not start.startswith(_SIGNATURE):
        return None
    kind, width, height, bits, colour, compression, filters, interlace, check = _HEADER.unpack_from(start, 12)
    if kind != b"IHDR" or check != zlib.crc32(start[12:29]):
        return None
    plain = (
        bits == 8 and colour in _CHANNELS and not (compression or filters or interlace) and width and height
    )
    return (_CHANNELS[colour], height, width) if plain else None


def compressed(data: bytes) -> bytes:
    """What a plain PNG file's IDAT chunks hold; nothing where another chunk changes the pixels or the file ends early."""
    at, parts, kind = len(_SIGNATURE), [], b""
    while kind != b"IEND":
        if at + 8 > len(data):
            return b""
        length, kind = _CHUNK.unpack_from(data, at)
        if kind in _SPECIAL or (kind == b"tEXt" and data.startswith(_PROFILE, at + 8)):
            return b""
        if kind == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    return parts[0] if len(parts) == 1 else b"".join(parts)


def decode_plain(data: bytes, out: np.ndarray) -> bool:
    """Write a plain PNG file's pixels to out (C, H, W), uint8, grey to every channel of it.

    False for a file of another size, of colours where out is grey, and for one that is not plain; out is then untouched.
    """
    kind = plain_size(data)
    if kind is None or kind[1:] != out.shape[1:] or kind[0] not in (1, len(out)):
        return False
    channels, height, width = kind
    line = 1 + channels * width
    inflation = zlib.decompressobj()
    try:
        raw = inflation.decompress(
            compressed(data), height * line + 1
        )  # no more, whatever the file would make
    except zlib.error:
        return False
    if len(raw) != height * line or not inflation.eof or max(raw[::line]) > 4:
        return False
    _reconstruct()(np.frombuffer(raw, np.uint8).reshape(height, line), out[:channels])
    if channels < len(out):
        out[1:] = out[0]
    return True


@cache
def _reconstruct() -> Callable[[np.ndarray, np.ndarray], None]:
    return reconstruct.function_of(variant("float32", parallel=False))


@inline(typed=True)
def paeth(left, above, corner):
    """Whichever of the three is nearest to left + above - corner; in this order where two are."""
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    other = above if to_above <= to_corner else corner
    return left if to_left <= min(to_above, to_corner) else other


@inline
def paeth_rgb(line, above, out):
    """Undo filter 4 of a line of RGB pixels; the channels wait for their left neighbours side by side."""
    r = g = b = np.int64(0)
    r0 = g0 = b0 = np.int64(0)
    for x in range(out.shape[1]):
        r1 = np.int64(above[0, x])
        g1 = np.int64(above[1, x])
        b1 = np.int64(above[2, x])
        r = (line[1 + 3 * x] + paeth(r, r1, r0)) & 255
        g = (line[2 + 3 * x] + paeth(g, g1, g0)) & 255
        b = (line[3 + 3 * x] + paeth(b, b1, b0)) & 255
        r0 = r1
        g0 = g1
        b0 = b1
        out[0, x] = r
        out[1, x] = g
        out[2, x] = b


@cpu
def reconstruct(lines, out):
    """Pixels (C, H, W) from filtered lines (H, 1 + W C), whose first byte names the line's filter."""
    channels, height, width = out.shape
    for y in range(height):
        kind = lines[y, 0]
        if kind == 4 and channels == 3 and y > 0:
            paeth_rgb(lines[y], out[:, y - 1], out[:, y])
            continue
        for k in range(channels):
            left = corner = np.int64(0)
            for x in range(width):
                above = np.int64(out[k, y - 1, x]) if y > 0 else np.int64(0)
                value = np.int64(lines[y, 1 + x * channels + k])
                if kind == 1:
                    value += left
                elif kind == 2:
                    value += above
                elif kind == 3:
                    value += (left + above) >> 1
                elif kind == 4:
                    value += paeth(left, above, corner)
                left = value & 255
                corner = above
                out[k, y, x] = left
