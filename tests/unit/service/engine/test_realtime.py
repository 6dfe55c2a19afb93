"""A live camera: what cannot be computed in time is dropped, told, and never stepped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from service.core.errors import FrameAcknowledged, FrameDropped, S2sppError, UnsupportedMedia
from service.core.types import EncodedImage, Failure, Flow, MaskFormat, RemoveObject, SessionId, SessionOptions
from service.engine import EngineLimits
from tests.fakes.engine_world import RELAXED, STRICT, World, raw_frame
from tests.fakes.waiting import until

LIVE = SessionOptions(MaskFormat.RAW, Flow.REALTIME)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


async def send(world: World, session: SessionId, *indices: int) -> list[object]:
    """All at once, while the model is busy with another."""
    world.runtime.gate.clear()
    posts = []
    for index in indices:
        posts.append(asyncio.create_task(world.post(session, index, None, RELAXED, 0)))
        await asyncio.sleep(0.02)  # decoded: only a frame that is ready overtakes
    world.runtime.gate.set()
    return [
        said if isinstance(said, BaseException) else said.answer
        for said in await asyncio.gather(*posts, return_exceptions=True)
    ]


async def test_of_the_frames_that_wait_only_the_newest_is_stepped_and_the_drops_are_told(world: World) -> None:
    session, lossless = await world.open(options=LIVE), await world.open()
    said = await send(world, session, 1, 2, 3, 4)
    assert [isinstance(one, FrameDropped) for one in said] == [False, True, True, False]
    assert world.watcher.events["dropped"] == 2 and len(world.watcher.times) == 2
    # As if the dropped ones had never been filmed.
    await world.post(lossless, 1)
    assert (await world.post(lossless, 2, raw_frame(4))).answer.mask == said[3].mask  # type: ignore[attr-defined]


async def test_what_was_dropped_is_told_again_and_stored_like_any_answer(world: World) -> None:
    session = await world.open(options=LIVE)
    said = await send(world, session, 1, 2, 3)
    for _ in range(2):
        with pytest.raises(FrameDropped):
            await world.post(session, 2, None, STRICT, 0)
        first, failure, last = (await world.engine.resume(session, 0)).answers
        assert [first, last] == [said[0], said[2]]
        assert isinstance(failure, Failure) and failure.reason == "FRAME_DROPPED"
        await world.engine.close()
        world.crash()


async def test_indices_may_be_skipped_however_far(world: World) -> None:
    session = await world.open(options=LIVE)
    await world.post(session, 1)
    answer = (await world.post(session, 2**40, raw_frame(2), received_through=0)).answer
    assert answer.frame_index == 2**40
    info = await world.engine.describe(session)
    assert info.next_frame == 2**40 + 1 and info.committed_frame == 2**40
    with pytest.raises(FrameDropped):
        await world.post(session, 77, received_through=0)
    assert [a.frame_index for a in (await world.engine.resume(session, 0)).answers] == [1, 2**40]
    await world.post(session, 2**40 + 1, raw_frame(3))
    with pytest.raises(FrameAcknowledged):
        await world.post(session, 77)


async def test_a_picture_that_cannot_be_read_overtakes_nothing(world: World) -> None:
    session = await world.open(options=LIVE)
    world.runtime.gate.clear()
    posts = []
    for index in (1, 2):
        posts.append(asyncio.create_task(world.post(session, index, None, RELAXED, 0)))
        await asyncio.sleep(0.02)
    bad = asyncio.create_task(world.post(session, 3, EncodedImage(b"no picture"), RELAXED, 0))
    await asyncio.sleep(0.02)
    world.runtime.gate.set()
    assert [(await post).answer.frame_index for post in posts] == [1, 2]
    with pytest.raises(UnsupportedMedia):
        await bad


async def test_frames_that_come_faster_than_they_can_be_read_do_not_starve_the_model(world: World) -> None:
    """Were a frame given up for one that is not decoded yet, none would ever be stepped."""
    session = await world.open(options=LIVE)
    posts = [asyncio.create_task(world.post(session, index, None, RELAXED, 0)) for index in range(1, 61)]
    said = await asyncio.gather(*posts, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in said) >= 1
    assert not isinstance(said[-1], BaseException)


async def test_objects_change_between_live_frames_too(world: World) -> None:
    session = await world.open(options=LIVE)
    await send(world, session, 1, 2, 3)
    info = await world.engine.change(session, 3, RemoveObject(1), durability=STRICT)
    assert info.object_ids == (3,)
    labels = np.frombuffer((await world.post(session, 4)).answer.mask, np.uint8)
    assert set(np.unique(labels)) <= {0, 3}


async def test_a_crash_goes_on_with_the_newest_frame(world: World) -> None:
    session = await world.open(options=LIVE)
    await world.post(session, 1)
    await send(world, session, 2, 3)
    world.crash()
    assert (await world.engine.resume(session, 3)).info.next_frame == 2
    assert (await world.post(session, 9, received_through=3)).answer.frame_index == 9
    await until(lambda: world.wire.saves[-1][0] == 10)


async def test_what_was_skipped_to_is_not_told_as_stored_before_it_is(world: World) -> None:
    session = await world.open(options=LIVE)
    await world.post(session, 1)
    world.runtime.gate.clear()
    late = asyncio.create_task(world.post(session, 10, None, RELAXED, 1))
    await until(lambda: world.runtime.busy)
    assert (await world.engine.describe(session)).committed_frame == 1
    late.cancel()
    world.crash()
    assert (await world.engine.resume(session, 1, told_committed=1)).info.next_frame == 2


async def test_a_frame_skipped_to_that_fails_leaves_the_session_as_it_was() -> None:
    world = World(EngineLimits(max_sessions=1))
    session = await world.open(options=LIVE)
    await world.post(session, 1)
    world.runtime.failures = 1
    with pytest.raises(S2sppError):
        await world.post(session, 10, received_through=1)
    info = await world.engine.describe(session)
    assert (info.next_frame, info.committed_frame) == (2, 1)
    world.clock.advance(world.limits.park_idle_s)
    world.engine.sweep()
    await until(lambda: world.watcher.in_memory == 0)
    await world.end()
