"""A gateway's streams over workers that come and go: real connections, engines of the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from service.cluster.engine import ClusterEngine
from service.core.errors import InvalidImage, Unavailable
from service.core.types import Durability, EncodedImage, RemoveObject, SessionId
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

    async def open(self) -> SessionId:
        opened = await self.cluster.open(raw_frame(0), raw_mask(first_labels()), RAW, stream="s")
        return opened.info.session

    async def send(self, session: SessionId, index: int, frame: EncodedImage | None = None) -> int:
        frame = raw_frame(index) if frame is None else frame
        delivered = await self.cluster.segment(session, index, frame, durability=RELAXED, stream="s")
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


async def test_a_stream_outlives_a_time_without_workers() -> None:
    """Who is told that nobody is there may go on asking: a stream that stays open is no stream that is dead."""
    async with running(retry_for_s=0.4) as workers:
        await workers.start("a")
        await until(lambda: bool(workers.cluster.models()))
        session = await workers.open()
        assert await workers.send(session, 1) == 1
        await workers.kill("a")
        for _ in range(2):
            with pytest.raises(Unavailable):
                await workers.send(session, 2)
        await workers.start("b")
        deadline = asyncio.get_running_loop().time() + 10
        while True:
            try:
                assert await workers.send(session, 2) == 2
                break
            except Unavailable:
                assert asyncio.get_running_loop().time() < deadline
        assert await workers.send(session, 3) == 3
        # An end by its own side is one.
        await workers.cluster.leave(session, "s")
        assert workers.engines["b"].calls[-1].frame_index == 3


async def test_changes_that_nobody_numbered_are_made_again_where_they_were_made() -> None:
    async with running(retry_for_s=10) as workers:
        await workers.start("a")
        await until(lambda: bool(workers.cluster.models()))
        session = await workers.open()
        for index in (1, 2):
            await workers.send(session, index)
        for object_id in (1, 3):
            info = await workers.cluster.change(session, None, RemoveObject(object_id), durability=RELAXED, stream="s")
        assert info.object_ids == ()
        assert workers.engines["a"].ordinals == [None, None]
        await workers.kill("a")
        second = await workers.start("b")
        assert await workers.send(session, 3) == 3
        made = [
            (index, change, number)
            for (_, index, change, _), number in zip(second.changes, second.ordinals, strict=True)
        ]
        assert made == [(2, RemoveObject(1), 1), (2, RemoveObject(3), 2)]


async def test_what_is_known_to_be_stored_is_told_with_a_bad_frame_without_asking_a_worker() -> None:
    async with running(retry_for_s=10) as workers:
        engine = await workers.start("a")
        await until(lambda: bool(workers.cluster.models()))
        session = await workers.open()
        for index in (1, 2):
            await workers.send(session, index)
        engine.frame_failures[3] = InvalidImage("a bad one")
        with pytest.raises(InvalidImage):
            await workers.send(session, 3, BAD)
        assert workers.cluster.committed_frame(session, "s") == 3, "the worker said so with its answer"
        assert workers.cluster.committed_frame(session, "another") == 0
