"""A mask file means the same to the SDK, whose first result it is, as to the server that gets its bytes."""

from __future__ import annotations

import io
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from s2spp.v1 import segmentation_pb2 as pb
from service.client.images import FrameLike, frame_message, labels_of, mask_message
from service.client.wire import tracked_frame
from service.core.errors import InvalidImage, InvalidMask, S2sppError
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


RGB = np.random.default_rng(3).integers(0, 256, (6, 8, 3), np.uint8)


@pytest.mark.parametrize("kind", ["Pillow", "Pillow, turned", "PyAV", "OpenCV", "path"])
def test_a_frame_may_come_from_any_of_the_usual_places(kind: str, tmp_path: Path) -> None:
    frame: FrameLike
    match kind:
        case "Pillow":
            frame = Image.fromarray(RGB)
        case "Pillow, turned":
            frame = Image.open(io.BytesIO(saved(Image.fromarray(np.rot90(RGB)), turn=6)))
        case "PyAV":
            frame = av.VideoFrame.from_ndarray(RGB, format="rgb24")
        case "OpenCV":
            frame = cv2.cvtColor(RGB, cv2.COLOR_RGB2BGR)[..., ::-1]
        case _:
            frame = tmp_path / "frame.png"
            Image.fromarray(RGB).save(frame)
            assert frame_message(frame, None).data == frame_message(str(frame), None).data == frame.read_bytes()
            return
    message = frame_message(frame, None)
    np.testing.assert_array_equal(np.frombuffer(message.data, np.uint8).reshape(6, 8, 3), RGB)
    assert (message.height, message.width, message.format) == (6, 8, pb.IMAGE_FORMAT_RAW_RGB8)


@pytest.mark.parametrize("frame", [Image.new("I", (4, 4)), 7, [[1]], np.zeros((4, 4), np.uint8)])
def test_what_is_no_frame_is_named(frame: object) -> None:
    with pytest.raises(InvalidImage):
        frame_message(frame, None)  # type: ignore[arg-type]


def test_a_mask_may_be_a_path_or_a_pillow_image(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    path.write_bytes(indexed_png(IDS))
    for mask in (path, str(path), Image.open(path), Image.fromarray(IDS), Image.fromarray(IDS > 0)):
        np.testing.assert_array_equal(labels_of(mask) > 0, IDS > 0)
        server = decode_mask(EncodedImage(mask_message(mask).data), ImageLimits())
        np.testing.assert_array_equal(labels_of(mask), server)
    with pytest.raises(InvalidMask, match="mode RGB"):
        labels_of(Image.fromarray(RGB))


def test_whether_an_object_is_visible_is_the_servers_word() -> None:
    reports = [
        pb.ObjectReport(object_id=1, area=9, box=[0, 0, 3, 3], confidence=0.9, visible=False),
        pb.ObjectReport(object_id=7, area=1, box=[4, 1, 1, 1], confidence=0.6, visible=True),
    ]
    mask = pb.Mask(frame_index=4, data=indexed_png(IDS), format=pb.MASK_FORMAT_PNG, height=3, width=5, objects=reports)
    found = tracked_frame(mask, "a session")
    assert [(one.object_id, one.area, one.visible) for one in found.objects] == [(1, 9, False), (7, 1, True)]
