"""The SDK's stream over a real engine that fails, stops or loses its memory: one outcome per frame, in order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from s2spp.v1 import segmentation_pb2 as pb
from service.client import AsyncClient, Client, Draw, Remove, TrackedFrame
from service.client.feed import Attempt, Feed, TrackItem
from service.client.requests import WINDOW
from service.core.errors import (
    FrameAcknowledged,
    FrameDropped,
    FrameGap,
    InvalidMask,
    InvalidOption,
    S2sppError,
    SessionRolledBack,
    SessionUnknown,
    Unavailable,
)
from service.core.types import Flow, MaskFormat, SessionId, SessionOptions
from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine_world import World, first_labels
from tests.fakes.waiting import in_thread, until

MASK = first_labels()
FRAMES = 30


def video(length: int = FRAMES) -> list[np.ndarray[Any, Any]]:
    return list(np.random.default_rng(0).integers(0, 256, (length, 36, 64, 3), np.uint8))


def corner(object_id: int, left: int = 2) -> np.ndarray[Any, Any]:
    labels = np.zeros((36, 64), np.uint8)
    labels[2:20, left : left + 12] = object_id
    return labels


def script() -> Iterator[TrackItem]:
    """Objects are added, drawn twice to and fro, and removed; one change is a mistake."""
    for index, frame in enumerate(video()):
        yield frame
        if index == 4:
            yield Draw(corner(2), object_id=9)
        if index == 12:
            yield from (Draw(corner(9, 30)), Draw(np.zeros((36, 64), np.uint8)), Draw(corner(9)), Draw(corner(9, 30)))
        if index == 20:
            yield Remove(1)


class Server:
    """`restart` loses what is in memory, as a crash does, on the same port."""

    def __init__(self) -> None:
        self.world = World()
        self.port = 0
        self._server: GrpcServer | None = None

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await start_grpc(self.world.engine, f"127.0.0.1:{self.port}")
        self.port = self._server.port

    async def restart(self) -> None:
        self.world.crash()
        await self.stop()
        await self.start()

    async def stop(self) -> None:
        assert self._server is not None
        await self._server.stop(0)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.start()
    yield server
    await server.stop()
    await server.world.end()


Seen = list[tuple[int, tuple[int, ...], bytes]]


def seen(result: TrackedFrame) -> tuple[int, tuple[int, ...], bytes]:
    return result.frame_index, tuple(report.object_id for report in result.objects), result.labels.tobytes()


def follow(
    server: Server, on_result: Callable[[TrackedFrame], None] = lambda result: None, **options: Any
) -> tuple[Seen, list[tuple[int, type[S2sppError]]]]:
    found: Seen = []
    errors: list[tuple[int, type[S2sppError]]] = []
    with Client(server.target, retry_for_s=20) as client:
        for result in client.track(
            script(), MASK, on_frame_error=lambda index, error: errors.append((index, type(error))), **options
        ):
            found.append(seen(result))
            on_result(result)
    return found, errors


async def test_every_frame_once_whatever_restarts_and_however_often(server: Server) -> None:
    undisturbed, errors = await in_thread(lambda: follow(server))
    assert [index for index, *_ in undisturbed] == list(range(FRAMES))
    assert errors == [(12, InvalidMask)]
    ids = [(1, 3)] * 5 + [(1, 3, 9)] * 16 + [(3, 9)] * 9
    assert [found for _, found, _ in undisturbed] == ids
    await server.restart()
    loop = asyncio.get_running_loop()

    def restart(result: TrackedFrame) -> None:
        if result.frame_index in (3, 11, 12, 13, 20, 28):
            asyncio.run_coroutine_threadsafe(server.restart(), loop).result()

    again, errors = await in_thread(lambda: follow(server, restart))
    assert again == undisturbed
    assert errors in ([(12, InvalidMask)], [])  # told once, or made good as part of what was stored


async def test_a_server_that_goes_away_while_it_opens_is_asked_again(server: Server) -> None:
    undisturbed, _ = await in_thread(lambda: follow(server))
    await server.restart()
    server.world.runtime.gate.clear()
    following = asyncio.create_task(in_thread(lambda: follow(server)))
    await until(lambda: server.world.runtime.busy)
    await server.restart()
    assert (await following)[0] == undisturbed


async def test_a_model_that_fails_now_and_then_is_asked_again(server: Server) -> None:
    undisturbed, _ = await in_thread(lambda: follow(server))

    def fail(result: TrackedFrame) -> None:
        if result.frame_index in (2, 9, 17):
            server.world.runtime.failures = 2

    assert (await in_thread(lambda: follow(server, fail)))[0] == undisturbed


async def test_a_model_that_always_fails_is_told(server: Server) -> None:
    def fail(result: TrackedFrame) -> None:
        if result.frame_index == 2:
            server.world.runtime.poison = lambda frame: True

    with pytest.raises(S2sppError, match="internal error"):
        await in_thread(lambda: follow(server, fail))


def test_a_frame_that_the_stream_before_had_sent_is_asked_for_though_it_is_stored() -> None:
    """It was under way when that stream ended: its answer is kept for who sends it again, and comes to nobody else."""
    feed = Feed(video(), None, first_index=0, received_through=13)
    attempt = Attempt()
    attempt.begin(18)  # the answers of 14 to 17 follow, and with them comes the news that 18 and 19 are stored
    sending = feed.requests(pb.TrackRequest(), attempt)
    next(sending)
    feed.committed(17)
    feed.taken(14)
    feed.committed(19)
    sent = [next(sending).frame.frame_index for _ in range(2)]
    feed.committed(25)
    sent += [next(sending).frame.frame_index for _ in range(2)]
    assert sent == [18, 19, 20, 21]


async def test_a_new_client_goes_on_where_another_one_was_left(server: Server) -> None:
    undisturbed, _ = await in_thread(lambda: follow(server))

    def first_client() -> tuple[str, Seen]:
        found = []
        with Client(server.target) as client:
            for result in client.track(script(), MASK, on_frame_error=lambda *_: None, keep_session=True):
                found.append(seen(result))
                if result.frame_index == 14:
                    break
        return result.session, found

    def second_client(session: str, received_through: int, **options: Any) -> Seen:
        with Client(server.target) as client:
            return [
                seen(result)
                for result in client.resume(
                    session, script(), received_through, on_frame_error=lambda *_: None, **options
                )
            ]

    for has in (
        14,
        13,
    ):  # after changes of objects; the last one taken was never acknowledged: it may not have reached the disk
        session, found = await in_thread(first_client)
        rest = await in_thread(lambda session=session, has=has: second_client(session, has))
        assert found[: has + 1] + rest == undisturbed
        with pytest.raises(SessionUnknown):  # deleted at the end
            await in_thread(lambda session=session: second_client(session, 29))

    # A mistake loses nothing.
    session, found = await in_thread(first_client)
    with pytest.raises(FrameAcknowledged, match="acknowledged"):
        await in_thread(lambda: second_client(session, 5))
    assert found + await in_thread(lambda: second_client(session, 14)) == undisturbed
    session, _ = await in_thread(first_client)
    with pytest.raises(FrameGap):
        await in_thread(lambda: second_client(session, 14, first_index=100))


@pytest.mark.parametrize(("length", "received_through"), [(8, 14), (8, 13), (FRAMES, 10**18)])
async def test_frames_that_end_before_what_the_session_has_had_are_not_its_own(
    server: Server, length: int, received_through: int
) -> None:
    """The session stays for who gives the right ones."""
    expected = await in_thread(lambda: [seen(result) for result in Client(server.target).track(video(), MASK)])

    def begin() -> str:
        with Client(server.target) as client:
            for result in client.track(video(), MASK, keep_session=True):
                if result.frame_index == 14:
                    return result.session
        raise AssertionError

    def resume(frames: int, through: int) -> Seen:
        with Client(server.target) as client:
            return [seen(result) for result in client.resume(session, video(frames), through)]

    session = await in_thread(begin)
    with pytest.raises(InvalidOption, match=f"those given end with {length - 1}"):
        await in_thread(lambda: resume(length, received_through))
    at = (await in_thread(lambda: Client(server.target).session(session))).next_frame
    assert await in_thread(lambda: resume(FRAMES, at - 1)) == expected[at:]


async def test_no_frame_has_a_negative_index(server: Server) -> None:
    with pytest.raises(InvalidOption, match="not -1"):
        await in_thread(lambda: list(Client(server.target).resume("s" * 32, video(), -1)))


async def test_a_client_that_resumed_goes_on_through_a_crash_too(server: Server) -> None:
    """What the server had, and had not stored, is asked for again: the new client must have kept it."""
    undisturbed, _ = await in_thread(lambda: follow(server))
    loop = asyncio.get_running_loop()

    def first_client() -> tuple[str, Seen]:
        found = []
        with Client(server.target) as client:
            for result in client.track(script(), MASK, on_frame_error=lambda *_: None, keep_session=True):
                found.append(seen(result))
                if result.frame_index == 13:
                    break
        return result.session, found

    session, found = await in_thread(first_client)

    def second_client() -> Seen:
        rest = []
        with Client(server.target, retry_for_s=20) as client:
            for result in client.resume(session, script(), 13, on_frame_error=lambda *_: None):
                rest.append(seen(result))
                if result.frame_index in (14, 15, 22):
                    asyncio.run_coroutine_threadsafe(server.restart(), loop).result()
        return rest

    assert found + await in_thread(second_client) == undisturbed


async def test_the_async_client_resumes_and_changes_objects_too(server: Server) -> None:
    undisturbed, _ = await in_thread(lambda: follow(server))
    async with AsyncClient(server.target) as client:
        results = client.track(script(), MASK, on_frame_error=lambda *_: None, keep_session=True)
        found = []
        async for result in results:
            found.append(seen(result))
            if result.frame_index == 7:
                break
        await results.aclose()
        async for later in client.resume(result.session, script(), 7, on_frame_error=lambda *_: None):
            found.append(seen(later))
        assert found == undisturbed
        opened = await client.create_session(video()[0], MASK, mask_format=MaskFormat.RAW)
        session = opened.info.session
        info = await client.draw_objects(session, 0, video()[0], corner(9), ordinal=1)
        again = await client.draw_objects(session, 0, video()[0], corner(9), ordinal=1)
        assert info.object_ids == again.object_ids == (1, 3, 9)
        assert (await client.remove_object(session, 0, 1, ordinal=2)).object_ids == (3, 9)


async def test_closing_the_client_ends_a_stream_with_a_word(server: Server) -> None:
    def close_while_following() -> None:
        client = Client(server.target)
        for result in client.track(video(), MASK):
            if result.frame_index == 3:
                client.close()

    with pytest.raises(Unavailable):
        await in_thread(close_while_following)


async def test_a_live_source_drops_what_cannot_be_computed_and_says_so(server: Server) -> None:
    drops: list[int] = []

    def live() -> list[int]:
        gate = server.world.runtime.gate

        def camera() -> Iterator[TrackItem]:
            for index, frame in enumerate(video()):
                if index == 4:
                    gate.clear()
                if index == 8:
                    threading.Timer(0.3, gate.set).start()
                if index == 9:
                    gate.wait()
                yield frame

        with Client(server.target) as client:
            results = client.track(
                camera(),
                MASK,
                flow=Flow.REALTIME,
                on_frame_error=lambda index, error: drops.append(index) if isinstance(error, FrameDropped) else None,
            )
            return [result.frame_index for result in results]

    taken = await in_thread(live)
    assert sorted(taken + drops) == list(range(FRAMES)) and taken == sorted(taken)
    assert drops and server.world.watcher.events["dropped"] == len(drops)


async def test_frames_that_fail_for_ever_are_not_kept_for_ever(server: Server) -> None:
    """As when a camera changes its resolution: what is stored of them is forgotten here."""

    def follow_bad() -> int:
        with Client(server.target) as client:
            frames = [*video(2), *([np.zeros((20, 20, 3), np.uint8)] * 300)]
            stream = client.stream(frames, MASK, SessionOptions(), None, False)
            most = 0
            for _ in stream:
                most = max(most, len(stream._feed._kept))
            stream.close()
            return most

    assert await in_thread(follow_bad) <= 64 + WINDOW


async def test_answers_that_the_store_lost_are_missed_rather_than_waited_for(server: Server) -> None:
    def first_client(last: int) -> str:
        with Client(server.target) as client:
            for result in client.track(video(), MASK, keep_session=True):
                if result.frame_index == last:
                    break
        return result.session

    def second_client(session: str, received_through: int) -> list[int]:
        with Client(server.target, retry_for_s=20) as client:
            return [result.frame_index for result in client.resume(session, video(), received_through)]

    for last in (9, FRAMES - 2):  # in the middle, and where no later answer would show the gap
        session = SessionId(await in_thread(lambda last=last: first_client(last)))
        while (kept := await server.world.store.load(session)).next_frame <= last + 1:
            server.world.clock.advance(1)  # what was under way when the stream ended is stored once the session pauses
            server.world.engine.sweep()
            await asyncio.sleep(0.005)
        await server.world.store.save(replace(kept, outbox=()), 60, constant=True)
        await server.restart()
        with pytest.raises(SessionRolledBack, match=f"answers after frame {last} are asked for"):
            await in_thread(lambda session=session, last=last: second_client(session, last))


async def test_waiting_for_a_server_is_said_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def save(*_: Any, **__: Any) -> int:
        raise Unavailable("the store is away")

    monkeypatch.setattr(server.world.wire, "save", save)
    monkeypatch.setattr("service.client.stream._SILENT_S", 0.2)

    def follow_briefly() -> None:
        with Client(server.target, retry_for_s=0.8) as client:
            list(client.track(video(3), MASK))

    with pytest.raises(Unavailable, match="the store is away"):
        await in_thread(follow_briefly)
    told = [record.getMessage() for record in caplog.records if record.name == "service.client.stream"]
    assert told == ["no answer yet, trying for 0.8 s: the store is away"]


async def test_a_server_that_takes_long_to_say_no_is_not_asked_for_ever(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = 0

    async def save(*_: Any, **__: Any) -> int:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0.15)
        raise Unavailable("the store is away")

    monkeypatch.setattr(server.world.wire, "save", save)

    def follow_briefly() -> None:
        with Client(server.target, retry_for_s=0.1) as client:
            list(client.track(video(3), MASK))

    with pytest.raises(Unavailable, match="the store is away"):
        await in_thread(follow_briefly)
    assert attempts == 1
