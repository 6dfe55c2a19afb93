"""Messages of s2spp.v1 <-> the types of service.core, which does not know protobuf."""

from __future__ import annotations

from s2spp.v1 import segmentation_pb2 as pb
from service.core.errors import InvalidOption
from service.core.ports import Delivered
from service.core.types import (
    DrawObjects,
    Durability,
    EncodedImage,
    Flow,
    ImageFormat,
    MaskFormat,
    ModelInfo,
    SessionInfo,
    SessionOptions,
)

_IMAGE_FORMATS = {
    pb.IMAGE_FORMAT_UNSPECIFIED: ImageFormat.AUTO,
    pb.IMAGE_FORMAT_RAW_RGB8: ImageFormat.RAW_RGB8,
}
_MASK_FORMATS_OUT = {form: pb.MaskFormat.Value(f"MASK_FORMAT_{form.name}") for form in MaskFormat}
_MASK_FORMATS = {
    pb.MASK_FORMAT_UNSPECIFIED: MaskFormat.PNG,
    **{value: form for form, value in _MASK_FORMATS_OUT.items()},
}
_FLOWS = {
    pb.FLOW_UNSPECIFIED: Flow.LOSSLESS,
    **{pb.Flow.Value(f"FLOW_{flow.name}"): flow for flow in Flow},
}

_DURABILITIES = {
    pb.DURABILITY_UNSPECIFIED: None,
    **{pb.Durability.Value(f"DURABILITY_{each.name}"): each for each in Durability},
}


def image(message: pb.Image) -> EncodedImage:
    """Raises InvalidOption for a format of a newer contract than this server's."""
    if message.format not in _IMAGE_FORMATS:
        raise InvalidOption(f"unknown image format {message.format}; use one of {pb.ImageFormat.keys()}")
    return EncodedImage(message.data, _IMAGE_FORMATS[message.format], message.height, message.width)


def options(message: pb.SessionOptions) -> SessionOptions:
    """Raises InvalidOption for a format of a newer contract than this server's."""
    if message.mask_format not in _MASK_FORMATS:
        raise InvalidOption(f"unknown mask format {message.mask_format}; use one of {pb.MaskFormat.keys()}")
    if message.flow not in _FLOWS:
        raise InvalidOption(f"unknown flow {message.flow}; use one of {pb.Flow.keys()}")
    return SessionOptions(_MASK_FORMATS[message.mask_format], _FLOWS[message.flow])


def drawing(message: pb.Drawing) -> DrawObjects:
    """Raises InvalidOption for a format of a newer contract than this server's."""
    return DrawObjects(image(message.frame), image(message.mask), message.object_id or None)


def place(message: pb.Drawing | pb.Removal) -> tuple[int | None, int | None]:
    """The frame that a change comes after, and its ordinal there."""
    return message.frame_index if message.HasField("frame_index") else None, message.ordinal or None


def durability(message: pb.Frame | pb.Drawing | pb.Removal | pb.SegmentFrameRequest, usual: Durability) -> Durability:
    """Raises InvalidOption for one of a newer contract than this server's."""
    if message.durability not in _DURABILITIES:
        raise InvalidOption(f"unknown durability {message.durability}; use one of {pb.Durability.keys()}")
    return _DURABILITIES[message.durability] or usual


def session_message(info: SessionInfo) -> pb.Session:
    return pb.Session(
        session_id=info.session,
        model=info.model,
        model_digest=info.model_digest,
        height=info.height,
        width=info.width,
        object_ids=info.object_ids,
        next_frame=info.next_frame,
        committed_frame=info.committed_frame,
        expires_in_s=info.expires_in_s,
        epoch=info.epoch,
    )


def mask_message(delivered: Delivered) -> pb.Mask:
    answer = delivered.answer
    return pb.Mask(
        frame_index=answer.frame_index,
        data=answer.mask,
        format=_MASK_FORMATS_OUT[answer.mask_format],
        height=answer.height,
        width=answer.width,
        objects=[
            pb.ObjectReport(
                object_id=report.object_id,
                area=report.area,
                box=report.box,
                confidence=report.confidence,
                visible=report.visible,
            )
            for report in answer.objects
        ],
        committed_frame=delivered.committed_frame,
        compute_ms=answer.compute_ms,
        epoch=delivered.epoch,
    )


def model_message(info: ModelInfo) -> pb.GetModelResponse:
    return pb.GetModelResponse(
        name=info.name,
        digest=info.digest,
        pixel_budget=info.pixel_budget,
        multiple=info.multiple,
        states=[
            pb.StateTensor(
                name=state.name,
                shape=[str(side) for side in state.shape],
                dtype=state.dtype,
                constant=state.constant,
            )
            for state in info.states
        ],
        training_data=info.training_data,
        licence=info.licence,
        scores=info.scores,
        provider=info.provider,
        chosen=info.chosen,
    )
