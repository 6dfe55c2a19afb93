"""What is stored when, what a caller may count on, and sessions that go on after a crash."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from service.core.errors import InvalidInput, SessionExpired, SessionUnknown, Unavailable, UnsupportedMedia
from service.core.types import EncodedImage, SessionId
from service.engine import EngineLimits
from tests.fakes.engine_world import RELAXED, STRICT, World, raw_frame, undisturbed
from tests.fakes.waiting import until

BAD = EncodedImage(b"this is no picture")


async def stored_next(world: World, session: SessionId) -> int:
    return (await world.store.load(session)).next_frame


async def test_a_strict_answer_leaves_only_once_it_is_stored(world: World) -> None:
    session = await world.open()
    world.wire.open.clear()
    call = asyncio.create_task(world.post(session, 1))
    await until(lambda: world.wire.calls["save"] == 2)
    await asyncio.sleep(0.01)
    assert not call.done()
    assert (await world.engine.describe(session)).committed_frame == 0
    world.wire.open.set()
    delivered = await call
    assert delivered.committed_frame == 1
    stored = await world.store.load(session)
    assert stored.next_frame == 2 and stored.outbox == (delivered.answer,)


async def test_the_constant_states_are_saved_once(world: World) -> None:
    session = await world.open()
    for index in (1, 2):
        await world.post(session, index)
    assert world.wire.saves == [(1, True), (2, False), (3, False)]


async def test_strict_callers_that_overlap_share_saves(world: World) -> None:
    session = await world.open()
    world.wire.open.clear()
    calls = [asyncio.create_task(world.post(session, index)) for index in range(1, 11)]
    await until(lambda: len(world.watcher.times) == 10)
    world.wire.open.set()
    delivered = await asyncio.gather(*calls)
    assert world.wire.saves[-1] == (11, False) and len(world.wire.saves) <= 4
    assert all(one.committed_frame >= one.answer.frame_index for one in delivered)


@pytest.mark.parametrize("frames", range(6))
async def test_a_crash_after_any_strict_answer_loses_nothing(world: World, frames: int) -> None:
    expected = await undisturbed(6)
    session = await world.open()
    answers = [(await world.post(session, index)).answer for index in range(1, frames + 1)]
    world.crash()
    assert (await world.engine.describe(session)).next_frame == frames + 1
    if frames:
        assert (await world.post(session, frames)).answer.mask == expected[frames - 1].mask
    answers += [(await world.post(session, index)).answer for index in range(frames + 1, 7)]
    assert answers == expected


async def test_a_crash_at_any_moment_of_a_strict_post_loses_nothing(world: World) -> None:
    """Each frame is under way when the process dies: queued, computed, being stored, or stored, not told."""
    expected = await undisturbed(12)
    session = await world.open()
    for index in range(1, 13):
        moment = index % 4
        if moment == 0:
            world.runtime.gate.clear()
        elif moment == 1:
            world.wire.open.clear()
        call = asyncio.create_task(world.post(session, index))
        if moment == 0:
            await asyncio.sleep(0.005)
        elif moment == 1:
            await until(lambda: world.wire.calls["save"] > 0)
        elif moment == 2:
            await until(lambda done=index: (done + 1, False) in world.wire.saves)
        else:
            await asyncio.sleep(0)
        world.crash()
        await asyncio.gather(call, return_exceptions=True)
        assert (await world.post(session, index)).answer == expected[index - 1]


async def test_a_session_restored_between_frames_under_way_continues_in_order(world: World) -> None:
    expected = await undisturbed(12)
    session = await world.open()
    await asyncio.gather(*(world.post(session, index) for index in range(1, 5)))
    world.crash()
    world.wire.open.clear()
    calls = [asyncio.create_task(world.post(session, index)) for index in range(5, 9)]
    await until(lambda: world.wire.calls["load"] == 1)
    world.wire.open.set()
    # Calls that come in the very moment in which the session is back stay behind those that waited for it.
    while world.watcher.events["restored"] == 0:
        await asyncio.sleep(0)
    calls += [asyncio.create_task(world.post(session, index)) for index in range(9, 13)]
    delivered = await asyncio.gather(*calls)
    assert [one.answer for one in delivered] == expected[4:]
    assert world.wire.calls["load"] == 1, "restored once for all callers"


async def test_a_failure_is_stored_too(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    with pytest.raises(UnsupportedMedia) as raised:
        await world.post(session, 2, BAD)
    world.crash()
    assert (await world.engine.describe(session)).next_frame == 3
    expected = await undisturbed(2)
    answer = (await world.post(session, 3, raw_frame(2), received_through=1)).answer
    assert answer.mask == expected[1].mask
    with pytest.raises(UnsupportedMedia) as again:
        await world.post(session, 2, raw_frame(2), received_through=1)
    assert again.value.message == raised.value.message


async def test_a_restored_failure_may_be_tried_anew(world: World) -> None:
    session = await world.open()
    with pytest.raises(InvalidInput):
        await world.post(session, 1, raw_frame(1, 50, 50))
    world.crash()
    assert [(await world.post(session, n)).answer for n in (1, 2)] == await undisturbed(2)


async def test_a_strict_save_that_fails_is_tried_again_by_sending_again(world: World) -> None:
    expected = await undisturbed(3)
    session = await world.open()
    await world.post(session, 1)
    world.wire.failing = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await world.post(session, 2)
    assert (await world.engine.describe(session)).committed_frame == 1
    assert await stored_next(world, session) == 2
    world.wire.failing = False
    delivered = await world.post(session, 2)
    assert delivered.answer == expected[1] and delivered.committed_frame == 2
    assert await stored_next(world, session) == 3
    assert len(world.watcher.times) == 2, "computed once"
    assert (await world.post(session, 3)).answer == expected[2]


async def test_a_save_that_fails_is_not_held_against_what_it_did_not_cover(world: World) -> None:
    session = await world.open()
    world.wire.open.clear()
    world.wire.failures = 1
    first = asyncio.create_task(world.post(session, 1))
    await until(lambda: world.wire.calls["save"] == 2)
    second = asyncio.create_task(world.post(session, 2, received_through=0))
    await until(lambda: len(world.watcher.times) == 2)
    world.wire.open.set()
    with pytest.raises(Unavailable):
        await first
    assert (await second).committed_frame == 2


async def test_a_frame_under_way_is_not_called_committed(world: World) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.runtime.gate.clear()
    under_way = asyncio.create_task(world.post(session, 2, durability=RELAXED, received_through=0))
    await asyncio.sleep(0.005)
    assert (await world.post(session, 1)).committed_frame == 1
    info = await world.engine.describe(session)
    assert (info.next_frame, info.committed_frame) == (3, 1)
    world.runtime.gate.set()
    assert (await under_way).committed_frame == 1


async def test_a_crash_while_the_store_fails_keeps_what_was_told(world: World) -> None:
    expected = await undisturbed(4)
    session = await world.open()
    await world.post(session, 1)
    world.wire.failing = True
    with pytest.raises(Unavailable):
        await world.post(session, 2)
    world.crash()
    assert (await world.engine.describe(session)).next_frame == 2
    assert [(await world.post(session, n)).answer for n in (2, 3, 4)] == expected[1:]


async def test_relaxed_answers_do_not_wait_and_commits_follow(world: World) -> None:
    session = await world.open()
    world.wire.open.clear()
    for index in range(1, 21):
        assert (await world.post(session, index, durability=RELAXED)).committed_frame == 0
    assert world.wire.calls["save"] == 2, "one commit at a time"
    world.wire.open.set()
    await until(lambda: len(world.wire.saves) == 2)
    await asyncio.sleep(0)
    assert world.wire.saves[-1] == (world.limits.commit_every + 1, False)
    assert (await world.engine.describe(session)).committed_frame == world.limits.commit_every


async def test_relaxed_commits_every_few_frames(world: World) -> None:
    session = await world.open()
    for index in range(1, 33):
        await world.post(session, index, durability=RELAXED)
        stored = len(world.wire.saves)
        if index % world.limits.commit_every == 0:
            await until(lambda expected=stored: len(world.wire.saves) >= max(expected, 1))
            await asyncio.sleep(0.005)
    commits = [next_frame for next_frame, constant in world.wire.saves if not constant]
    assert commits == list(range(world.limits.commit_every + 1, 34, world.limits.commit_every))


async def test_a_relaxed_session_that_pauses_is_committed(world: World) -> None:
    session = await world.open()
    for index in range(1, world.limits.commit_every):
        await world.post(session, index, durability=RELAXED)
    world.engine.sweep()
    await asyncio.sleep(0.005)
    assert await stored_next(world, session) == 1
    world.clock.advance(world.limits.commit_idle_s)
    world.engine.sweep()
    await until(lambda: len(world.wire.saves) == 2)
    assert await stored_next(world, session) == world.limits.commit_every
    assert (await world.engine.describe(session)).committed_frame == world.limits.commit_every - 1


async def test_relaxed_commits_that_fail_are_tried_again(world: World) -> None:
    session = await world.open()
    world.wire.failing = True
    for index in range(1, 12):
        assert (await world.post(session, index, durability=RELAXED)).committed_frame == 0
    world.wire.failing = False
    await world.post(session, 12, durability=RELAXED)
    await until(lambda: len(world.wire.saves) == 2)
    await asyncio.sleep(0)
    assert (await world.engine.describe(session)).committed_frame >= 11


async def test_a_relaxed_sender_is_slowed_when_too_much_is_at_stake() -> None:
    world = World(EngineLimits(commit_every=2, max_uncommitted=6))
    session = await world.open()
    world.wire.open.clear()
    for index in range(1, 6):
        await world.post(session, index, durability=RELAXED)
    slowed = asyncio.create_task(world.post(session, 6, durability=RELAXED))
    await asyncio.sleep(0.02)
    assert not slowed.done()
    world.wire.open.set()
    assert (await slowed).committed_frame == 6
    await world.end()


def many_at_stake_at_most(committed: list[int]) -> int:
    return max(index - at for index, at in enumerate(committed, 1))


async def relaxed(world: World, session: SessionId, frames: int, *, frames_per_s: float = 25) -> list[int]:
    """`committed_frame` as each answer tells it."""
    told = []
    for index in range(1, frames + 1):
        world.clock.advance(1 / frames_per_s)
        told.append((await world.post(session, index, durability=RELAXED)).committed_frame)
        await asyncio.sleep(0.002)
    return told


async def test_sessions_with_much_state_are_stored_less_often_and_no_sender_waits_for_it() -> None:
    """As many saves as the bytes allow, by the clock: the first second's worth is there from the start."""
    world = World(EngineLimits(commit_every=4))
    session = await world.open()
    await relaxed(world, session, 4)
    save_bytes = (await world.store.load(session)).stored_bytes(constant=False)
    await world.end()

    world = World(EngineLimits(commit_every=4, commit_bytes_per_s=save_bytes * 25 / 16))
    session = await world.open()
    told = await relaxed(world, session, 200)
    saves = [next_frame - 1 for next_frame, _ in world.wire.saves]
    gaps = {after - before for before, after in pairwise(saves[3:])}
    assert gaps <= {15, 16, 17}, "one in sixteen frames, as the bytes say"
    assert many_at_stake_at_most(told) <= 18
    await world.end()

    world = World(EngineLimits(commit_every=4, commit_bytes_per_s=1))
    session = await world.open()
    told = await relaxed(world, session, 200)
    assert 31 <= many_at_stake_at_most(told) <= 34, (
        "no budget lets a crash take more than half of what slows the sender"
    )
    await world.end()


