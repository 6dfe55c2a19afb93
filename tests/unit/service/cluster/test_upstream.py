"""A gateway's streams over workers that come and go: real connections, engines of the test's."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from service.cluster.engine import ClusterEngine
from service.core.errors import FrameAcknowledged, InvalidImage, InvalidOption, Unavailable
from service.core.types import Durability, EncodedImage, RemoveObject, SessionId, SessionInfo
from service.telemetry import Telemetry
from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine import FakeEngine
from tests.fakes.engine_world import RAW, first_labels, raw_frame, raw_mask
from tests.fakes.registry import FakeRegistry, worker
from tests.fakes.waiting import until

RELAXED = Durability.RELAXED
BAD = EncodedImage(b"this is no picture")


class Workers:
    """They share their sessions, as through a store."""

    def __init__(self, cluster: ClusterEngine, registry: FakeRegistry) -> None:
        self.cluster = cluster
        self.registry = registry
        self.engines: dict[str, FakeEngine] = {}
        self._servers: dict[str, GrpcServer] = {}
        self._sessions = FakeEngine().sessions

    async def start(self, name: str) -> FakeEngine:
        engine = self.engines[name] = FakeEngine()
        engine.sessions = self._sessions
        server = self._servers[name] = await start_grpc(engine, callers_are_gateways=True)
        self.registry.states[name] = replace(worker(name), address=f"127.0.0.1:{server.port}")
        return engine

    async def kill(self, name: str) -> None:
        del self.registry.states[name]
        await self._servers.pop(name).stop(0)

    async def end(self) -> None:
        for name in list(self._servers):
            await self.kill(name)

    async def open(self, stream: str = "s") -> SessionId:
        opened = await self.cluster.open(raw_frame(0), raw_mask(first_labels()), RAW, stream=stream)
        return opened.info.session

    async def met(self) -> None:
        await until(lambda: bool(self.cluster.models()))

    async def send(self, session: SessionId, index: int, frame: EncodedImage | None = None, stream: str = "s") -> int:
        frame = raw_frame(index) if frame is None else frame
        delivered = await self.cluster.segment(session, index, frame, durability=RELAXED, stream=stream)
        return delivered.answer.frame_index


@asynccontextmanager
async def running(retry_for_s: float) -> AsyncIterator[Workers]:
    registry = FakeRegistry()
    async with AsyncExitStack() as stack:
        cluster = ClusterEngine(registry, Telemetry(), retry_for_s)
        workers = Workers(cluster, registry)
        stack.push_async_callback(workers.end)
        stack.push_async_callback(cluster.close)
        await cluster.start()
        yield workers


@pytest.fixture
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "service.cluster")


async def test_a_stream_that_no_worker_took_in_time_has_ended_and_its_session_goes_on() -> None:
    """Its caller has to resume: a late frame of a stream that was given up must not take the session from a newer."""
    async with running(retry_for_s=0.4) as workers:
        await workers.start("a")
        await workers.met()
        session = await workers.open()
        assert await workers.send(session, 1) == 1
        await workers.kill("a")
        with pytest.raises(Unavailable) as lost:
            await workers.send(session, 2)
        assert lost.value.ends_stream
        await workers.start("b")
        await workers.met()
        with pytest.raises(Unavailable) as still:
            await workers.send(session, 2)
        assert still.value.ends_stream
        await workers.cluster.resume(session, 1, "newer")
        assert await workers.send(session, 2, stream="newer") == 2
        with pytest.raises(Unavailable):
            await workers.send(session, 3)
        assert await workers.send(session, 3, stream="newer") == 3


@pytest.mark.usefixtures("info")
async def test_the_log_says_in_one_line_where_streams_went_and_that_others_ended(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.cluster.moves._TOGETHER_S", 0.1)
    async with running(retry_for_s=0.4) as workers:
        await workers.start("a")
        await workers.met()
        streams = {name: await workers.open(name) for name in ("s", "t", "u")}
        await workers.start("b")
        await until(lambda: "worker b joins at" in caplog.text)
        caplog.clear()
        await workers.kill("a")
        for name, session in streams.items():
            await workers.send(session, 1, stream=name)
        await until(lambda: "streams moved" in caplog.text)
        assert "streams moved: 3 from worker a to b; frames and changes sent again: 0" in caplog.text
        await workers.kill("b")
        for name, session in streams.items():
            with pytest.raises(Unavailable):
                await workers.send(session, 2, stream=name)
        await until(lambda: "streams ended" in caplog.text)
        assert "streams ended: 3" in caplog.text
        named = [record.getMessage() for record in caplog.records if record.name.startswith("service.cluster")]
        assert not [said for said in named if any(session in said for session in streams.values())]
        assert "try again" not in "".join(named)


async def test_changes_that_nobody_numbered_are_made_again_where_they_were_made() -> None:
    async with running(retry_for_s=10) as workers:
        await workers.start("a")
        await workers.met()
        session = await workers.open()
        for index in (1, 2):
            await workers.send(session, index)
        for object_id in (1, 3):
            info = await workers.cluster.change(session, None, RemoveObject(object_id), durability=RELAXED, stream="s")
        assert info.object_ids == ()
        await workers.kill("a")
        second = await workers.start("b")
        assert await workers.send(session, 3) == 3
        assert [(index, change) for _, index, change, _ in second.changes] == [
            (2, RemoveObject(1)),
            (2, RemoveObject(3)),
        ]


async def test_changes_that_are_there_already_may_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without numbers the worker cannot know the first of two again: an object that is gone cannot be removed."""
    async with running(retry_for_s=10) as workers:
        await workers.start("a")
        await workers.met()
        session = await workers.open()
        await workers.send(session, 1)
        for object_id in (1, 3):
            await workers.cluster.change(session, 1, RemoveObject(object_id), durability=RELAXED, stream="s")
        await workers.kill("a")
        second, refused = await workers.start("b"), []

        async def refuse(*args: Any, **_: Any) -> SessionInfo:
            refused.append(args[1])
            raise FrameAcknowledged("frames have come since") if len(refused) == 1 else InvalidOption("no object 3")

        monkeypatch.setattr(second, "change", refuse)
        assert await workers.send(session, 2) == 2
        assert refused == [1, 1]
        with pytest.raises(InvalidOption, match="no object 3"):
            await workers.cluster.change(session, 2, RemoveObject(3), durability=RELAXED, stream="s")


