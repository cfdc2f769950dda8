"""PNG files of the common kind, 8 bits of grey or RGB, several times as fast as an image library opens them.

What a small image costs there is mostly the making of objects. Here it is one inflation, and one kernel makes pixels
of a whole batch: what takes turns with a training's own Python often slows it by more than what it computes. Whatever
is not plain (a palette, transparency, other depths, interlacing, an orientation, a fault) is left to the caller, so
nothing here decides what is an error.

Source: PNG Specification, 3rd edition (W3C 2025): chunks (5.3), filters (9.2).
"""

# mypy: allow-untyped-defs
import zlib
from collections.abc import Callable, Sequence
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


def filtered_lines(data: bytes, shape: tuple[int, ...]) -> bytes | None:
    """The inflated lines of a plain PNG file, for `write_planes`; RGB, or grey for any number of channels.

    None for a file of another size than shape (C, H, W), of colours where that is grey, and for one that is not plain.
    """
    kind = plain_size(data)
    if kind is None or kind[1:] != shape[1:] or kind[0] not in (1, shape[0]):
        return None
    line = 1 + kind[0] * kind[2]
    inflation = zlib.decompressobj()
    try:
        raw = inflation.decompress(
            compressed(data), kind[1] * line + 1
        )  # no more, whatever the file would make
    except zlib.error:
        return None
    return raw if len(raw) == kind[1] * line and inflation.eof and max(raw[::line]) <= 4 else None


def write_planes(files: Sequence[bytes], out: np.ndarray, rows: Sequence[int]) -> None:
    """Write the images of several files' lines to out (N, C, H, W), uint8, at these rows; grey to every channel."""
    height = out.shape[2]
    for size in {len(lines) for lines in files}:  # grey files and RGB ones
        chosen = [k for k, lines in enumerate(files) if len(lines) == size]
        lines = np.frombuffer(b"".join([files[k] for k in chosen]), np.uint8)
        _reconstruct()(
            lines.reshape(len(chosen), height, size // height),
            out,
            np.array([rows[k] for k in chosen], np.int64),
        )


@cache
def _reconstruct() -> Callable[[np.ndarray, np.ndarray, np.ndarray], None]:
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
def reconstruct(lines, out, rows):
    """Pixels (C, H, W) at rows of out from filtered lines (n, H, 1 + W C or 1 + W), whose first byte names the filter."""
    height, width = out.shape[2:]
    channels = (lines.shape[2] - 1) // width
    for i in range(len(rows)):
        image = out[rows[i]]
        for y in range(height):
            line = lines[i, y]
            kind = line[0]
            if kind == 4 and channels == 3 and y > 0:
                paeth_rgb(line, image[:, y - 1], image[:, y])
                continue
            for k in range(channels):
                left = corner = np.int64(0)
                for x in range(width):
                    above = np.int64(image[k, y - 1, x]) if y > 0 else np.int64(0)
                    value = np.int64(line[1 + x * channels + k])
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
                    image[k, y, x] = left
        for k in range(channels, len(image)):
            for y in range(height):
                for x in range(width):
                    image[k, y, x] = image[0, y, x]
