"""Masks: what values mean, and that encoding gives back what was encoded."""

from __future__ import annotations

import io
import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco

from service.core.errors import InputTooLarge, InvalidImage, InvalidMask, UnsupportedMedia
from service.core.types import EncodedImage, ImageFormat, LabelMap, MaskFormat
from service.imaging import ImageLimits, decode_mask, encode_mask, encode_probability

LIMITS = ImageLimits()


def labels(height: int = 11, width: int = 17) -> LabelMap:
    y, x = np.mgrid[0:height, 0:width]
    return ((x // 4 + y // 3) % 5).astype(np.uint8)


def png(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def decode(data: bytes) -> LabelMap:
    return decode_mask(EncodedImage(data), LIMITS)


sizes = st.tuples(st.integers(1, 23), st.integers(1, 23))


@settings(max_examples=80, deadline=None)
@given(arrays.arrays(np.uint8, sizes))
def test_an_encoded_mask_comes_back(mask: LabelMap) -> None:
    data = encode_mask(mask, MaskFormat.PNG, ())
    assert np.array_equal(decode(data), mask)
    with Image.open(io.BytesIO(data)) as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), mask)


def test_an_encoded_mask_wears_the_davis_colours() -> None:
    with Image.open(io.BytesIO(encode_mask(labels(), MaskFormat.PNG, ()))) as image:
        palette = np.reshape(image.getpalette(), (256, 3))
    assert palette[:5].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert palette[255].tolist() == [224, 224, 192]


def test_a_mask_that_is_no_contiguous_array_is_encoded_right() -> None:
    turned = labels().T
    assert np.array_equal(decode(encode_mask(turned, MaskFormat.PNG, ())), turned)
    assert encode_mask(turned, MaskFormat.RAW, ()) == np.ascontiguousarray(turned).tobytes()


def test_raw_masks_are_a_byte_per_pixel() -> None:
    data = encode_mask(labels(), MaskFormat.RAW, ())
    back = decode_mask(EncodedImage(data, ImageFormat.RAW_RGB8, 11, 17), LIMITS)
    assert np.array_equal(back, labels())
    with pytest.raises(InvalidImage, match="187"):
        decode_mask(EncodedImage(data[:-1], ImageFormat.RAW_RGB8, 11, 17), LIMITS)


def test_run_lengths_are_pycocotools_and_name_every_object() -> None:
    found = json.loads(encode_mask(labels(), MaskFormat.RLE, (1, 3, 9)))
    assert [one["object_id"] for one in found] == [1, 3, 9]
    for one in found:
        np.testing.assert_array_equal(coco.decode(one), labels() == one["object_id"])


def test_probability_planes_lie_one_below_the_other_and_keep_the_half() -> None:
    half = np.float32(0.5)
    values = np.array([0, half, np.nextafter(half, np.float32(1)), 1], np.float32)
    planes = [np.tile(values, (3, 2)), np.full((3, 8), 0.25, np.float32)]
    found = cv2.imdecode(np.frombuffer(encode_probability(planes), np.uint8), cv2.IMREAD_UNCHANGED)
    assert found.shape == (6, 8)
    np.testing.assert_array_equal(found[:3] >= 128, planes[0] > 0.5)
    assert (found[0, 0], found[0, 3], found[3, 0]) == (0, 255, 64)


def test_palette_indices_are_ids_whatever_the_colours() -> None:
    image = Image.fromarray(labels() * 63)
    image.putpalette(bytes(768))
    assert np.array_equal(decode(png(image)), labels() * 63)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_per_index_are_unpacked(bits: int) -> None:
    values = labels() % (1 << bits)
    image = Image.fromarray(values)
    image.putpalette([17, 0, 99] * (1 << bits))
    assert np.array_equal(decode(png(image, bits=bits)), values)


def two(largest: int, dtype: type[np.unsignedinteger[Any]] = np.uint8) -> NDArray[np.unsignedinteger[Any]]:
    return ((labels() > 2) * largest).astype(dtype)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(two(255)), id="grey"),
        pytest.param(Image.fromarray(two(255) > 0), id="one bit"),
        pytest.param(Image.fromarray(np.dstack([two(255)] * 3)), id="colour"),
        pytest.param(Image.fromarray(np.dstack([two(255)] * 4)), id="colour and alpha"),
        pytest.param(Image.fromarray(np.dstack([two(255), 255 - two(255)]), "LA"), id="grey and alpha"),
        pytest.param(Image.fromarray(two(65535, np.uint16)), id="16 bits"),
    ],
)
def test_nothing_but_black_and_white_is_object_1(image: Image.Image) -> None:
    assert np.array_equal(decode(png(image)), labels() > 2)


