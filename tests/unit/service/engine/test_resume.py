"""Going on after a connection or a server was lost: what was answered and not taken comes again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.batching import BatchingQueue
from service.core.errors import FrameAcknowledged, OwnershipLost, S2sppError, SessionRolledBack, Unavailable
from service.core.ports import StepResult
from service.core.types import EncodedImage, Failure, RemoveObject
from service.engine import EngineLimits
from tests.fakes.engine_world import RAW, RELAXED, World, first_labels, raw_frame, raw_mask, undisturbed
from tests.fakes.waiting import until


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


async def test_a_frame_under_way_is_sent_once_more_and_gets_the_answer_that_is_being_made(world: World) -> None:
    """A resume does not wait for it: the caller's first answers may be there, and its frames are many."""
    session = await world.open()
    first = (await world.post(session, 1, None, RELAXED, 0)).answer
    world.runtime.gate.clear()
    posts = [asyncio.create_task(world.post(session, index, None, RELAXED, 0)) for index in (2, 3)]
    await until(lambda: world.runtime.busy)
    resumed = await world.engine.resume(session, 0, "new")
    assert resumed.answers == (first,) and resumed.info.next_frame == 2
    again = [
        asyncio.create_task(
            world.engine.segment(session, n, raw_frame(n), durability=RELAXED, received_through=1, stream="new")
        )
        for n in (2, 3, 4)
    ]
    await asyncio.sleep(0.01)
    world.runtime.gate.set()
    answers = [(await each).answer for each in again]
    assert answers[:2] == [(await post).answer for post in posts]
    assert answers == (await undisturbed(4))[1:]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """How urgent the queue was told that each step is."""
    told: list[float | None] = []
    step = BatchingQueue.step

    async def noted(queue: BatchingQueue, *args: Any, urgent: float | None) -> StepResult:
        told.append(urgent)
        return await step(queue, *args, urgent=urgent)

    monkeypatch.setattr(BatchingQueue, "step", noted)
    monkeypatch.setattr(BatchingQueue, "idle", lambda *_: False)  # one that is alone, too, asks for a place
    return told


async def test_frames_whose_masks_are_at_hand_are_urgent_in_the_order_in_which_they_came(
    asked: list[float | None],
) -> None:
    """After a crash: until they are stepped anew, their caller waits."""
    world = World(EngineLimits(commit_every=6))
    session = await world.open()
    for index in (1, 2, 3):
        await world.post(session, index, None, RELAXED)
    world.crash()
    asked.clear()
    assert (await world.engine.resume(session, 3)).info.next_frame == 1
    for index in (1, 2, 3, 4):
        world.clock.now += 1
        await world.post(session, index, None, RELAXED, 3)
    *again, new = asked
    assert again == sorted(again) and len(set(again)) == 3 and new is None
    # Whoever says it of every frame would keep the others waiting for ever.
    asked.clear()
    most = world.limits.max_uncommitted + world.limits.window
    for index in range(5, 5 + most):
        await world.engine.segment(
            session, index, raw_frame(index), durability=RELAXED, received_through=index, again=True
        )
    assert sum(urgent is not None for urgent in asked) == most - 3 and asked[-1] is None
    await world.end()


async def test_a_session_that_was_not_lost_has_no_precedence(world: World, asked: list[float | None]) -> None:
    session = await world.open()
    await world.engine.segment(session, 1, raw_frame(1), durability=RELAXED, received_through=1, again=True)
    assert asked == [None]


