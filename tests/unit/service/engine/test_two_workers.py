"""Two engines, one store: what the one that lost a session still says and does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from service.batching import BatchingQueue
from service.core.errors import FrameGap, OwnershipLost, Unavailable
from service.core.types import Durability, SessionId
from service.engine import EngineLimits, LocalEngine
from service.store.calls import connect
from service.store.embedded import EmbeddedRedis
from service.store.redis_store import RedisSessionStore
from tests.fakes.clock import FakeClock
from tests.fakes.engine_world import RAW, RELAXED, STRICT, first_labels, raw_frame, raw_mask, undisturbed
from tests.fakes.runtime import INFO, FakeRuntime


@pytest.fixture
def runtimes() -> list[FakeRuntime]:
    return [FakeRuntime(), FakeRuntime()]


@pytest.fixture
async def engines(tmp_path: Path, runtimes: list[FakeRuntime]) -> AsyncIterator[list[LocalEngine]]:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(EmbeddedRedis(tmp_path / "data"))
        made = []
        for name, runtime in zip(("w1", "w2"), runtimes, strict=True):
            queue = BatchingQueue(runtime, 16, 16)
            stack.push_async_callback(queue.close)
            client = await stack.enter_async_context(connect(redis.url))
            engine = LocalEngine(queue, RedisSessionStore(client, name), INFO, EngineLimits(), FakeClock())
            stack.push_async_callback(engine.close)
            made.append(engine)
        yield made


async def opened(engine: LocalEngine, stream: str | None = None) -> SessionId:
    return (await engine.open(raw_frame(0), raw_mask(first_labels()), RAW, stream=stream)).info.session


async def post(
    engine: LocalEngine, session: SessionId, index: int, durability: Durability = STRICT, stream: str | None = None
) -> bytes:
    return (await engine.segment(session, index, raw_frame(index), durability=durability, stream=stream)).answer.mask


async def test_a_session_moves_with_every_mask_the_same(engines: list[LocalEngine]) -> None:
    expected = [answer.mask for answer in await undisturbed(12)]
    session = await opened(engines[0])
    for index in range(1, 13):
        engine = engines[index // 3 % 2]
        with_retry = await _until_owned(engine, session, index)
        assert with_retry == expected[index - 1]
    assert (await engines[0].describe(session)).epoch == 5


async def _until_owned(engine: LocalEngine, session: SessionId, index: int) -> bytes:
    """An engine that had the session before hears of its loss by the first save, and takes it again then."""
    try:
        return await post(engine, session, index)
    except OwnershipLost:
        return await post(engine, session, index)


async def test_a_stream_that_lost_its_session_ends_and_does_not_take_it_back(engines: list[LocalEngine]) -> None:
    first, second = engines
    session = await opened(first, "a")
    await post(first, session, 1, stream="a")
    assert (await second.resume(session, 1, "b")).info.epoch == 2
    await post(second, session, 2, stream="b")
    with pytest.raises(OwnershipLost) as lost:
        for index in range(2, 60):
            await post(first, session, index, RELAXED, "a")
            await asyncio.sleep(0.005)
    assert lost.value.metadata["by"] == "worker"
    for index in (2, 3, 4):
        with pytest.raises(OwnershipLost) as lost:
            await post(first, session, index, RELAXED, "a")
        assert lost.value.metadata["by"] == "worker"
    assert await post(second, session, 3, stream="b") == (await undisturbed(3))[2].mask
    assert (await second.describe(session)).epoch == 2, "it was never taken back"
    await first.leave(session, "a")
    with pytest.raises(OwnershipLost) as lost:
        await post(first, session, 4, RELAXED, "a")
    assert lost.value.metadata["by"] == "stream"


async def test_what_has_not_begun_is_given_back_and_the_session_goes_on_elsewhere(
    engines: list[LocalEngine], runtimes: list[FakeRuntime]
) -> None:
    """Of a full window one frame is finished, and none is computed twice."""
    expected = [answer.mask for answer in await undisturbed(6)]
    first, second = engines
    session = await opened(first, "a")
    runtimes[0].gate.clear()
    frames = [asyncio.create_task(post(first, session, index, RELAXED, "a")) for index in range(1, 7)]
    await asyncio.sleep(0.05)
    assert first.pause(session, "a")
    runtimes[0].gate.set()
    assert await frames[0] == expected[0]
    with pytest.raises(Unavailable, match="send frame 2"):
        await frames[1]
    assert (await first.release(session)).next_frame == 2
    behind = await asyncio.gather(*frames[2:], return_exceptions=True)
    assert [type(each) for each in behind] == [FrameGap] * 4
    assert first.load().sessions == 0
    assert (await second.resume(session, 1, "b")).info.next_frame == 2
    assert [await post(second, session, index, RELAXED, "b") for index in range(2, 7)] == expected[1:]
    assert [len(runtime.batches) for runtime in runtimes] == [2, 5], "one of them opened the session"


async def test_a_pause_ends_with_the_stream(engines: list[LocalEngine]) -> None:
    engine = engines[0]
    session = await opened(engine, "a")
    assert not engine.pause(session, "another")
    assert engine.pause(session, "a")
    with pytest.raises(Unavailable):
        await post(engine, session, 1, stream="a")
    await engine.leave(session, "a")
    await post(engine, session, 1)
    await engine.resume(session, 1, "c")
    assert engine.pause(session, "c")
    await engine.resume(session, 1, "b")
    await post(engine, session, 2, stream="b")


async def test_a_stream_that_was_superseded_neither_pauses_nor_releases_the_session(engines: list[LocalEngine]) -> None:
    engine = engines[0]
    session = await opened(engine, "a")
    await engine.resume(session, None, "b")
    assert not engine.pause(session, "a")
    with pytest.raises(OwnershipLost) as lost:
        await engine.release(session, "a")
    assert lost.value.metadata["by"] == "stream"
    await post(engine, session, 1, stream="b")
    assert engine.pause(session, "b")
    await engine.leave(session, "a")
    with pytest.raises(Unavailable):
        await post(engine, session, 2, stream="b")


async def test_a_single_frame_is_not_given_back(engines: list[LocalEngine]) -> None:
    engine = engines[0]
    session = await opened(engine, "a")
    assert engine.pause(session, "a")
    await post(engine, session, 1)
