"""A mask file means the same to the SDK, whose first result it is, as to the server that gets its bytes."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from s2spp.v1 import segmentation_pb2 as pb
from service.client.images import labels_of
from service.client.wire import tracked_frame
from service.core.errors import InvalidMask, S2sppError
from service.core.types import EncodedImage
from service.imaging.header import ImageLimits
from service.imaging.mask import decode_mask
from tests.fakes.engine import indexed_png

IDS = np.array([[0, 1, 1, 0, 0], [0, 1, 0, 0, 7], [0, 0, 0, 0, 7]], np.uint8)
WHITE = np.where(IDS > 0, 255, 0).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def saved(image: Image.Image, turn: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    return file.getvalue()


FILES = {
    "indexed": indexed_png(IDS),
    "indexed with only 0 and 255": indexed_png(WHITE),
    "grey": png(IDS),
    "black and white": png(WHITE),
    "one bit": saved(Image.fromarray(IDS > 0)),
    "all white": png(np.full((3, 5), 255, np.uint8)),
    "nothing": png(np.zeros((3, 5), np.uint8)),
    "16 bits": png(IDS.astype(np.uint16)),
    "16 bits black and white": png(WHITE.astype(np.uint16) * 257),
    "grey stored as colour": png(cv2.merge([IDS] * 3)),
    "16-bit grey stored as colour": png(cv2.merge([IDS.astype(np.uint16)] * 3)),
    "transparent": png(cv2.merge([IDS, IDS, IDS, np.zeros_like(IDS)])),
    "grey with alpha": saved(Image.merge("LA", [Image.fromarray(IDS), Image.fromarray(WHITE)])),
    **{f"turned {turn}": saved(Image.fromarray(IDS), turn) for turn in range(1, 9)},
    "indexed, turned": saved(Image.open(io.BytesIO(indexed_png(IDS))), 6),
}


@pytest.mark.parametrize("data", FILES.values(), ids=FILES.keys())
def test_a_file_means_the_same_on_both_sides(data: bytes) -> None:
    np.testing.assert_array_equal(labels_of(data), decode_mask(EncodedImage(data), ImageLimits()), strict=True)


REFUSED = {
    "no image": b"no image",
    "a JPEG": cv2.imencode(".jpg", IDS)[1].tobytes(),
    "colours": png(cv2.merge([IDS, IDS, IDS + 1])),
    "id 300": png(IDS.astype(np.uint16) + 300),
    "cut short": png(np.random.default_rng(0).integers(0, 99, (64, 64), np.uint8))[:-200],
    "indexed, cut short": indexed_png(np.random.default_rng(0).integers(0, 99, (64, 64), np.uint8))[:-200],
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_what_the_server_refuses_has_no_meaning_here(data: bytes) -> None:
    with pytest.raises(S2sppError):
        decode_mask(EncodedImage(data), ImageLimits())
    with pytest.raises(InvalidMask):
        labels_of(data)


def test_whether_an_object_is_visible_is_the_servers_word() -> None:
    reports = [
        pb.ObjectReport(object_id=1, area=9, box=[0, 0, 3, 3], confidence=0.9, visible=False),
        pb.ObjectReport(object_id=7, area=1, box=[4, 1, 1, 1], confidence=0.6, visible=True),
    ]
    mask = pb.Mask(frame_index=4, data=indexed_png(IDS), format=pb.MASK_FORMAT_PNG, height=3, width=5, objects=reports)
    found = tracked_frame(mask, "a session")
    assert [(one.object_id, one.area, one.visible) for one in found.objects] == [(1, 9, False), (7, 1, True)]
