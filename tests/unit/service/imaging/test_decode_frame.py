"""Frames: every kind of file becomes upright RGB8, whole or not at all."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.core.errors import InputTooLarge, InvalidImage, S2sppError, UnsupportedMedia
from service.core.types import EncodedImage, ImageFormat
from service.imaging import ImageLimits, decode_frame

LIMITS = ImageLimits()


def picture(height: int = 37, width: int = 53) -> NDArray[np.uint8]:
    """Smooth, unsymmetrical colours: JPEG keeps them nearly, and a turned one is told apart."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 // width, y * 255 // height, (x + y) * 255 // (height + width)]
    return np.dstack(channels).astype(np.uint8)


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(data: bytes, limits: ImageLimits = LIMITS) -> NDArray[np.uint8]:
    frame = decode_frame(EncodedImage(data), limits)
    assert frame.dtype == np.uint8 and frame.ndim == 3 and frame.flags.c_contiguous
    return frame


def distance(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    assert one.shape == other.shape
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:0"}, {"keep_rgb": True}])
def test_jpeg_is_read_as_it_was_written(options: dict[str, Any]) -> None:
    assert distance(decode(save(Image.fromarray(picture()), "JPEG", quality=97, **options)), picture()) < 4


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_lossless_files_keep_every_bit(kind: str, options: dict[str, Any]) -> None:
    assert np.array_equal(decode(save(Image.fromarray(picture()), kind, **options)), picture())


def test_lossy_webp_is_read() -> None:
    assert distance(decode(save(Image.fromarray(picture()), "WEBP", quality=95)), picture()) < 6


def test_raw_pixels_are_taken_as_they_are() -> None:
    image = EncodedImage(picture().tobytes(), ImageFormat.RAW_RGB8, 37, 53)
    assert np.array_equal(decode_frame(image, LIMITS), picture())


@pytest.mark.parametrize(("height", "width"), [(37, 54), (0, 53), (0, 0)])
def test_raw_pixels_must_fill_the_size_they_claim(height: int, width: int) -> None:
    with pytest.raises(InvalidImage):
        decode_frame(EncodedImage(picture().tobytes(), ImageFormat.RAW_RGB8, height, width), LIMITS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_exif_orientation_is_applied(orientation: int, kind: str, endian: str) -> None:
    options: dict[str, Any] = {"JPEG": {"quality": 97}, "PNG": {}, "WEBP": {"lossless": True}}[kind]
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = orientation
    data = save(Image.fromarray(picture()), kind, exif=exif, **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    assert (expected.shape[0] > expected.shape[1]) == (orientation >= 5)
    assert distance(decode(data), expected) < 3


@pytest.mark.parametrize("exif", [b"garbage", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x09"])
def test_broken_exif_leaves_the_picture_alone(exif: bytes) -> None:
    data = save(Image.fromarray(picture()), "PNG", exif=b"Exif\0\0" + exif)
    assert np.array_equal(decode(data), picture())


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_fills_three_channels(kind: str) -> None:
    grey = picture()[..., 0]
    frame = decode(save(Image.fromarray(grey), kind))
    assert distance(frame, np.dstack([grey] * 3)) < 2
    assert np.array_equal(frame[..., 0], frame[..., 2])


def test_one_bit_is_black_and_white() -> None:
    bits = picture()[..., 0] > 100
    assert np.array_equal(decode(save(Image.fromarray(bits), "PNG")), np.dstack([bits * np.uint8(255)] * 3))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_ignored(kind: str) -> None:
    alpha = np.zeros((37, 53), np.uint8)
    alpha[:, ::2] = 200
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    data = save(Image.fromarray(np.dstack([picture(), alpha])), kind, **options)
    assert np.array_equal(decode(data), picture())


def test_a_palette_gives_its_colours() -> None:
    indexed = Image.fromarray(picture()).quantize(16)
    data = save(indexed, "PNG", transparency=3)
    assert np.array_equal(decode(data), np.asarray(indexed.convert("RGB")))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_upper_eight(channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 1 << 16, (20, 30, channels)).astype(np.uint16)
    frame = decode(cv2.imencode(".png", deep[..., ::-1])[1].tobytes())
    assert np.array_equal(frame, np.broadcast_to(deep >> 8, (20, 30, 3)))


def test_cmyk_becomes_rgb() -> None:
    ink = np.dstack([255 - picture(), np.full((37, 53), 64, np.uint8)])
    data = save(Image.fromarray(ink, "CMYK"), "JPEG", quality=98)
    paper = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert distance(decode(data), paper) < 2


def test_an_animation_gives_its_first_picture() -> None:
    more = [Image.fromarray(picture()[::-1].copy())]
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = save(Image.fromarray(picture()), kind, save_all=True, append_images=more, **options)
        assert np.array_equal(decode(data), picture())


@pytest.mark.parametrize(
    ("kind", "options"),
    [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {}), ("WEBP", {}), ("WEBP", {"lossless": True})],
)
def test_a_file_cut_anywhere_is_never_half_a_picture(kind: str, options: dict[str, Any]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    data = save(Image.fromarray(noise), kind, **options)
    for length in sorted({1, 2, 3, 11, 12, 16, 30, *range(0, len(data), 97), len(data) - 2, len(data) - 1}):
        with pytest.raises((InvalidImage, UnsupportedMedia)):
            decode(data[:length])
    for length in range(len(data) // 3, len(data) - 1000, 97):
        with pytest.raises(InvalidImage):
            decode(data[:length] + data[-2:])  # an end marker glued on


def test_a_png_damaged_in_the_middle_is_refused() -> None:
    data = bytearray(save(Image.fromarray(picture()), "PNG"))
    data[len(data) // 2] ^= 4
    with pytest.raises(InvalidImage, match="checksum"):
        decode(bytes(data))


def test_a_png_with_too_few_rows_is_refused() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 50, 50, 8, 2, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(bytes(151 * 20)))
    with pytest.raises(InvalidImage):
        decode(b"\x89PNG\r\n\x1a\n" + header + rows + chunk(b"IEND", b""))


def test_stray_bytes_before_the_end_of_a_jpeg_are_no_damage() -> None:
    data = save(Image.fromarray(picture()), "JPEG", quality=97)
    assert distance(decode(data[:-2] + bytes(7) + data[-2:]), picture()) < 4


def test_a_jpeg_of_an_unknown_revision_is_read_but_not_half_of_it() -> None:
    data = save(Image.fromarray(picture(200, 300)), "JPEG", quality=97)
    odd = data.replace(b"JFIF\0\x01", b"JFIF\0\x09", 1)
    assert distance(decode(odd), picture(200, 300)) < 4
    with pytest.raises(InvalidImage):
        decode(odd[: len(odd) // 2])


def claim(data: bytes, height: int, width: int, kind: str) -> bytes:
    """The same file with another size in its header."""
    if kind == "PNG":
        body = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        return data[:12] + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        return data[:at] + struct.pack(">HH", height, width) + data[at + 4 :]
    at = data.index(b"VP8L") + 8
    (bits,) = struct.unpack_from("<I", data, at + 1)
    bits = (bits >> 28 << 28) | ((height - 1) & 0x3FFF) << 14 | ((width - 1) & 0x3FFF)
    return data[: at + 1] + struct.pack("<I", bits) + data[at + 5 :]


@pytest.mark.parametrize(
    ("kind", "side"),
    [("JPEG", 20_000), ("JPEG", 65_535), ("PNG", 20_000), ("PNG", 2**31 - 1), ("WEBP", 16_384)],
)
def test_a_header_that_claims_too_much_costs_nothing(kind: str, side: int) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = claim(save(Image.fromarray(picture()), kind, **options), side, side, kind)
    tracemalloc.start()
    try:
        with pytest.raises(InputTooLarge, match=str(side)):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize(("height", "width"), [(0, 0), (0, 53), (37, 0)])
def test_a_header_that_claims_nothing_is_refused(kind: str, height: int, width: int) -> None:
    with pytest.raises(InvalidImage):
        decode(claim(save(Image.fromarray(picture()), kind), height, width, kind))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_header_of_another_size_than_the_pixels_is_refused(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    with pytest.raises(S2sppError):
        decode(claim(save(Image.fromarray(picture(64, 64)), kind, **options), 512, 512, kind))


def test_more_bytes_or_pixels_than_allowed_are_refused() -> None:
    data = save(Image.fromarray(picture()), "PNG")
    with pytest.raises(InputTooLarge, match="bytes"):
        decode(data, ImageLimits(max_bytes=len(data) - 1))
    with pytest.raises(InputTooLarge, match="53 x 37"):
        decode(data, ImageLimits(max_pixels=37 * 53 - 1))
    decode(data, ImageLimits(max_bytes=len(data), max_pixels=37 * 53))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_pictures_are_refused_naming_what_is_read(kind: str) -> None:
    with pytest.raises(UnsupportedMedia, match=rf"{kind}.*JPEG, PNG, WebP"):
        decode(save(Image.fromarray(picture()), kind))


def test_text_and_nothing_are_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="JPEG, PNG, WebP"):
        decode(b"hello, this is no picture")
    with pytest.raises(InvalidImage, match="empty"):
        decode(b"")