async def test_a_change_belongs_where_its_caller_said_whatever_came_since(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(retry_for_s=10) as workers:
        first = await workers.start("a")
        await workers.met()
        session = await workers.open()
        await workers.send(session, 1)
        change = first.change

        async def and_a_frame(*args: Any, **options: Any) -> SessionInfo:
            """By somebody else."""
            info = await change(*args, **options)
            first.sessions[session].next_frame += 1
            return replace(info, next_frame=info.next_frame + 1)

        monkeypatch.setattr(first, "change", and_a_frame)
        await workers.cluster.change(session, 1, RemoveObject(1), durability=RELAXED, stream="s")
        await workers.kill("a")
        second = await workers.start("b")
        assert await workers.send(session, 3) == 3
        assert second.changes == [], "it was before the frame that the worker has"


async def test_what_is_known_to_be_stored_is_told_with_a_bad_frame_without_asking_a_worker() -> None:
    async with running(retry_for_s=10) as workers:
        engine = await workers.start("a")
        await workers.met()
        session = await workers.open()
        for index in (1, 2):
            await workers.send(session, index)
        engine.frame_failures[3] = InvalidImage("a bad one")
        with pytest.raises(InvalidImage):
            await workers.send(session, 3, BAD)
        assert workers.cluster.committed_frame(session, "s") == 3, "the worker said so with its answer"
        assert workers.cluster.committed_frame(session, "another") == 0
