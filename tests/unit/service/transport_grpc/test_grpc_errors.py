"""Every error class through a real server: its status code, and the details that name it."""

from __future__ import annotations

import logging
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from s2spp.v1 import segmentation_pb2 as pb
from service.core import errors
from service.core.errors import S2sppError
from service.core.types import new_session_id
from service.transport.grpc.errors import STATUS_CODES
from tests.fakes.engine import FakeEngine
from tests.fakes.messages import create_request, opening, raw_image

CODES = {
    errors.InvalidInput: "INVALID_ARGUMENT",
    errors.InvalidImage: "INVALID_ARGUMENT",
    errors.UnsupportedMedia: "INVALID_ARGUMENT",
    errors.InputTooLarge: "INVALID_ARGUMENT",
    errors.InvalidMask: "INVALID_ARGUMENT",
    errors.InvalidOption: "INVALID_ARGUMENT",
    errors.IdempotencyKeyReused: "INVALID_ARGUMENT",
    errors.IdempotencyKeyInUse: "ABORTED",
    errors.SessionUnknown: "NOT_FOUND",
    errors.SessionExpired: "NOT_FOUND",
    errors.FrameAcknowledged: "ALREADY_EXISTS",
    errors.FrameDropped: "CANCELLED",
    errors.FrameGap: "OUT_OF_RANGE",
    errors.OwnershipLost: "ABORTED",
    errors.SessionRolledBack: "DATA_LOSS",
    errors.SnapshotDamaged: "DATA_LOSS",
    errors.ModelMismatch: "FAILED_PRECONDITION",
    errors.Unavailable: "UNAVAILABLE",
}


def all_classes(root: type[S2sppError]) -> set[type[S2sppError]]:
    return {root}.union(*(all_classes(child) for child in root.__subclasses__()))


def segment_request() -> pb.SegmentFrameRequest:
    return pb.SegmentFrameRequest(session_id=new_session_id(), frame_index=1, image=raw_image())


def details(error: grpc.RpcError) -> dict[str, Any]:
    status = rpc_status.from_call(error)
    assert status is not None
    found: dict[str, Any] = {}
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
        for detail in status.details:
            message = kind()
            if detail.Unpack(message):
                found[kind.__name__] = message
    return found


def test_every_error_class_has_a_row_of_its_own_or_an_ancestors() -> None:
    assert all_classes(S2sppError) == {*CODES, errors.Overloaded, S2sppError}
    assert set(STATUS_CODES) <= all_classes(S2sppError)


@pytest.mark.parametrize(("kind", "code"), CODES.items(), ids=lambda value: getattr(value, "__name__", value))
async def test_an_error_keeps_its_class_its_words_and_its_facts(
    kind: type[S2sppError], code: str, engine: FakeEngine, stub: Any
) -> None:
    engine.failure = kind("what happened, and what to do", expected=17)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SegmentFrame(segment_request())
    assert caught.value.code().name == code
    assert caught.value.details() == "what happened, and what to do"
    info = details(caught.value)["ErrorInfo"]
    assert (info.reason, info.domain, dict(info.metadata)) == (kind.reason, "s2spp.dev", {"expected": "17"})


async def test_overload_says_when_to_come_back(engine: FakeEngine, stub: Any) -> None:
    engine.failure = errors.Overloaded("full", retry_after_s=2.5)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CreateSession(create_request())
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    found = details(caught.value)
    assert found["ErrorInfo"].reason == "OVERLOADED"
    assert found["RetryInfo"].retry_delay.ToTimedelta().total_seconds() == 2.5


@pytest.mark.parametrize(
    ("method", "request_message"),
    [
        ("CreateSession", create_request()),
        ("SegmentFrame", segment_request()),
        ("GetSession", pb.GetSessionRequest(session_id=new_session_id())),
        ("DeleteSession", pb.DeleteSessionRequest(session_id=new_session_id())),
        ("GetModel", pb.GetModelRequest()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_defect_is_logged_and_not_told(
    method: str, request_message: Any, engine: FakeEngine, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine.failure = RuntimeError("password of redis://inner-host")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await getattr(stub, method)(request_message)
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "inner-host" not in repr((caught.value.details(), caught.value.trailing_metadata()))
    assert details(caught.value)["ErrorInfo"].reason == "INTERNAL"
    (record,) = [record for record in caplog.records if record.name == "service.transport.grpc.errors"]
    assert record.levelno == logging.ERROR and "inner-host" in caplog.text and "Traceback" in caplog.text


@pytest.mark.parametrize("command", ["open", "resume"])
async def test_a_stream_that_cannot_begin_ends_with_the_errors_status(
    command: str, engine: FakeEngine, stub: Any
) -> None:
    engine.failure = errors.ModelMismatch("another model")
    first = {
        "open": pb.TrackRequest(open=opening()),
        "resume": pb.TrackRequest(resume=pb.ResumeSession(session_id=new_session_id())),
    }[command]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Track(iter([first])).read()
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert details(caught.value)["ErrorInfo"].reason == "MODEL_MISMATCH"


@pytest.mark.parametrize(
    ("request_message", "reason"),
    [
        (pb.SegmentFrameRequest(session_id="guess", frame_index=1, image=raw_image()), "SESSION_UNKNOWN"),
        (pb.SegmentFrameRequest(frame_index=1, image=raw_image()), "SESSION_UNKNOWN"),
        (
            pb.SegmentFrameRequest(session_id=new_session_id(), frame_index=1, image=pb.Image(format=99)),
            "INVALID_OPTION",
        ),
    ],
    ids=["malformed session id", "no session id", "unknown image format"],
)
async def test_senseless_requests_never_reach_the_engine(
    request_message: pb.SegmentFrameRequest, reason: str, engine: FakeEngine, stub: Any
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.SegmentFrame(request_message)
    code = grpc.StatusCode.NOT_FOUND if reason == "SESSION_UNKNOWN" else grpc.StatusCode.INVALID_ARGUMENT
    assert (caught.value.code(), details(caught.value)["ErrorInfo"].reason) == (code, reason)
    assert engine.calls == []


async def test_an_unknown_mask_format_is_refused(stub: Any) -> None:
    request = create_request()
    request.options.mask_format = 99
    with pytest.raises(grpc.aio.AioRpcError, match="MASK_FORMAT_PNG"):
        await stub.CreateSession(request)


METHODS = [method.name for method in pb.DESCRIPTOR.services_by_name["Segmentation"].methods if method.name != "Track"]
NO_MESSAGE = b"\x0a\xff\xff\xff"


@pytest.mark.parametrize("method", METHODS)
async def test_bytes_that_are_no_message_are_the_callers_fault(
    method: str, channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(f"/s2spp.v1.Segmentation/{method}")(NO_MESSAGE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert details(caught.value)["ErrorInfo"].reason == "INVALID_INPUT"
    assert not caplog.records


async def test_bytes_that_are_no_message_end_a_stream_after_what_came_before(
    channel: grpc.aio.Channel, stub: Any
) -> None:
    messages = [pb.TrackRequest(open=opening()).SerializeToString(), NO_MESSAGE]
    stream = channel.stream_stream("/s2spp.v1.Segmentation/Track")(iter(messages))
    session = pb.TrackResponse.FromString(await stream.read()).session.session_id
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (await stub.GetSession(pb.GetSessionRequest(session_id=session))).session.next_frame == 1
