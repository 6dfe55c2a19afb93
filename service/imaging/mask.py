"""Masks: files of object ids -> label maps uint8 [H,W], and back.

What pixel values mean:

- An indexed PNG: its palette indices are the object ids, whatever the colours.
- Grey (8 or 16 bits, or colour with equal channels; alpha ignored) and raw bytes: the values are the object
  ids, except that a mask of nothing but 0 and the largest value (255, 65535, or 1 bit) is object 1.
- White on black with soft edges is refused: every grey of an edge would become an object.
- Colours, JPEG and WebP are refused: they hold colours, not ids, or do not keep them exactly.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from PIL import Image

from s2spp import rle
from s2spp.overlay import PALETTE
from service.core.errors import InvalidImage, InvalidMask, UnsupportedMedia
from service.core.types import EncodedImage, ImageFormat, LabelMap, MaskFormat
from service.imaging.frame import decode_with_opencv, raw_pixels, upright
from service.imaging.header import ImageLimits, Kind, check_bytes, check_pixels, read_header

_HOW_TO_SAVE = "save it as an indexed PNG whose indices are the object ids, or as a grey 8-bit PNG of them"
_IDAT_LEVEL = 1
# Shares of the pixels that are neither black nor white, and how many greys make a slope.
_INSIDE, _RIM, _SLOPE = 0.02, 0.4, 8


def decode_mask(image: EncodedImage, limits: ImageLimits) -> LabelMap:
    """Object ids uint8 [H,W], 0 is background. An all-background mask is returned as such.

    Raises:
        InputTooLarge, InvalidImage, UnsupportedMedia: the file is too large, damaged, or not a PNG.
        InvalidMask: a good picture whose values are not object ids.
    """
    check_bytes(len(image.data), limits, "mask")
    if image.format is ImageFormat.RAW_RGB8:
        return _object_ids(raw_pixels(image, 1, limits, "mask")[..., 0])
    header = read_header(image.data, "mask")
    if header.kind is not Kind.PNG:
        raise UnsupportedMedia(f"a {header.kind} mask does not keep object ids exactly; {_HOW_TO_SAVE}")
    check_pixels(header.height, header.width, limits, "mask")
    pixels = decode_with_opencv(image.data, cv2.IMREAD_UNCHANGED, "mask")
    # OpenCV is the strict decoder, but turns indices into colours: Pillow gives those of a file that passed.
    labels = _palette_indices(image.data) if header.indexed else _object_ids(pixels)
    return upright(labels, header, "mask")


def encode_mask(labels: LabelMap, mask_format: MaskFormat, object_ids: Sequence[int]) -> bytes:
    """As MaskFormat says, all but PROBABILITY, which labels do not have. RLE has every one of `object_ids`, also those
    without a pixel; decode_mask gives `labels` of a PNG back."""
    if mask_format is MaskFormat.RAW:
        return labels.tobytes()
    if mask_format is MaskFormat.RLE:
        size = list(labels.shape)
        found = [{"object_id": i, "size": size, "counts": rle.encode(labels == i)} for i in object_ids]
        return json.dumps(found).encode()
    assert mask_format is MaskFormat.PNG
    return _indexed_png(labels)


def encode_probability(probability: Iterable[NDArray[np.float32]]) -> bytes:
    """One plane [H,W] for each object -> MaskFormat.PROBABILITY."""
    # Rounded so that what is above one half, and no more, is 128 and above.
    planes = np.concatenate([np.ceil(plane * 255 - 0.5).astype(np.uint8) for plane in probability])
    return cv2.imencode(".png", planes, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def _palette_indices(data: bytes) -> LabelMap:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            return np.array(image, np.uint8)
    except (OSError, ValueError, SyntaxError) as error:
        raise InvalidImage(f"the mask cannot be decoded: {error}") from error


def _object_ids(pixels: NDArray[np.integer[Any]]) -> LabelMap:
    values = pixels
    if pixels.ndim == 3:
        values = pixels[..., 0]
        if any((pixels[..., channel] != values).any() for channel in (1, 2)):
            raise InvalidMask(f"the mask is a colour picture, and colours are not object ids; {_HOW_TO_SAVE}")
    largest = values == np.iinfo(values.dtype).max
    if bool((largest | (values == 0)).all()):
        return np.asarray(largest, np.uint8)
    _refuse_soft_edges(values, largest)
    if int(values.max()) > 255:
        raise InvalidMask(f"the mask has the value {values.max()}, object ids are 1 to 255; {_HOW_TO_SAVE}")
    return values.astype(np.uint8)


def _refuse_soft_edges(values: NDArray[np.integer[Any]], white: NDArray[np.bool_]) -> None:
    """Told by where the greys are: objects have an inside, while a soft edge is a rim of white or a slope of many
    greys. (Small objects without an inside, away from white ones, are left alone.)"""
    between = ~white & (values != 0)
    count = np.count_nonzero(between)
    if not count:
        return
    around = np.ones((3, 3), np.uint8)
    inside = between & (cv2.erode(values, around) == cv2.dilate(values, around))
    if np.count_nonzero(inside) > _INSIDE * count:
        return
    rim = between & (cv2.dilate(white.view(np.uint8), around) > 0)
    greys = len(np.unique(values[between]))
    if greys >= _SLOPE or np.count_nonzero(rim) > _RIM * count:
        raise InvalidMask(
            f"the mask is white on black with soft edges ({greys} greys): each grey would be an object of its own. "
            "Draw it with a hard brush, or make every pixel 0 or 255; if they are ids, save it as an indexed PNG"
        )


def _indexed_png(labels: LabelMap) -> bytes:
    """Pillow and OpenCV take several times as long, or cannot write palette indices at all. To pack the pixels takes
    ISA-L a tenth of zlib's time."""
    height, width = labels.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with its filter: 0, none
    rows[:, 1:] = labels
    pixels = isal_zlib.compress(rows.data, _IDAT_LEVEL)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _PALETTE_BYTES), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))


_PALETTE_BYTES = PALETTE.tobytes()
