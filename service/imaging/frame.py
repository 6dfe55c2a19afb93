"""Frames as they arrive -> RGB uint8 [H,W,3], upright, whole or not at all.

Read are JPEG, PNG, WebP and raw RGB8. Whatever the file holds becomes RGB8 by these rules:

- EXIF orientation is applied, whichever kind of file carries it.
- Grey fills all three channels. A palette gives its colours. CMYK and YCCK (as Adobe stores them) become
  R = C*K/255 and so on, without colour profiles.
- Alpha is ignored: the colour stored under it counts, however transparent.
- 16 bits a sample keep their upper 8. Of an animation the first picture is taken.
- A file that ends early or fails its checks is refused. Stray bytes before a JPEG's end marker, which many
  cameras write, are not damage.
"""

from __future__ import annotations

import io
import re
from typing import Any, cast

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from service.core.errors import InvalidImage
from service.core.types import EncodedImage, ImageFormat, ImageU8
from service.imaging.header import (
    Header,
    ImageLimits,
    Kind,
    check_bytes,
    check_pixels,
    orientation,
    read_header,
)

# libjpeg tells its FIRST warning. This one comes after the last pixel, so nothing can be missing.
_HARMLESS = re.compile(r"extraneous bytes before marker 0xd9")
_MISSING_DATA = re.compile(r"premature end|corrupt jpeg data", re.IGNORECASE)


def decode_frame(image: EncodedImage, limits: ImageLimits) -> ImageU8:
    """RGB uint8 [H,W,3], contiguous; a raw frame is a read-only view of its bytes.

    Raises:
        InputTooLarge, InvalidImage, UnsupportedMedia: before pixels are decoded, where the header tells.
    """
    check_bytes(len(image.data), limits, "frame")
    if image.format is ImageFormat.RAW_RGB8:
        return raw_pixels(image, 3, limits, "frame")
    header = read_header(image.data, "frame")
    check_pixels(header.height, header.width, limits, "frame")
    if header.kind is Kind.JPEG:
        pixels = _decode_jpeg(image.data)
    else:
        colour = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = np.asarray(decode_with_opencv(image.data, colour, "frame"), np.uint8)
    return upright(pixels, header, "frame")


def raw_pixels(image: EncodedImage, channels: int, limits: ImageLimits, what: str) -> NDArray[np.uint8]:
    """[height, width, channels] over the bytes themselves."""
    height, width = image.height, image.width
    check_pixels(height, width, limits, what)
    expected = height * width * channels
    if len(image.data) != expected:
        raise InvalidImage(
            f"the raw {what} has {len(image.data)} bytes; {width} x {height} pixels of {channels} bytes are {expected}"
        )
    return np.frombuffer(image.data, np.uint8).reshape(height, width, channels)


def decode_with_opencv(data: bytes, flags: int, what: str) -> NDArray[np.integer[Any]]:
    """Pixels as `flags` say. OpenCV gives nothing at all for a picture that ends early."""
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise InvalidImage(f"the {what} cannot be decoded: {error.err}") from error
    if pixels is None:
        raise InvalidImage(f"the {what} is damaged: its pixels cannot be decoded")
    return cast(NDArray[np.integer[Any]], pixels)


def upright(pixels: NDArray[np.uint8], header: Header, what: str) -> NDArray[np.uint8]:
    """Turned as the file's EXIF orientation says. Raises InvalidImage when the decoder found another size."""
    height, width = pixels.shape[:2]
    if (height, width) != (header.height, header.width):
        raise InvalidImage(
            f"the {what} has {width} x {height} pixels, its header says {header.width} x {header.height}"
        )
    turn = orientation(header.exif)
    if turn >= 5:
        pixels = pixels.swapaxes(0, 1)
    if turn in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if turn in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    try:
        return np.asarray(simplejpeg.decode_jpeg(data), np.uint8)
    except ValueError as error:
        problem = str(error)
    if _HARMLESS.search(problem):
        return np.asarray(simplejpeg.decode_jpeg(data, strict=False), np.uint8)
    if _MISSING_DATA.search(problem):
        raise InvalidImage(f"the frame is damaged or cut short: {problem}")
    # What is left is not about missing pixels: odd sampling, an unknown revision. Pillow reads those, and
    # notices a file that ends early by itself.
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise InvalidImage(f"the frame is a JPEG that cannot be decoded: {problem}; {error}") from error
