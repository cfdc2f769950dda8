"""Plain PNG files: every filter and kind of line, beside Pillow; and what is left to Pillow."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from normcore.data.image_file import decode, size_of
from normcore.data.png import compressed, filtered_lines, plain_size, write_planes
from normcore.errors import DataError

RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def png(lines: np.ndarray, channels: int, parts: int = 1, height: int | None = None) -> bytes:
    """A file of filtered lines (H, 1 + W channels), its data in several IDAT chunks; height: what it claims."""
    width = (lines.shape[1] - 1) // channels
    header = struct.pack(">IIBBBBB", width, height or len(lines), 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    data = zlib.compress(lines.tobytes())
    step = -(-len(data) // parts)
    pieces = b"".join(chunk(b"IDAT", data[i : i + step]) for i in range(0, len(data), step))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pieces + chunk(b"IEND", b"")


def filtered(channels: int, kinds: tuple[int, ...], height: int = 9, width: int = 8) -> np.ndarray:
    """Lines of random bytes: whatever they are, a decoder makes one image of them."""
    lines = RNG.integers(0, 256, (height, 1 + width * channels), dtype=np.uint8)
    lines[:, 0] = np.resize(kinds, height)
    return lines


def decode_plain(data: bytes, out: np.ndarray) -> bool:
    """Whether a file is plain; its image is then in `out`."""
    lines = filtered_lines(data, out.shape)
    if lines is not None:
        write_planes([lines], out[None], [0])
    return lines is not None


def by_pillow(data: bytes, mode: str) -> np.ndarray:
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert(mode))
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("kinds", [(0,), (1,), (2,), (3,), (4,), (4, 0, 3, 1, 2, 4, 4)], ids=str)
@pytest.mark.parametrize("channels", [1, 3])
def test_filters(channels, kinds):
    data = png(filtered(channels, kinds), channels, parts=3)
    out = np.empty((channels, 9, 8), np.uint8)
    assert decode_plain(data, out)
    np.testing.assert_array_equal(out, by_pillow(data, "L" if channels == 1 else "RGB"))
    if channels == 1:
        three = np.empty((3, 9, 8), np.uint8)
        assert decode_plain(data, three)
        np.testing.assert_array_equal(three, by_pillow(data, "RGB"))


def test_a_batch_of_grey_and_colour():
    files = [png(filtered(channels, (4, 1, 3)), channels) for channels in (3, 1, 3, 1)]
    out = np.zeros((6, 3, 9, 8), np.uint8)
    rows = [4, 0, 1, 5]
    write_planes([filtered_lines(data, (3, 9, 8)) for data in files], out, rows)
    for data, row in zip(files, rows, strict=True):
        np.testing.assert_array_equal(out[row], by_pillow(data, "RGB"))
    assert not out[2:4].any()


def test_ties_of_the_paeth_filter():
    """Few values, so that its three distances are often equal."""
    lines = RNG.integers(0, 2, (40, 1 + 3 * 40), dtype=np.uint8)
    lines[:, 0] = 4
    data = png(lines, 3)
    out = np.empty((3, 40, 40), np.uint8)
    assert decode_plain(data, out)
    np.testing.assert_array_equal(out, by_pillow(data, "RGB"))


def saved(image: Image.Image, **options) -> bytes:
    image.save(file := io.BytesIO(), "PNG", **options)
    return file.getvalue()


def turned() -> dict[str, bytes]:
    """Files whose pixels are not what their IDAT chunks say, by the place where that is said."""
    image, exif, xmp = Image.fromarray(COLOUR), Image.Exif(), PngInfo()
    exif[0x0112] = 6
    xmp.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    profile = exif.tobytes()
    text = f"\nexif\n{len(profile):8}\n{profile.hex()}\n".encode()
    start, rest = saved(image)[:33], saved(image)[33:]
    return {
        "exif": saved(image, exif=exif),
        "xmp": saved(image, pnginfo=xmp),
        "profile": start + chunk(b"tEXt", b"Raw profile type exif\0" + text) + rest,
        "transparent": saved(image, transparency=tuple(COLOUR[2, 3].tolist())),
        "clear": saved(Image.fromarray(np.dstack([COLOUR, COLOUR[..., :1]]))),
        "palette": saved(image.quantize(16)),
        "deep": saved(Image.fromarray(COLOUR[..., 0].astype(np.uint16) * 257)),
        "bilevel": saved(Image.fromarray(COLOUR[..., 0] > 99)),
    }


@pytest.mark.parametrize("kind", turned())
def test_what_is_not_plain_is_left_to_pillow(kind, tmp_path):
    data = turned()[kind]
    out = np.zeros((3, 5, 7), np.uint8)
    assert not decode_plain(data, out) and not out.any()
    (tmp_path / "a.png").write_bytes(data)
    swapped = kind in ("exif", "xmp", "profile")
    assert size_of(tmp_path / "a.png") == ((7, 5) if swapped else (5, 7))
    found = decode(tmp_path / "a.png", 3, (7, 5) if swapped else (5, 7))
    if swapped:
        np.testing.assert_array_equal(found, np.rot90(COLOUR, -1).transpose(2, 0, 1))
    if kind == "transparent":
        assert (found[:, 2, 3] == 255).all() and not (COLOUR[2, 3] == 255).all()


def test_words_beside_the_pixels_are_plain():
    """Encoders write who they are and when."""
    info = PngInfo()
    info.add_text("Software", "a painting program")
    data = saved(Image.fromarray(COLOUR), pnginfo=info, dpi=(72, 72))
    out = np.empty((3, 5, 7), np.uint8)
    assert decode_plain(data, out)
    np.testing.assert_array_equal(out, COLOUR.transpose(2, 0, 1))
    assert not decode_plain(data, np.empty((3, 7, 5), np.uint8)) and not decode_plain(
        data, np.empty((1, 5, 7), np.uint8)
    )


def faults() -> dict[str, bytes]:
    lines = filtered(3, (4,))
    good = png(lines, 3)
    unknown, header = lines.copy(), bytearray(good)
    unknown[4, 0], header[19] = 9, 9
    body = bytearray(good)
    body[-20] ^= 1  # the checksum of the pixels
    return {
        "filter": png(unknown, 3),
        "header": bytes(header),
        "sum": bytes(body),
        "half": good[: len(good) // 2],
        "empty": b"",
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(40),
    }


@pytest.mark.parametrize("kind", faults())
def test_faults_are_left_to_pillow(kind, tmp_path):
    out = np.zeros((3, 9, 8), np.uint8)
    assert not decode_plain(faults()[kind], out) and not out.any()
    (tmp_path / "a.png").write_bytes(faults()[kind])
    with pytest.raises(DataError, match=r"a\.png is no readable image"):
        decode(tmp_path / "a.png", 3, (9, 8))


def test_too_few_lines_are_left_to_pillow():
    """Which makes the others black, and says nothing."""
    assert not decode_plain(png(filtered(3, (4,))[:-1], 3, height=9), np.empty((3, 9, 8), np.uint8))


def test_a_file_inflates_no_further_than_its_size():
    data = png(np.zeros((9_000, 1 + 3 * 8), np.uint8), 3, height=9)
    assert plain_size(data) == (3, 9, 8) and compressed(data)
    assert not decode_plain(data, np.empty((3, 9, 8), np.uint8))