async def test_a_relaxed_sender_is_told_when_too_much_is_at_stake_and_commits_fail() -> None:
    world = World(EngineLimits(commit_every=2, max_uncommitted=6))
    session = await world.open()
    world.wire.failing = True
    for index in range(1, 6):
        await world.post(session, index, durability=RELAXED)
    with pytest.raises(Unavailable):
        await world.post(session, 6, durability=RELAXED)
    world.wire.failing = False
    delivered = await world.post(session, 6, durability=RELAXED)
    assert delivered.answer == (await undisturbed(6))[5] and delivered.committed_frame == 6
    await world.end()


@pytest.mark.parametrize("crash_after", range(0, 20, 3))
async def test_a_relaxed_session_goes_on_from_its_last_commit(world: World, crash_after: int) -> None:
    """The caller keeps the frames after `committed_frame`, and re-sends them after a crash."""
    expected = await undisturbed(20)
    session = await world.open()
    committed = 0
    for index in range(1, crash_after + 1):
        delivered = await world.post(session, index, durability=RELAXED)
        assert delivered.committed_frame >= committed
        committed = delivered.committed_frame
    world.crash()
    next_frame = (await world.engine.describe(session)).next_frame
    assert committed < next_frame <= crash_after + 1
    received = crash_after
    answers = [
        (await world.post(session, index, durability=RELAXED, received_through=received)).answer
        for index in range(next_frame, 21)
    ]
    assert answers == expected[next_frame - 1 :]


