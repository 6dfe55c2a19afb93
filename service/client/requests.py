"""What both clients ask alike: channel options and the requests of s2spp.v1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from s2spp.v1 import segmentation_pb2 as pb
from service.client.images import FrameLike, MaskLike, frame_message, mask_message, put_frame
from service.core.errors import InvalidOption
from service.core.types import Flow, MaskFormat, SessionOptions, passing_key

CHANNEL_OPTIONS = [
    # The server states its own limit for frames, and a raw mask is a third of its frame.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is found soon, however long it was away.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # how long a connection may take to come about
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]
TIMEOUT_S = 30.0
"""How long a unary call may take."""
WINDOW = 8
"""Frames of a stream that may be under way: fetched, and their masks not yet taken."""
RETRY_FOR_S = 60.0
"""How long a stream that was lost is tried to be taken up again."""
FORGET_TIMEOUT_S = 2.0
"""How long leaving a stream may take to delete its session; one left behind expires by itself."""

PORT = 50051
"""Where a server listens unless told otherwise: of a target without a port."""

FLOWS = {flow: pb.Flow.Value(f"FLOW_{flow.name}") for flow in Flow}
MASK_FORMATS = {form: pb.MaskFormat.Value(f"MASK_FORMAT_{form.name}") for form in MaskFormat}
_Known = TypeVar("_Known", bound=StrEnum)
_Number = TypeVar("_Number")


def with_port(target: str) -> str:
    """gRPC would take 443. Only of a plain host: what has a colon says its port, or is an address of another form."""
    return target if ":" in target or "/" in target else f"{target}:{PORT}"


def _one_of(known: Mapping[_Known, _Number], what: str, value: _Known) -> _Number:
    """Callers without a type checker give any text."""
    if value not in known:
        raise InvalidOption(f"{what} is {', '.join(known)}, not {value!r}")
    return known[value]


def create_request(
    frame: FrameLike, mask: MaskLike, options: SessionOptions, jpeg_quality: int | None
) -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(
        frame=frame_message(frame, jpeg_quality),
        mask=mask_message(mask),
        options=pb.SessionOptions(
            mask_format=_one_of(MASK_FORMATS, "mask_format", options.mask_format),
            flow=_one_of(FLOWS, "flow", options.flow),
        ),
    )


def open_request(
    frame: FrameLike, mask: MaskLike, options: SessionOptions, jpeg_quality: int | None
) -> pb.TrackRequest:
    """May be sent again, whether or not it arrived."""
    create = create_request(frame, mask, options, jpeg_quality)
    opening = pb.OpenSession(
        frame=create.frame, mask=create.mask, options=create.options, idempotency_key=passing_key()
    )
    return pb.TrackRequest(open=opening)


def frame_request(
    frame_index: int, frame: FrameLike, jpeg_quality: int | None, received_through: int
) -> pb.TrackRequest:
    request = pb.TrackRequest(frame=pb.Frame(frame_index=frame_index), received_through=received_through)
    put_frame(request.frame.image, frame, jpeg_quality)
    return request


@dataclass(frozen=True, eq=False)
class Draw:
    """Among the frames of `track`: objects drawn on the frame before it. Every id of `mask` is added, or starts again
    from there where it is followed already; the others go on. `object_id`: all that the mask marks is this object."""

    mask: MaskLike
    object_id: int | None = None


@dataclass(frozen=True)
class Remove:
    """Among the frames of `track`: from the next frame on this object is followed no longer."""

    object_id: int


@dataclass(frozen=True)
class Place:
    """Of a change of objects: after which frame, and the manieth there, from 1 (0: not counted)."""

    frame_index: int
    ordinal: int = 0


def change_request(
    place: Place, frame: FrameLike | pb.Image, change: Draw | Remove, jpeg_quality: int | None
) -> pb.TrackRequest:
    """`frame`: the one of that index."""
    if isinstance(change, Remove):
        return pb.TrackRequest(remove=removal(place, change.object_id))
    return pb.TrackRequest(draw=drawing(place, frame, change, jpeg_quality))


def drawing(place: Place, frame: FrameLike | pb.Image, draw: Draw, jpeg_quality: int | None) -> pb.Drawing:
    return pb.Drawing(
        frame_index=place.frame_index,
        ordinal=place.ordinal,
        frame=frame if isinstance(frame, pb.Image) else frame_message(frame, jpeg_quality),
        mask=mask_message(draw.mask),
        object_id=_object_id(draw.object_id),
    )


def _object_id(given: int | None) -> int:
    """0 is the contract's word for none."""
    if given is not None and not 1 <= given <= 255:
        raise InvalidOption(f"object_id is 1 to 255, not {given}")
    return given or 0


def removal(place: Place, object_id: int) -> pb.Removal:
    return pb.Removal(frame_index=place.frame_index, ordinal=place.ordinal, object_id=_object_id(object_id))


def segment_request(
    session: str,
    frame_index: int,
    frame: FrameLike,
    received_through: int | None,
    jpeg_quality: int | None,
) -> pb.SegmentFrameRequest:
    request = pb.SegmentFrameRequest(session_id=session, frame_index=frame_index, received_through=received_through)
    put_frame(request.image, frame, jpeg_quality)
    return request
