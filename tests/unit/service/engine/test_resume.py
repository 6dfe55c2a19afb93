"""Going on after a connection or a server was lost: what was answered and not taken comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from engine_world import RELAXED, World, raw_frame

from service.core.errors import FrameAcknowledged, OwnershipLost, S2sppError, SessionRolledBack
from service.core.types import EncodedImage, Failure, RemoveObject


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


async def test_answers_not_taken_come_again_after_a_crash_and_the_next_frame_is_named(world: World) -> None:
    session = await world.open()
    answers = [(await world.post(session, index, received_through=0)).answer for index in (1, 2, 3)]
    for _ in range(2):
        resumed = await world.engine.resume(session, 1)
        assert resumed.answers == tuple(answers[1:]) and resumed.info.next_frame == 4
        world.crash()
    assert (await world.engine.resume(session, None)).answers == ()
    assert (await world.engine.resume(session, 3)).answers == ()


async def test_a_frame_that_could_not_be_used_is_told_again(world: World) -> None:
    session = await world.open()
    with pytest.raises(S2sppError):
        await world.post(session, 1, EncodedImage(b"no picture"))
    await world.post(session, 2, received_through=0)
    failure, answer = (await world.engine.resume(session, 0)).answers
    assert isinstance(failure, Failure) and failure.frame_index == 1 and answer.frame_index == 2


async def test_frames_under_way_are_waited_for(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    posts = [asyncio.create_task(world.post(session, index, None, RELAXED, 0)) for index in (1, 2)]
    await asyncio.sleep(0.01)
    resuming = asyncio.create_task(world.engine.resume(session, 0))
    await asyncio.sleep(0.01)
    assert not resuming.done()
    world.runtime.gate.set()
    assert (await resuming).answers == tuple([(await post).answer for post in posts])


async def test_a_frame_under_way_that_fails_is_to_be_sent_again(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    posts = [asyncio.create_task(world.post(session, 1, None, RELAXED, 0))]
    await asyncio.sleep(0.01)
    posts.append(asyncio.create_task(world.post(session, 2, None, RELAXED, 0)))
    await asyncio.sleep(0.01)
    resuming = asyncio.create_task(world.engine.resume(session, 0))
    await asyncio.sleep(0.01)
    steps = iter((False, True, True, True))
    world.runtime.poison = lambda frame: next(steps)
    world.runtime.gate.set()
    resumed = await resuming
    assert [answer.frame_index for answer in resumed.answers] == [1]
    assert resumed.info.next_frame == 2
    await asyncio.gather(*posts, return_exceptions=True)


async def test_masks_taken_ahead_of_the_store_are_no_loss(world: World) -> None:
    session = await world.open()
    first = [(await world.post(session, index, None, RELAXED)).answer for index in (1, 2, 3)]
    world.crash()
    resumed = await world.engine.resume(session, 3)
    assert resumed.answers == () and resumed.info.next_frame == 1
    # Sent again, they get the same.
    assert [(await world.post(session, index)).answer for index in (1, 2, 3)] == first


async def test_what_was_told_to_be_stored_and_is_not_means_that_the_store_lost_writes(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    assert (await world.engine.resume(session, 1, None, told_committed=1)).info.next_frame == 2
    with pytest.raises(SessionRolledBack, match="as of frame 1") as caught:
        await world.engine.resume(session, 2, None, told_committed=2)
    assert caught.value.metadata["frame_index"] == "1"


async def test_what_was_acknowledged_does_not_come_again(world: World) -> None:
    session = await world.open()
    for index in (1, 2, 3):
        await world.post(session, index)
    with pytest.raises(FrameAcknowledged, match="through 2"):
        await world.engine.resume(session, 0)


async def test_the_newest_stream_has_the_session(world: World) -> None:
    session = await world.open()

    async def send(index: int, stream: str | None) -> None:
        await world.engine.segment(session, index, raw_frame(index), durability=RELAXED, stream=stream)

    await send(1, "old")
    await world.engine.resume(session, 1, "new")
    with pytest.raises(OwnershipLost):
        await send(2, "old")
    with pytest.raises(OwnershipLost):
        await world.engine.change(session, 1, RemoveObject(1), durability=RELAXED, stream="old")
    await send(2, "new")
    # Single calls name no stream. After a restart whoever comes first has it.
    await send(3, None)
    await world.engine.close()
    world.crash()
    await send(4, "old")
