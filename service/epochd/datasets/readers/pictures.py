"""PNG and JPEG of strangers, of any size and mode, to bytes of one size."""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from epochd.errors import InvalidDatasetError

FORMATS: Final = ("PNG", "JPEG")
_GREY: Final = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}
_DEEP: Final = ("I", "I;")  # 16 bits a pixel, which Pillow would clip rather than scale
_ORIENTATION: Final = 0x0112
_SIDEWAYS: Final = {5, 6, 7, 8}
_DAMAGE: Final = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    struct.error,
    zlib.error,
)


@dataclass(frozen=True, slots=True)
class Look:
    """What an image's header says: pixels as they are seen, and whether they are grey."""

    height: int
    width: int
    grey: bool


def look(content: bytes, file: str, pixels: int) -> Look:
    """Read the header alone.

    Raises InvalidDatasetError: ``not_an_image``, ``unsupported_image``, or ``too_many_pixels``.
    """
    with _opened(content, file) as image:
        width, height = image.size
        if width * height > pixels:
            message = f"{file} has {width}x{height} pixels; at most {pixels} are accepted. Make it smaller."
            raise InvalidDatasetError(message, "too_many_pixels", file=file)
        sideways = image.format != "PNG" and image.getexif().get(_ORIENTATION) in _SIDEWAYS
        if sideways:
            width, height = height, width
        return Look(height, width, image.mode in _GREY)


def decode(content: bytes, file: str, *, channels: int, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Decode, turn as its EXIF says, lay on white, and stretch to one size: (channels, height, width).

    Raises InvalidDatasetError: ``truncated_image``.
    """
    with _opened(content, file) as image, _damage_named(file):
        # A JPEG can be decoded at a fraction of its size, many times faster; twice the wanted one loses nothing.
        longest = 2 * max(height, width)
        image.draft(None, (longest, longest))
        upright = ImageOps.exif_transpose(image)
        plain = _plain(upright, "L" if channels == 1 else "RGB")
        if plain.size != (width, height):
            plain = plain.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(plain, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


@contextmanager
def any_size() -> Iterator[None]:
    """Leave the limit of pixels to ``look``: Pillow's is a constant of the whole process, and a warning at first."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _plain(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith(_DEEP):
        deep = np.asarray(image).astype(np.int64)
        image = Image.fromarray((deep.clip(0, 65535) >> 8).astype(np.uint8))
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        clear = image.convert("RGBA")
        white = Image.new("RGBA", clear.size, "white")
        image = Image.alpha_composite(white, clear)
    return image.convert(mode)


@contextmanager
def _opened(content: bytes, file: str) -> Iterator[Image.Image]:
    with (
        warnings.catch_warnings(action="ignore"),
        _damage_named(file),
    ):  # odd metadata is no reason to complain
        try:
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError:
            raise _not_an_image(content, file) from None
    with image:
        yield image


@contextmanager
def _damage_named(file: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        message = f"{file} cannot be decoded ({str(error)[:200]}); it is truncated or damaged. Send it again, whole."
        raise InvalidDatasetError(message, "truncated_image", file=file) from None


def _not_an_image(content: bytes, file: str) -> InvalidDatasetError:
    if not content:
        return InvalidDatasetError(
            f"{file} is empty (0 bytes); send a PNG or JPEG.", "truncated_image", file=file
        )
    if content.startswith((b"GIF8", b"BM", b"II*\0", b"MM\0*")) or content[8:12] in {b"WEBP", b"ftyp"}:
        message = f"{file} is an image of another format; convert it to PNG or JPEG."
        return InvalidDatasetError(message, "unsupported_image", file=file)
    if content.startswith((b"\x89PNG", b"\xff\xd8")):
        message = f"{file} begins like an image, and ends before there is one; it is truncated. Send it again, whole."
        return InvalidDatasetError(message, "truncated_image", file=file)
    return InvalidDatasetError(f"{file} is not an image; send PNG or JPEG only.", "not_an_image", file=file)
