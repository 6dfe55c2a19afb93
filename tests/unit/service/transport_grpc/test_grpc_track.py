"""`Track` over a real connection: order, window, failures inside a stream, and every way for one to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np
import pytest

from s2spp.v1 import segmentation_pb2 as pb
from service.core.errors import OwnershipLost, Unavailable
from service.core.types import Durability, new_session_id
from tests.fakes.engine import FakeEngine
from tests.fakes.messages import (
    bad_frame_request,
    create_request,
    frame_request,
    mask_image,
    open_request,
    raw_image,
)
from tests.fakes.waiting import PATIENCE_S, until

WINDOW = 4


async def begun(stub: Any, requests: Iterable[pb.TrackRequest]) -> Any:
    """A stream on which `requests` have been sent; not half-closed."""
    call = stub.Track(timeout=PATIENCE_S)
    for request in requests:
        await call.write(request)
    return call


async def rest(call: Any) -> list[pb.TrackResponse]:
    await call.done_writing()
    events = []
    while (event := await call.read()) is not grpc.aio.EOF:
        events.append(event)
    return events


def indices(events: list[pb.TrackResponse]) -> list[tuple[str, int]]:
    kinds = [(event.WhichOneof("event"), event) for event in events]
    return [(kind, getattr(event, kind).frame_index) for kind, event in kinds if kind != "session"]


async def test_one_answer_per_frame_in_order_whichever_is_done_first(engine: FakeEngine, stub: Any) -> None:
    engine.hold(1)
    call = await begun(stub, [open_request(), *(frame_request(index) for index in (1, 2, 3))])
    # Frames 2 and 3 are handed on, and done, while frame 1 is still without its answer.
    await until(lambda: len(engine.calls) == 3 and engine.in_flight == 1)
    engine.unhold(1)
    events = await rest(call)
    assert events[0].session.next_frame == 1 and events[0].session.session_id in engine.sessions
    assert indices(events) == [("mask", 1), ("mask", 2), ("mask", 3)]
    assert [event.mask.committed_frame for event in events[1:]] == [0, 1, 2]
    assert {call.durability for call in engine.calls} == {Durability.RELAXED}


async def test_no_more_than_the_window_is_read_ahead_of_the_answers(engine: FakeEngine, stub: Any) -> None:
    engine.hold(*range(1, 31))
    call = await begun(stub, [open_request(), *(frame_request(index) for index in range(1, 31))])
    await until(lambda: engine.in_flight == WINDOW)
    # All 30 have been sent. Without a window they would be in flight by the time this is answered.
    await stub.GetModel(pb.GetModelRequest())
    assert len(engine.calls) == WINDOW
    engine.unhold(*range(1, 31))
    assert indices(await rest(call)) == [("mask", index) for index in range(1, 31)]
    assert engine.most_in_flight == WINDOW


async def test_a_bad_frame_is_answered_in_its_place_and_the_stream_goes_on(engine: FakeEngine, stub: Any) -> None:
    engine.frame_failures[3] = Unavailable("the store is away", try_again="yes")
    engine.frame_failures[4] = RuntimeError("inner-host")
    requests = [frame_request(1), bad_frame_request(2), *(frame_request(index) for index in (3, 4, 5))]
    events = await rest(await begun(stub, [open_request(), *requests]))
    assert indices(events) == [("mask", 1), ("error", 2), ("error", 3), ("error", 4), ("mask", 5)]
    codes = [event.error.status.code for event in events[2:5]]
    assert codes == [
        grpc.StatusCode.INVALID_ARGUMENT.value[0],
        grpc.StatusCode.UNAVAILABLE.value[0],
        grpc.StatusCode.INTERNAL.value[0],
    ]
    assert b"INVALID_IMAGE" in events[2].error.status.details[0].value
    assert "inner-host" not in str(events[4])


async def test_a_stream_that_nobody_serves_any_more_ends_so_that_it_is_resumed(engine: FakeEngine, stub: Any) -> None:
    engine.frame_failures[2] = Unavailable("no worker")
    engine.frame_failures[2].ends_stream = True  # type: ignore[attr-defined]
    call = await begun(stub, [open_request(), *(frame_request(index) for index in (1, 2, 3))])
    assert (await call.read()).HasField("session")
    assert (await call.read()).mask.frame_index == 1
    with pytest.raises(grpc.aio.AioRpcError, match="no worker") as ended:
        await call.read()
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_gap_names_the_index_that_is_expected(stub: Any) -> None:
    events = await rest(await begun(stub, [open_request(), frame_request(1), frame_request(5)]))
    status = events[2].error.status
    assert status.code == grpc.StatusCode.OUT_OF_RANGE.value[0]
    assert b"expected" in status.details[0].value


async def test_half_closing_still_answers_every_frame_that_was_sent(engine: FakeEngine, stub: Any) -> None:
    engine.hold(2)
    call = await begun(stub, [open_request(), *(frame_request(index) for index in (1, 2, 3))])
    await call.done_writing()
    await until(lambda: len(engine.calls) == 3)
    engine.unhold(2)
    assert indices(await rest(call)) == [("mask", 1), ("mask", 2), ("mask", 3)]
    assert await call.code() is grpc.StatusCode.OK


async def test_cancelling_lets_go_of_every_frame_and_harms_nobody(
    engine: FakeEngine, stub: Any, caplog: pytest.LogCaptureFixture
) -> None:
    engine.hold(2, 3)
    call = await begun(stub, [open_request(), *(frame_request(index) for index in (1, 2, 3))])
    await until(lambda: engine.in_flight == 2)
    call.cancel()
    await until(lambda: engine.in_flight == 0)
    assert engine.cancelled == 2
    assert indices(await rest(await begun(stub, [open_request(), frame_request(1)]))) == [("mask", 1)]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_lost_session_ends_the_stream(engine: FakeEngine, stub: Any) -> None:
    engine.frame_failures[2] = OwnershipLost("a newer stream has the session")
    engine.hold(3)
    call = await begun(stub, [open_request(), *(frame_request(index) for index in (1, 2, 3))])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await rest(call)
    assert caught.value.code() is grpc.StatusCode.ABORTED
    await until(lambda: engine.in_flight == 0)


@pytest.mark.parametrize(
    "requests", [[], [frame_request(1)], [pb.TrackRequest()]], ids=["nothing", "a frame", "no command"]
)
async def test_a_stream_begins_with_open_or_resume(requests: list[pb.TrackRequest], stub: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="`open` or `resume`") as caught:
        await rest(await begun(stub, requests))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_second_opening_ends_the_stream_after_the_frames_before_it(stub: Any) -> None:
    call = await begun(stub, [open_request(), frame_request(1), open_request(), frame_request(2)])
    assert (await call.read()).HasField("session")
    assert (await call.read()).mask.frame_index == 1
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_resume_names_the_next_frame_and_goes_on(engine: FakeEngine, stub: Any) -> None:
    session = (await stub.CreateSession(create_request())).session.session_id
    resume = pb.TrackRequest(resume=pb.ResumeSession(session_id=session))
    await rest(await begun(stub, [resume, frame_request(1), frame_request(2)]))
    events = await rest(await begun(stub, [resume, frame_request(3)]))
    assert (events[0].session.session_id, events[0].session.next_frame) == (session, 3)
    assert indices(events) == [("mask", 3)]


async def test_resume_gives_the_answers_that_were_not_taken(engine: FakeEngine, stub: Any) -> None:
    session = (await stub.CreateSession(create_request())).session.session_id
    resume = pb.TrackRequest(resume=pb.ResumeSession(session_id=session))
    first = await rest(await begun(stub, [resume, *(frame_request(index) for index in (1, 2, 3))]))
    resume.received_through = 1
    events = await rest(await begun(stub, [resume, frame_request(4)]))
    assert events[0].session.next_frame == 4
    assert indices(events) == [("mask", 2), ("mask", 3), ("mask", 4)]
    assert [event.mask.data for event in events[1:3]] == [event.mask.data for event in first[2:]]


async def test_resume_of_an_unknown_session(stub: Any) -> None:
    call = await begun(stub, [pb.TrackRequest(resume=pb.ResumeSession(session_id=new_session_id()))])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_acknowledgements_are_passed_on_and_left_out_mean_what_was_answered(
    engine: FakeEngine, stub: Any
) -> None:
    engine.hold(2)
    call = await begun(stub, [open_request(), frame_request(1)])
    assert (await call.read()).HasField("session")
    assert (await call.read()).mask.frame_index == 1
    # Frame 2 has no answer yet when frame 3 comes: it may not count as received.
    for request in (frame_request(2), frame_request(3), frame_request(4, received_through=0)):
        await call.write(request)
    await until(lambda: len(engine.calls) == 4)
    engine.unhold(2)
    await rest(call)
    assert [call.received_through for call in engine.calls] == [0, 1, 1, 0]


async def test_frames_of_two_streams_do_not_wait_for_each_other(engine: FakeEngine, stub: Any) -> None:
    engine.hold(1)
    slow = await begun(stub, [open_request(), frame_request(1)])
    await until(lambda: engine.in_flight == 1)
    other = await begun(stub, [pb.TrackRequest(open=open_request().open), bad_frame_request(9)])
    async with asyncio.timeout(PATIENCE_S):
        assert indices(await rest(other)) == [("error", 9)]
    engine.unhold(1)
    assert indices(await rest(slow)) == [("mask", 1)]


async def test_objects_change_between_frames_in_the_order_of_the_messages(engine: FakeEngine, stub: Any) -> None:
    corner = np.zeros((4, 6), np.uint8)
    corner[0, 0] = 9
    drawing = pb.Drawing(frame_index=1, frame=raw_image(), mask=mask_image(corner))
    requests = [
        frame_request(1),
        pb.TrackRequest(draw=drawing),
        frame_request(2),
        pb.TrackRequest(remove=pb.Removal(frame_index=2, object_id=7)),
        # Comes too early: refused in its place, and the stream goes on.
        pb.TrackRequest(remove=pb.Removal(frame_index=5, object_id=1)),
        frame_request(3),
    ]
    events = await rest(await begun(stub, [open_request(), *requests]))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["session", "mask", "objects", "mask", "objects", "error", "mask"]
    assert list(events[2].objects.object_ids) == [1, 7, 9] and list(events[4].objects.object_ids) == [1, 9]
    assert [[o.object_id for o in events[n].mask.objects] for n in (1, 3, 6)] == [[1, 7], [1, 7, 9], [1, 9]]
    error = events[5].error
    assert error.of_change and error.frame_index == 5
    assert error.status.code == grpc.StatusCode.OUT_OF_RANGE.value[0]
    assert {durability for *_, durability in engine.changes} == {Durability.RELAXED}
