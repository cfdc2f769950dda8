"""Image files to arrays: PNG, JPEG and other formats by Pillow, .npy by NumPy; the same for training and `predict`.

An image becomes (C, H, W): uint8 from image files, float32 or uint8 from .npy. To fit a size, the middle part
with the right aspect ratio is cut out and resized (bilinear, with antialiasing), so nothing is squeezed.
Colour becomes grey by luma (ITU-R 601), grey is repeated three times; transparent parts become white; 16-bit
grey keeps its upper 8 bits; the camera's orientation tag is obeyed.
"""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from normcore.data.png import HEADER_BYTES, compressed, plain_size
from normcore.errors import DataError

_FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def read_image(path: str | Path, channels: int, size: tuple[int, ...] | None = None) -> np.ndarray:
    """One sample for a net whose input has `channels` channels and the spatial `size` (None: as it is).

    Returns (channels, H, W); uint8 stands for [0, 1] as in training. Raises DataError for what is no image.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; expected an image (PNG, JPEG) or an array (.npy)")
    if path.suffix.lower() == ".npy":
        return _read_array(path, channels, size)
    return decode(path, channels, size)


def decode(path: Path, channels: int, size: tuple[int, ...] | None) -> np.ndarray:
    """An image file as uint8 (channels, H, W). Raises DataError."""
    if channels not in (1, 3) or (size is not None and len(size) != 2):
        wanted = (channels, "H", "W") if size is None else (channels, *size)
        raise DataError(
            f"{path}: an image is (1, H, W) or (3, H, W), the net's input {wanted}; give an array (.npy)"
        )
    try:
        with Image.open(path) as opened:
            if size is not None and opened.format == "JPEG" and min(opened.size) >= 2 * max(size):
                # decodes at a half, a quarter ... of the size
                opened.draft(opened.mode, (2 * size[1], 2 * size[0]))
            ImageOps.exif_transpose(opened, in_place=True)  # without, it copies the many that stand upright
            image = _converted(opened, "L" if channels == 1 else "RGB")
            if size is not None and image.size != (size[1], size[0]):
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR, _middle(image.size, size))
            pixels = np.asarray(image, np.uint8)
    except _FAULTS as fault:
        raise _unreadable(path, fault) from fault
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def size_of(path: Path) -> tuple[int, int]:
    """(H, W) from an image file's header, as `decode` gives it. Raises DataError."""
    try:
        with open(path, "rb", buffering=0) as file:
            start = file.read(HEADER_BYTES)
            plain = plain_size(start)
            if plain is not None and compressed(start + file.read()):
                return plain[1:]
            file.seek(0)
            with Image.open(file) as opened:
                width, height = opened.size
                turned = opened.getexif().get(0x0112, 1) >= 5  # orientations 5 to 8 exchange the axes
    except _FAULTS as fault:
        raise _unreadable(path, fault) from fault
    return (width, height) if turned else (height, width)


def _unreadable(path: Path, fault: Exception) -> DataError:
    reason = str(fault) or type(fault).__name__
    if isinstance(fault, UnidentifiedImageError):  # whose own words are about a Python object
        reason = "of no known format" if path.stat().st_size else "the file is empty"
    return DataError(f"{path} is no readable image ({reason}); replace or remove the file")


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode == "I":
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _middle(have: tuple[int, int], size: tuple[int, ...]) -> tuple[float, float, float, float]:
    """The largest box in the middle of an image of `have` (W, H) with the aspect ratio of `size` (H, W)."""
    width, height = have
    scale = min(width / size[1], height / size[0])
    w, h = size[1] * scale, size[0] * scale
    left, top = (width - w) / 2, (height - h) / 2
    return (max(left, 0.0), max(top, 0.0), min(left + w, width), min(top + h, height))


def read_sequence(path: str | Path, shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """A .npy file of (steps, features) as a sample of `shape` (T, C), zeros behind its end, and its steps.

    Raises DataError, for a sequence of no step or of more than T too.
    """
    path = Path(path)
    array = _numbers(path, "a sequence such as (steps, features)")
    if array.ndim != 2 or array.shape[1] != shape[1] or not 1 <= len(array) <= shape[0]:
        raise DataError(
            f"{path} has shape {array.shape}; the net's input is a sequence of 1 to {shape[0]} steps of {shape[1]} features"
        )
    out = np.zeros(shape, np.float64 if array.dtype == np.float64 else np.float32)
    out[: len(array)] = array
    return out, len(array)


def _numbers(path: Path, expected: str) -> np.ndarray:
    """A .npy file's array: uint8, float32 or float64. Raises DataError."""
    try:
        array = np.load(path, allow_pickle=False)
    except (EOFError, ValueError, OSError) as fault:
        # NumPy takes text for a pickle and offers to load it; Python objects are never loaded here.
        reason = "it is empty, no .npy, or holds Python objects" if "pickle" in str(fault) else fault
        raise DataError(
            f"{path} is no readable .npy file ({reason}); write it again with numpy.save"
        ) from fault
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise DataError(f"{path} holds no array of real numbers; expected {expected}")
    if array.dtype == np.uint8:
        return array
    return array.astype(np.float64 if array.dtype == np.float64 else np.float32)


def _read_array(path: Path, channels: int, size: tuple[int, ...] | None) -> np.ndarray:
    array = _numbers(path, "one sample, such as (H, W) or (H, W, C)")
    ndim = 2 if size is None else len(size)
    if array.ndim == ndim and channels == 1 and ndim:
        array = array[None]
    elif array.ndim == ndim + 1 and array.shape[0] != channels and array.shape[-1] == channels:
        array = np.moveaxis(array, -1, 0)
    fits = array.ndim == ndim + 1 and array.shape[0] == channels
    if not fits or (size is not None and array.shape[1:] != tuple(size)):
        wanted = (channels, *size) if size is not None else (channels, "H", "W")
        raise DataError(
            f"{path} has shape {np.load(path, mmap_mode='r').shape}; the net's input is one sample of "
            f"{wanted}"
        )
    return np.ascontiguousarray(array)
