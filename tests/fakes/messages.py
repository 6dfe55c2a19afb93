"""Small messages of s2spp.v1 for tests over real stubs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from s2spp.v1 import segmentation_pb2 as pb
from tests.fakes.engine import indexed_png


def raw_image(value: int = 0, height: int = 4, width: int = 6) -> pb.Image:
    data = bytes([value]) * (height * width * 3)
    return pb.Image(data=data, format=pb.IMAGE_FORMAT_RAW_RGB8, height=height, width=width)


def first_labels() -> NDArray[np.uint8]:
    labels = np.zeros((4, 6), np.uint8)
    labels[1:3, 1] = 1
    labels[0, 4] = 7
    return labels


def mask_image(labels: NDArray[np.uint8]) -> pb.Image:
    return pb.Image(data=indexed_png(labels))


def opening() -> pb.OpenSession:
    return pb.OpenSession(frame=raw_image(), mask=mask_image(first_labels()))


def create_request() -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(frame=opening().frame, mask=opening().mask)


def open_request() -> pb.TrackRequest:
    return pb.TrackRequest(open=opening())


def frame_request(frame_index: int, received_through: int | None = None) -> pb.TrackRequest:
    frame = pb.Frame(frame_index=frame_index, image=raw_image(frame_index % 256))
    return pb.TrackRequest(frame=frame, received_through=received_through)


def bad_frame_request(frame_index: int) -> pb.TrackRequest:
    frame = pb.Frame(frame_index=frame_index, image=pb.Image(data=b"no image"))
    return pb.TrackRequest(frame=frame)