async def test_a_frame_tried_anew_is_stored_before_its_answer_since_that_it_was_bad_may_be(world: World) -> None:
    session = await world.open()
    with pytest.raises(InvalidInput):
        await world.post(session, 1, BAD)
    assert (await world.engine.describe(session)).committed_frame == 1
    assert (await world.post(session, 1, durability=RELAXED)).committed_frame == 1
    world.crash()
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]


async def test_a_commit_while_a_bad_frame_is_tried_anew_leaves_its_index_open(world: World) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    with pytest.raises(InvalidInput):
        await world.post(session, 2, BAD, RELAXED, received_through=0)
    world.runtime.gate.clear()
    anew = asyncio.create_task(world.post(session, 2, durability=RELAXED, received_through=0))
    await asyncio.sleep(0.005)
    await world.post(session, 1)
    assert await stored_next(world, session) == 2
    world.crash()
    await asyncio.gather(anew, return_exceptions=True)
    assert [(await world.post(session, n)).answer for n in (2, 3)] == (await undisturbed(3))[1:]


async def test_strict_and_relaxed_frames_mix(world: World) -> None:
    expected = await undisturbed(9)
    session = await world.open()
    for index in range(1, 10):
        durability = STRICT if index % 3 == 0 else RELAXED
        delivered = await world.post(session, index, durability=durability)
        assert delivered.answer == expected[index - 1]
        if durability is STRICT:
            assert delivered.committed_frame == index == await stored_next(world, session) - 1


async def test_a_caller_that_departs_leaves_its_answer_for_the_next_to_store(world: World) -> None:
    session = await world.open()
    world.wire.open.clear()
    call = asyncio.create_task(world.post(session, 1))
    await until(lambda: world.wire.calls["save"] == 2)
    call.cancel()
    await asyncio.wait([call])
    world.wire.open.set()
    assert (await world.post(session, 1)).committed_frame == 1
    assert world.wire.saves == [(1, True), (2, False)], "the save went on without its caller"


@pytest.mark.parametrize("durability", [STRICT, RELAXED])
async def test_a_session_that_the_store_lost_ends(world: World, durability: str) -> None:
    session = await world.open()
    await world.post(session, 1)
    await world.store.delete(session)  # by another process
    with pytest.raises((SessionUnknown, SessionExpired)):
        for index in range(2, 30):
            await world.post(session, index, durability=durability)
            await asyncio.sleep(0.002)
    with pytest.raises((SessionUnknown, SessionExpired)):
        await world.engine.describe(session)
