"""Streams that workers hand to each other all the time, between any two frames: every mask once, in order, the same."""

from __future__ import annotations

import asyncio
import itertools
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from service.batching import BatchingQueue
from service.client import Client
from service.cluster.engine import ClusterEngine
from service.core.registry import WorkerState
from service.core.types import Durability
from service.engine import EngineLimits, LocalEngine
from service.store.calls import connect
from service.store.embedded import EmbeddedRedis
from service.store.redis_registry import RedisWorkerRegistry
from service.store.redis_store import RedisSessionStore
from service.telemetry import Telemetry
from service.transport.grpc import GrpcServer, start_grpc
from tests.fakes.engine_world import RAW, first_labels, raw_frame, raw_mask
from tests.fakes.runtime import INFO, FakeRuntime

CLIENTS, STREAMS, FRAMES = 4, 20, 5
PATIENCE_S = 60


@dataclass
class Served:
    workers: list[GrpcServer] = field(default_factory=list)
    gateway: str = ""
    cluster: ClusterEngine | None = None


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    """Two workers and a gateway of this process."""
    made = Served()
    async with AsyncExitStack() as stack:
        url = (await stack.enter_async_context(EmbeddedRedis(tmp_path / "data"))).url
        redis = await stack.enter_async_context(connect(url))
        registry = RedisWorkerRegistry(redis)

        async def beat(name: str, engine: LocalEngine, port: int) -> None:
            for number in itertools.count(1):  # without a number, equal loads are no news, and placed sessions add up
                load = engine.load()
                address = f"127.0.0.1:{port}"
                state = WorkerState(name, address, load.sessions, load.busy, 64, INFO.digest, beat=number)
                await registry.beat(state)
                await asyncio.sleep(0.2)

        for name in ("w1", "w2"):
            queue = BatchingQueue(FakeRuntime(), 16, 16)
            stack.push_async_callback(queue.close)
            engine = LocalEngine(queue, RedisSessionStore(redis, name), INFO, EngineLimits(), time.monotonic)
            stack.push_async_callback(engine.close)
            server = await start_grpc(engine, callers_are_gateways=True)
            stack.push_async_callback(server.stop, 0)
            stack.callback(asyncio.create_task(beat(name, engine, server.port)).cancel)
            made.workers.append(server)
        while len(await registry.workers()) < 2:
            await asyncio.sleep(0.01)
        cluster = ClusterEngine(registry, Telemetry())
        stack.push_async_callback(cluster.close)
        await cluster.start()
        gateway = await start_grpc(cluster)
        stack.push_async_callback(gateway.stop, 0)
        made.cluster = cluster
        made.gateway = f"127.0.0.1:{gateway.port}"
        yield made


async def test_between_any_two_frames(served: Served) -> None:
    frames = [np.full((24, 40, 3), 40 * number, np.uint8) for number in range(FRAMES)]
    mask = np.zeros((24, 40), np.uint8)
    mask[3:9, 3:9] = 1
    found: list[list[tuple[int, bytes]]] = []

    def follow() -> None:
        with Client(served.gateway) as client:
            for _ in range(STREAMS):
                results = client.track(frames, mask)
                found.append([(result.frame_index, result.labels.tobytes()) for result in results])

    threads = [threading.Thread(target=follow, daemon=True) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    handed_over, deadline = 0, time.monotonic() + PATIENCE_S
    while any(thread.is_alive() for thread in threads):
        assert time.monotonic() < deadline, f"after {handed_over} moves and {len(found)} streams nothing goes on"
        handed_over += sum(worker.hand_over() for worker in served.workers)
        await asyncio.sleep(0.003)
    assert handed_over > 30
    assert len(found) == CLIENTS * STREAMS
    assert all(each == found[0] for each in found)
    assert [index for index, _ in found[0]] == list(range(FRAMES))


async def test_a_stream_may_end_at_any_moment_of_a_move(served: Served) -> None:
    """grpc.aio swallows a cancellation while a call begins: the stream went on alone, and its caller waited."""
    assert served.cluster is not None
    moment = random.Random(7)
    for number in range(400):
        stream = f"stream {number}"
        opened = await served.cluster.open(raw_frame(0), raw_mask(first_labels()), RAW, stream=stream)
        session = opened.info.session
        await served.cluster.segment(session, 1, raw_frame(1), durability=Durability.RELAXED, stream=stream)
        for worker in served.workers:
            worker.hand_over()
        await asyncio.sleep(moment.uniform(0, 0.006))
        async with asyncio.timeout(PATIENCE_S):
            await served.cluster.leave(session, stream)