async def test_masks_taken_ahead_of_the_store_are_no_loss() -> None:
    world = World(EngineLimits(commit_every=6))
    session = await world.open()
    first = [(await world.post(session, index, None, RELAXED)).answer for index in (1, 2, 3)]
    world.crash()
    resumed = await world.engine.resume(session, 3)
    assert resumed.answers == () and resumed.info.next_frame == 1
    # Sent again, they get the same.
    assert [(await world.post(session, index)).answer for index in (1, 2, 3)] == first
    await world.end()


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
    mask = raw_mask(first_labels())
    session = (await world.engine.open(raw_frame(0), mask, RAW, stream="old")).info.session

    async def send(index: int, stream: str | None) -> None:
        await world.engine.segment(session, index, raw_frame(index), durability=RELAXED, stream=stream)

    await send(1, "old")
    await world.engine.resume(session, 1, "new")
    for _ in range(2):
        with pytest.raises(OwnershipLost):
            await send(2, "old")
        with pytest.raises(OwnershipLost):
            await world.engine.change(session, 1, RemoveObject(1), durability=RELAXED, stream="old")
        # Not even when the session has left memory in the meantime.
        await until(lambda: world.watcher.events["parked"] == 1 or park(world))
    await send(2, "new")
    # Single calls name no stream.
    await send(3, None)
    # An old stream's end takes nothing from the new one, and once that has left, the old one still has no say.
    await world.engine.leave(session, "old")
    await send(4, "new")
    await world.engine.leave(session, "new")
    with pytest.raises(OwnershipLost):
        await send(5, "old")
    await world.engine.resume(session, 4, "newer")
    await send(5, "newer")


async def test_the_end_of_a_stream_is_stored(world: World) -> None:
    mask = raw_mask(first_labels())
    session = (await world.engine.open(raw_frame(0), mask, RAW, stream="s")).info.session
    await world.engine.segment(session, 1, raw_frame(1), durability=RELAXED, stream="s")
    assert (await world.engine.describe(session)).committed_frame == 0
    await world.engine.leave(session, "s")
    await until(lambda: world.wire.saves[-1][0] == 2)


async def test_answers_that_are_handed_out_again_are_not_ever_further_ahead_of_the_store() -> None:
    world = World(EngineLimits(max_uncommitted=3, commit_every=100))
    session = await world.open()
    for index in (1, 2):
        await world.post(session, index, None, RELAXED, 0)
    world.wire.failing = True
    third = asyncio.create_task(world.post(session, 3, None, RELAXED, 0))
    with pytest.raises(Unavailable):
        await third
    with pytest.raises(Unavailable):
        await world.engine.resume(session, 0)
    world.wire.failing = False
    assert len((await world.engine.resume(session, 0)).answers) == 3
    assert (await world.engine.describe(session)).committed_frame == 3
    await world.end()


def park(world: World) -> bool:
    world.clock.advance(world.limits.park_idle_s)
    world.engine.sweep()
    return False


async def test_a_resume_that_comes_to_nothing_takes_the_session_from_nobody() -> None:
    world = World(EngineLimits(max_uncommitted=2, commit_every=100))
    session = (await world.engine.open(raw_frame(0), raw_mask(first_labels()), RAW, stream="old")).info.session
    await world.post(session, 1, None, RELAXED, 0)
    world.wire.failing = True
    with pytest.raises(Unavailable):
        await world.post(session, 2, None, RELAXED, 0)
    with pytest.raises(Unavailable):
        await world.engine.resume(session, 0, "new")
    world.wire.failing = False
    # It is nobody's: whoever resumes has it.
    await world.engine.resume(session, 0, "newer")
    await world.engine.segment(session, 3, raw_frame(3), durability=RELAXED, received_through=2, stream="newer")
    await world.end()


async def test_a_session_that_is_not_in_use_is_not_paused(world: World) -> None:
    """Its stream stays, so its next frame must not be given back."""
    session = await world.open()
    await world.engine.resume(session, None, "a")
    assert world.engine.pause(session, "a"), "it was opened just now"
    await world.engine.resume(session, None, "a")
    world.clock.advance(world.limits.evict_idle_s)
    assert not world.engine.pause(session, "a")
    frame = world.engine.segment(session, 1, raw_frame(1), durability=RELAXED, stream="a")
    assert (await frame).answer.mask == (await undisturbed(1))[0].mask
