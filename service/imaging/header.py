"""What a picture file says of itself, read before a single pixel is decoded or allocated.

A file's kind is told by its signature, never by a name or a content type. Size and EXIF come from the
container; a PNG is walked to its end with every checksum verified, because decoders forgive a damaged one in
different ways.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import StrEnum

from service.core.errors import InputTooLarge, InvalidImage, UnsupportedMedia

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_WITHOUT_LENGTH = frozenset({0x00, 0x01, *range(0xD0, 0xD9)})
_OTHER_KINDS = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF"}
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class ImageLimits:
    """The largest picture that is looked at. The defaults allow one 8K frame as a file, 11 megapixels raw."""

    max_bytes: int = 32 * 2**20
    max_pixels: int = 2**25


class Kind(StrEnum):
    JPEG = "JPEG"
    PNG = "PNG"
    WEBP = "WebP"


@dataclass(frozen=True)
class Header:
    """`height` and `width` as stored, before `exif` turns them. `indexed`: a PNG of palette indices."""

    kind: Kind
    height: int
    width: int
    exif: bytes = b""
    indexed: bool = False


def read_header(data: bytes, what: str) -> Header:
    """Raises UnsupportedMedia for another kind of file, InvalidImage for one that is damaged or cut short.
    `what` is "frame" or "mask": the word the caller knows it by."""
    if not data:
        raise InvalidImage(f"the {what} is empty: 0 bytes")
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data, what)
        if data.startswith(_PNG_SIGNATURE):
            return _read_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp(data)
    except (struct.error, IndexError) as error:
        raise InvalidImage(f"the {what} is cut short: its file ends too early") from error
    except ValueError as error:
        raise InvalidImage(f"the {what} is damaged: {error}") from error
    others = (name for start, name in _OTHER_KINDS.items() if data.startswith(start))
    kind = next(others, "not a known picture")
    wanted = "an indexed or grey PNG of object ids" if what == "mask" else "JPEG, PNG, WebP or raw RGB8"
    raise UnsupportedMedia(f"the {what} is {kind}; send {wanted}")


def check_bytes(size: int, limits: ImageLimits, what: str) -> None:
    if size > limits.max_bytes:
        raise InputTooLarge(f"the {what} has {size} bytes, at most {limits.max_bytes} are taken")


def check_pixels(height: int, width: int, limits: ImageLimits, what: str) -> None:
    if height < 1 or width < 1:
        raise InvalidImage(f"the {what} has no pixels: its size is {width} x {height}")
    if height * width > limits.max_pixels:
        raise InputTooLarge(
            f"the {what} is {width} x {height}: more than the {limits.max_pixels} pixels that are taken"
        )


def orientation(exif: bytes) -> int:
    """EXIF orientation 1..8; 1 (upright) where there is none, or a broken EXIF block: the pixels are good."""
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def _read_jpeg(data: bytes, what: str) -> Header:
    size: list[int] | None = None
    exif, at = b"", 2
    while True:
        at = data.find(b"\xff", at)
        if at < 0:
            raise IndexError
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if marker in _JPEG_WITHOUT_LENGTH:
            at += 1
            continue
        if marker in (0xD9, 0xDA):
            break
        (length,) = struct.unpack_from(">H", data, at + 1)
        if length < 2:
            raise ValueError(f"segment 0x{marker:02x} claims {length} bytes")
        if marker in _JPEG_FRAME_HEADERS and size is None:
            precision, *size = struct.unpack_from(">BHH", data, at + 3)
            if precision != 8:
                raise UnsupportedMedia(f"the {what} is a {precision}-bit JPEG; send one of 8 bits, or a PNG")
        if marker == 0xE1 and data.startswith(b"Exif\0\0", at + 3) and not exif:
            exif = data[at + 3 : at + 1 + length]
        at += 1 + length
    if size is None:
        raise ValueError("it has no frame header")
    return Header(Kind.JPEG, size[0], size[1], exif)


def _read_png(data: bytes) -> Header:
    if data[12:16] != b"IHDR":
        raise ValueError("it does not begin with IHDR")
    width, height, _, colour_type = struct.unpack_from(">IIBB", data, 16)
    exif, at, kind = b"", len(_PNG_SIGNATURE), b""
    view = memoryview(data)
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, at)
        (checksum,) = struct.unpack_from(">I", data, at + 8 + length)
        if zlib.crc32(view[at + 4 : at + 8 + length]) != checksum:
            raise ValueError(f"the checksum of its chunk {kind.decode('latin-1')!r} is wrong")
        if kind == b"eXIf":
            exif = data[at + 8 : at + 8 + length]
        at += 12 + length
    return Header(Kind.PNG, height, width, exif, indexed=colour_type == 3)


def _read_webp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 4)
    if len(data) < size + 8:
        raise ValueError(f"it is cut short, {len(data)} of {size + 8} bytes")
    found: tuple[int, int] | None = None
    exif, at = b"", 12
    while at + 8 <= size + 8:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + min(length, 10)]
        if found is None and kind == b"VP8X":
            width, height = (int.from_bytes(body[i : i + 3], "little") + 1 for i in (4, 7))
            found = height, width
        elif found is None and kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", body, 6)
            found = height & 0x3FFF, width & 0x3FFF
        elif found is None and kind == b"VP8L":
            (bits,) = struct.unpack_from("<I", body, 1)
            found = ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        elif kind == b"EXIF":
            exif = data[at + 8 : at + 8 + length]
        at += 8 + length + (length & 1)
    if found is None:
        raise ValueError("it holds no picture")
    return Header(Kind.WEBP, *found, exif)
