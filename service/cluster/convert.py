"""The types of service.core -> messages to a worker, and a worker's answers back. Pixels pass as they came."""

from __future__ import annotations

from s2spp.v1 import segmentation_pb2 as pb
from service.client.requests import FLOWS, MASK_FORMATS
from service.client.wire import object_report
from service.core.ports import Delivered
from service.core.types import (
    Answer,
    DrawObjects,
    Durability,
    EncodedImage,
    ImageFormat,
    ObjectChange,
    SessionOptions,
)

_IMAGE_FORMATS = {
    ImageFormat.AUTO: pb.IMAGE_FORMAT_UNSPECIFIED,
    ImageFormat.RAW_RGB8: pb.IMAGE_FORMAT_RAW_RGB8,
}
_MASK_FORMATS = {value: form for form, value in MASK_FORMATS.items()}
_DURABILITIES = {each: pb.Durability.Value(f"DURABILITY_{each.name}") for each in Durability}


def image(given: EncodedImage) -> pb.Image:
    made = pb.Image()
    put_image(made, given)
    return made


def put_image(place: pb.Image, given: EncodedImage) -> None:
    """Where it belongs in a message: put there as a message of its own it is copied, level by level."""
    place.data, place.format = given.data, _IMAGE_FORMATS[given.format]
    place.height, place.width = given.height, given.width


def options(given: SessionOptions) -> pb.SessionOptions:
    return pb.SessionOptions(mask_format=MASK_FORMATS[given.mask_format], flow=FLOWS[given.flow])


def durability(given: Durability) -> pb.Durability.ValueType:
    return _DURABILITIES[given]


def frame_request(frame_index: int, given: EncodedImage, durable: Durability, again: bool) -> pb.TrackRequest:
    frame = pb.Frame(frame_index=frame_index, durability=durability(durable), again=again)
    request = pb.TrackRequest(frame=frame)
    put_image(request.frame.image, given)
    return request


def change(
    frame_index: int | None, given: ObjectChange, ordinal: int | None, durable: Durability
) -> pb.Drawing | pb.Removal:
    if isinstance(given, DrawObjects):
        return pb.Drawing(
            frame_index=frame_index,
            frame=image(given.frame),
            mask=image(given.mask),
            ordinal=ordinal or 0,
            object_id=given.as_object or 0,
            durability=durability(durable),
        )
    return pb.Removal(
        frame_index=frame_index, object_id=given.object_id, ordinal=ordinal or 0, durability=durability(durable)
    )


def change_request(given: pb.Drawing | pb.Removal) -> pb.TrackRequest:
    return pb.TrackRequest(draw=given) if isinstance(given, pb.Drawing) else pb.TrackRequest(remove=given)


def answer(mask: pb.Mask) -> Answer:
    return Answer(
        frame_index=mask.frame_index,
        mask=mask.data,
        mask_format=_MASK_FORMATS[mask.format],
        height=mask.height,
        width=mask.width,
        objects=tuple(map(object_report, mask.objects)),
        compute_ms=mask.compute_ms,
    )


def delivered(mask: pb.Mask) -> Delivered:
    return Delivered(answer(mask), mask.committed_frame, mask.epoch)