def test_raw_black_and_white_is_object_1() -> None:
    image = EncodedImage(two(255).tobytes(), ImageFormat.RAW_RGB8, 11, 17)
    assert np.array_equal(decode_mask(image, LIMITS), labels() > 2)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(labels()), id="grey"),
        pytest.param(Image.fromarray(np.dstack([labels()] * 3)), id="colour"),
        pytest.param(Image.fromarray(labels().astype(np.uint16)), id="16 bits"),
    ],
)
def test_other_grey_values_are_object_ids(image: Image.Image) -> None:
    assert np.array_equal(decode(png(image)), labels())


def test_255_beside_other_ids_is_an_id() -> None:
    values = labels() + np.uint8(251)
    assert np.array_equal(decode(png(Image.fromarray(values))), values)


def hard(side: int = 30) -> LabelMap:
    mask = np.zeros((60, 80), np.uint8)
    mask[15 : 15 + side, 20 : 20 + side] = 255
    return mask


def smooth_line(mask: LabelMap) -> LabelMap:
    return np.asarray(cv2.line(mask, (5, 7), (70, 40), 255, 1, cv2.LINE_AA), np.uint8)


@pytest.mark.parametrize(
    "soft",
    [
        cv2.GaussianBlur(hard(), (0, 0), 0.8),
        cv2.GaussianBlur(hard(), (0, 0), 4),
        cv2.resize(hard(), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR),
        cv2.resize(hard(), None, fx=0.67, fy=0.67, interpolation=cv2.INTER_AREA),
        cv2.circle(np.zeros((60, 80), np.uint8), (40, 30), 17, 255, -1, cv2.LINE_AA),
        smooth_line(np.zeros((60, 80), np.uint8)),
        cv2.GaussianBlur(hard(), (0, 0), 2).astype(np.uint16) * 257,
    ],
    ids=["soft brush", "feather", "enlarged", "shrunk", "circle", "line", "16 bits"],
)
def test_white_on_black_with_soft_edges_is_refused_and_told_why(soft: NDArray[Any]) -> None:
    """As ids, each grey of an edge would be an object."""
    with pytest.raises(InvalidMask, match=r"soft edges .* hard brush"):
        decode(png(Image.fromarray(np.asarray(soft))))


def test_ids_are_not_taken_for_soft_edges() -> None:
    stripes = np.repeat(np.arange(236, 256, dtype=np.uint8), 4)[None].repeat(60, axis=0)
    many = hard(40)
    for n in range(9):
        many[2 + 6 * n : 6 + 6 * n, 66:72] = n + 1
    tiny = hard()
    tiny[2:4, 2:4], tiny[55, 70] = 1, 2
    ring = hard()
    ring[10:50, 15:55] = np.where(ring[10:50, 15:55] == 255, 255, 3)
    for ids in (stripes, many, tiny, ring, labels()):
        np.testing.assert_array_equal(decode(png(Image.fromarray(ids))), ids)


def test_an_all_background_mask_is_told_as_such() -> None:
    assert not decode(png(Image.fromarray(np.zeros((4, 4), np.uint8)))).any()


def test_colours_are_refused_saying_how_to_save() -> None:
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[2:5] = (128, 0, 0)
    with pytest.raises(InvalidMask, match="indexed PNG"):
        decode(png(Image.fromarray(colours)))


def test_values_beyond_a_byte_are_refused() -> None:
    deep = labels().astype(np.uint16) * 300
    with pytest.raises(InvalidMask, match="1200"):
        decode(png(Image.fromarray(deep)))
    ok, file = cv2.imencode(".png", np.dstack([deep] * 3))
    assert ok
    with pytest.raises(InvalidMask, match="1200"):
        decode(file.tobytes())


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_files_that_do_not_keep_ids_are_refused(kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(np.dstack([labels()] * 3)).save(file, kind)
    with pytest.raises(UnsupportedMedia, match="indexed PNG"):
        decode(file.getvalue())


def test_cut_damaged_and_oversized_masks_are_refused() -> None:
    data = encode_mask(labels(), MaskFormat.PNG, ())
    for length in range(0, len(data), 7):
        with pytest.raises((InvalidImage, UnsupportedMedia)):
            decode(data[:length])
    with pytest.raises(UnsupportedMedia):
        decode(b"not a picture at all")
    with pytest.raises(InputTooLarge):
        decode_mask(EncodedImage(data), ImageLimits(max_pixels=100))
    with pytest.raises(InputTooLarge):
        decode_mask(EncodedImage(data), ImageLimits(max_bytes=100))


def test_a_turned_mask_is_set_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert np.array_equal(decode(png(Image.fromarray(labels()), exif=exif)), np.rot90(labels(), -1))
