"""The WebSocket: order, numbering, errors in place, refusals at the handshake."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.core.errors import InvalidOption, OwnershipLost, SessionExpired, Unavailable
from service.core.ports import Resumed
from service.core.types import (
    Answer,
    DrawObjects,
    Durability,
    EncodedImage,
    Failure,
    ImageFormat,
    MaskFormat,
    RemoveObject,
)

from .conftest import LIMIT, SESSION, ScriptedEngine


def url(port: int, query: str = "", session: str = SESSION) -> str:
    return f"ws://127.0.0.1:{port}/v1/sessions/{session}/stream{query}"


@asynccontextmanager
async def stream(port: int, query: str = "") -> AsyncIterator[ClientConnection]:
    """Where it stands has been told."""
    async with connect(url(port, query)) as socket:
        assert json.loads(await socket.recv(decode=True))["session"]["session"] == SESSION
        yield socket


async def answer(socket: ClientConnection) -> tuple[dict[str, Any], bytes | None]:
    said = json.loads(await asyncio.wait_for(socket.recv(decode=True), 10))
    mask = (
        None
        if "reason" in said or ("objects" in said and "session" in said["objects"])
        else await asyncio.wait_for(socket.recv(decode=False), 10)
    )
    return said, mask


async def test_each_message_is_the_next_frame(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        for index in (1, 2, 3):
            await socket.send(b"jpeg %d" % index)
            said, mask = await answer(socket)
            assert (said["frame_index"], said["committed_frame"], mask) == (index, index, b"mask %d" % index)
    assert said["objects"][0] == {
        "object_id": 1,
        "area": 3,
        "box": [1, 2, 3, 1],
        "confidence": 0.75,
        "visible": True,
    }
    assert [call.frame.data for call in engine.calls] == [b"jpeg 1", b"jpeg 2", b"jpeg 3"]
    assert {call.durability for call in engine.calls} == {Durability.RELAXED}
    assert [call.received_through for call in engine.calls] == [0, 1, 2]


async def test_answers_keep_the_order_of_the_frames(port: int, engine: ScriptedEngine) -> None:
    engine.gates[1] = asyncio.Event()
    async with stream(port) as socket:
        for index in (1, 2, 3):
            await socket.send(b"%d" % index)
        while len(engine.calls) < 3:
            await asyncio.sleep(0.01)
        engine.gates[1].set()
        assert [(await answer(socket))[1] for _ in range(3)] == [b"mask 1", b"mask 2", b"mask 3"]
    assert [call.frame_index for call in engine.calls] == [1, 2, 3]
    assert {call.received_through for call in engine.calls} == {0}  # no mask was sent before they came


async def test_a_fast_sender_is_held_to_the_window(port: int, engine: ScriptedEngine) -> None:
    engine.gates[1] = asyncio.Event()
    async with stream(port) as socket:
        for index in range(1, 21):
            await socket.send(b"%d" % index)
        await asyncio.sleep(0.2)
        assert len(engine.calls) == 4
        engine.gates[1].set()
        assert [(await answer(socket))[0]["frame_index"] for _ in range(20)] == list(range(1, 21))


async def test_a_bad_frame_is_answered_in_place_and_the_stream_goes_on(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        for data in (b"ok", b"bad", b"ok"):
            await socket.send(data)
        assert (await answer(socket))[1] == b"mask 1"
        problem, mask = await answer(socket)
        assert (problem["reason"], problem["status"], problem["frame_index"], mask) == (
            "INVALID_IMAGE",
            400,
            2,
            None,
        )
        assert (await answer(socket))[1] == b"mask 3"


@pytest.mark.parametrize(
    ("error", "reason"), [(Unavailable("store away"), "UNAVAILABLE"), (KeyError("secret"), "INTERNAL")]
)
async def test_after_a_failure_of_the_service_the_same_frame_is_expected(
    port: int, engine: ScriptedEngine, error: Exception, reason: str
) -> None:
    async with stream(port) as socket:
        engine.failure = error
        await socket.send(b"1")
        problem, _ = await answer(socket)
        assert (problem["reason"], problem["frame_index"]) == (reason, 1)
        assert "secret" not in str(problem)
        await socket.send(b"1 again")
        assert (await answer(socket))[1] == b"mask 1"
        await socket.send(b"2")
        assert (await answer(socket))[1] == b"mask 2"


async def test_a_caller_says_where_it_left_off(port: int, engine: ScriptedEngine) -> None:
    async with stream(port, "?durability=strict&received_through=0") as socket:
        await socket.send(b"1")
        assert (await answer(socket))[1] == b"mask 1"
    assert (engine.calls[0].durability, engine.calls[0].received_through) == (Durability.STRICT, 0)


async def test_answers_not_taken_come_first_and_the_next_frame_is_named(port: int, engine: ScriptedEngine) -> None:
    engine.info = replace(engine.info, next_frame=4)
    unread = Answer(2, b"mask 2", MaskFormat.PNG, 4, 6, (), 0.0)
    engine.unread = (unread, Failure(3, "INVALID_IMAGE", "not a JPEG", {}))
    async with connect(url(port, "?received_through=1&committed_frame=2")) as socket:
        assert json.loads(await socket.recv(decode=True))["session"]["next_frame"] == 4
        assert (await answer(socket))[1] == b"mask 2"
        problem, _ = await answer(socket)
        assert (problem["reason"], problem["frame_index"]) == ("INVALID_IMAGE", 3)
        await socket.send(b"4")
        assert (await answer(socket))[1] == b"mask 4"
    assert engine.resumed == [(SESSION, 1)] and engine.told[0] == 2


async def test_who_connects_with_what_it_has_keeps_what_comes_after(port: int, engine: ScriptedEngine) -> None:
    async with stream(port, "?received_through=0") as socket:
        for index in (1, 2):
            await socket.send(b"%d" % index)
            await answer(socket)
        await socket.send('{"received_through": 2}')
        await socket.send(b"3")
        await answer(socket)
    assert [call.received_through for call in engine.calls] == [0, 0, 2]


async def test_nobody_has_the_mask_of_a_frame_that_was_not_sent(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        await socket.send(b"1")
        await answer(socket)
        await socket.send('{"received_through": 2}')
        problem, _ = await answer(socket)
        assert problem["reason"] == "INVALID_OPTION" and "the last frame sent is 1" in problem["detail"]
        assert "frame_index" not in problem  # no frame has had this answer: the next one's is still to come
        await socket.send(b"2")
        await answer(socket)
    assert [call.received_through for call in engine.calls] == [0, 1]
    # After a crash of the server, a caller may have more than the server.
    async with stream(port, "?received_through=7") as socket:
        await socket.send('{"received_through": 7}')
        await socket.send(b"3")
        assert (await answer(socket))[1] == b"mask 3"
    assert engine.calls[-1].received_through == 7


async def test_masks_are_kept_until_the_caller_says_that_it_has_them(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        await socket.send('{"received_through": 0}')
        for index in (1, 2, 3):
            await socket.send(b"%d" % index)
            await answer(socket)
            if index == 2:
                await socket.send('{"received_through": 1}')
    assert [call.received_through for call in engine.calls] == [0, 0, 1]


async def test_objects_are_drawn_and_removed_between_frames(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        await socket.send(b"1")
        await socket.send('{"draw": {}}')
        await socket.send(b"1 once more")
        await socket.send(b"mask")
        await socket.send('{"draw": {"object_id": 7, "ordinal": 2, "frame_index": 1}}')
        await socket.send(b"1 once more")
        await socket.send(b"mask")
        await socket.send('{"remove": {"object_id": 1, "ordinal": 3}}')
        await socket.send(b"2")
        assert (await answer(socket))[1] == b"mask 1"
        for _ in range(3):
            said, _ = await answer(socket)
            assert said["objects"]["session"] == SESSION
        assert (await answer(socket))[1] == b"mask 2"
    frame, mask = EncodedImage(b"1 once more"), EncodedImage(b"mask")
    assert [change[1:4] for change in engine.changes] == [
        (1, None, DrawObjects(frame, mask)),
        (1, 2, DrawObjects(frame, mask, 7)),
        (1, 3, RemoveObject(1)),
    ]


async def test_a_change_that_cannot_be_made_is_told_in_place(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        engine.failure = InvalidOption("no object 5")
        await socket.send('{"remove": {"object_id": 5}}')
        problem, _ = await answer(socket)
        assert (problem["reason"], problem["frame_index"], problem["of_change"]) == ("INVALID_OPTION", 0, True)
        await socket.send(b"1")
        assert (await answer(socket))[1] == b"mask 1"


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "[]",
        "{}",
        '{"remove": {"object_id": 0}}',
        '{"received_through": -1}',
        '{"x": 1}',
        '{"draw": null}',
        '{"draw": null, "remove": {"object_id": 0}}',
        '{"x": "\\"draw\\""}',
    ],
)
async def test_other_text_is_refused_and_takes_no_index(port: int, text: str) -> None:
    async with stream(port) as socket:
        await socket.send(text)
        problem, _ = await answer(socket)
        assert problem["reason"] == InvalidOption.reason and "binary messages" in problem["detail"]
        await socket.send(b"ok")
        assert (await answer(socket))[1] == b"mask 1"


@pytest.mark.parametrize(
    "text",
    [
        '{"draw": {}, "remove": {}}',
        '{"draw": {"objectid": 3}}',
        '{"draw": {"object_id": 300}}',
        '{"draw": true}',
        '{"draw": {"object_id"',
    ],
)
async def test_the_pictures_of_a_drawing_that_is_refused_are_no_frames(
    port: int, engine: ScriptedEngine, text: str
) -> None:
    """They are on their way before it is told."""
    async with stream(port) as socket:
        await socket.send(text)
        await socket.send(b"frame once more")
        await socket.send(b"mask")
        await socket.send(b"ok")
        problem, _ = await answer(socket)
        assert problem["reason"] == InvalidOption.reason and problem["of_change"] and "frame_index" not in problem
        assert (await answer(socket))[1] == b"mask 1"
    assert not engine.changes and [call.frame.data for call in engine.calls] == [b"ok"]


async def test_other_refused_text_leaves_the_pictures_of_a_refused_drawing_unwanted(
    port: int, engine: ScriptedEngine
) -> None:
    async with stream(port) as socket:
        await socket.send('{"draw": {"object_id": 300}}')
        await socket.send("hello")
        await socket.send(b"frame once more")
        await socket.send('{"received_through": 99}')
        for message in (b"mask", b"ok"):
            await socket.send(message)
        for _ in range(3):
            assert (await answer(socket))[0]["reason"] == InvalidOption.reason
        assert (await answer(socket))[1] == b"mask 1"
    assert [call.frame.data for call in engine.calls] == [b"ok"]


async def test_a_drawing_is_put_right_after_it_was_refused(port: int, engine: ScriptedEngine) -> None:
    """By a sender who waits for the answer, and sends no images of what was refused."""
    async with stream(port) as socket:
        for _ in range(2):
            await socket.send('{"draw": {"object_id": 300}}')
            assert (await answer(socket))[0]["of_change"]
        await socket.send('{"draw": {"object_id": 30}, "remove": null}')
        for picture in (b"frame", b"mask", b"ok"):
            await socket.send(picture)
        assert "objects" in (await answer(socket))[0]
        assert (await answer(socket))[1] == b"mask 1"
    assert [change[3] for change in engine.changes] == [DrawObjects(EncodedImage(b"frame"), EncodedImage(b"mask"), 30)]


async def test_masks_are_acknowledged_between_a_drawing_and_its_pictures(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        await socket.send('{"draw": {}}')
        await socket.send(b"frame")
        await socket.send('{"received_through": 0}')
        await socket.send(b"mask")
        assert "objects" in (await answer(socket))[0]
    assert [change[3] for change in engine.changes] == [DrawObjects(EncodedImage(b"frame"), EncodedImage(b"mask"))]


async def test_other_changes_wait_for_the_pictures_of_a_drawing(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        await socket.send('{"draw": {"object_id": 7}}')
        await socket.send('{"remove": {"object_id": 1}}')
        await socket.send('{"draw": {"object_id": 8}}')
        for picture in (b"frame", b"mask of 7", b"frame", b"mask of 8", b"ok"):
            await socket.send(picture)
        for _ in range(2):
            problem, _ = await answer(socket)
            assert "drawing before" in problem["detail"] and problem["of_change"]
        assert "objects" in (await answer(socket))[0]
        assert (await answer(socket))[1] == b"mask 1"
    assert [change[3] for change in engine.changes] == [
        DrawObjects(EncodedImage(b"frame"), EncodedImage(b"mask of 7"), 7)
    ]


async def test_a_stream_whose_session_was_taken_is_told_and_closed(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        engine.failure = OwnershipLost("a newer stream has it")
        await socket.send(b"1")
        assert (await answer(socket))[0]["reason"] == "OWNERSHIP_LOST"
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4409
    assert len(engine.left) == 1


async def test_raw_frames(port: int, engine: ScriptedEngine) -> None:
    async with stream(port, "?height=4&width=6") as socket:
        await socket.send(bytes(72))
        await answer(socket)
    frame = engine.calls[0].frame
    assert (frame.format, frame.height, frame.width) == (ImageFormat.RAW_RGB8, 4, 6)


@pytest.mark.parametrize(
    ("session", "query", "error", "status"),
    [
        (SESSION, "", SessionExpired("too late"), 410),
        ("short", "", None, 404),
        (SESSION, "?durability=never", None, 400),
        (SESSION, "?recieved_through=3", None, 400),
        ("no/such", "", None, 404),
    ],
)
async def test_a_stream_that_cannot_be_is_refused_with_its_problem(
    port: int,
    engine: ScriptedEngine,
    caplog: pytest.LogCaptureFixture,
    session: str,
    query: str,
    error: Exception | None,
    status: int,
) -> None:
    engine.failure = error
    with pytest.raises(InvalidStatus) as refused:
        async with connect(url(port, query, session)):
            pass
    response = refused.value.response
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["status"] == status
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_caller_that_leaves_before_its_stream_begins_is_no_error(
    port: int, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resume, asked, gone = engine.resume, asyncio.Event(), asyncio.Event()

    async def late(*args: Any) -> Resumed:
        asked.set()
        await gone.wait()
        return await resume(*args)

    monkeypatch.setattr(engine, "resume", late)
    leaving = asyncio.create_task(connect(url(port)).__aenter__())
    await asked.wait()
    leaving.cancel()
    await asyncio.wait([leaving])
    await asyncio.sleep(0.1)
    gone.set()
    while not engine.left:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_message_that_is_too_large_closes_the_socket_and_spares_the_session(
    port: int, engine: ScriptedEngine
) -> None:
    async with stream(port) as socket:
        await socket.send(bytes(LIMIT + 1))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
    async with stream(port) as socket:
        await socket.send(b"1")
        assert (await answer(socket))[1] == b"mask 1"


async def test_a_caller_that_leaves_does_not_break_the_frames_it_sent(port: int, engine: ScriptedEngine) -> None:
    engine.gates[1] = asyncio.Event()
    async with stream(port) as socket:
        await socket.send(b"1")
        await socket.send(b"2")
        while len(engine.calls) < 2:
            await asyncio.sleep(0.01)
    engine.gates[1].set()
    async with stream(port) as socket:
        await socket.send(b"3")
        assert (await answer(socket))[0]["frame_index"] == 3


async def test_a_stream_that_nobody_serves_any_more_is_closed_to_be_resumed(port: int, engine: ScriptedEngine) -> None:
    async with stream(port) as socket:
        engine.failure = Unavailable("no worker")
        engine.failure.ends_stream = True
        await socket.send(b"1")
        assert (await answer(socket))[0]["reason"] == "UNAVAILABLE"
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(socket.recv(), 10)
    assert closed.value.rcvd is not None and (closed.value.rcvd.code, closed.value.rcvd.reason) == (1012, "UNAVAILABLE")
