"""Who is in memory: room for others, expiry, deletion, other models, and the end of the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from service.core.errors import (
    InvalidInput,
    ModelMismatch,
    Overloaded,
    S2sppError,
    SessionExpired,
    SessionUnknown,
    Unavailable,
)
from service.core.types import EncodedImage
from service.engine import EngineLimits
from tests.fakes.engine_world import RELAXED, World, undisturbed
from tests.fakes.runtime import INFO
from tests.fakes.waiting import until


async def test_idle_sessions_make_room_and_come_back() -> None:
    world = World(EngineLimits(max_sessions=2, evict_idle_s=5))
    expected = await undisturbed(4)
    first, second = await world.open(), await world.open()
    for index in (1, 2):
        await world.post(first, index)
    world.clock.advance(3)
    await world.post(second, 1)
    world.clock.advance(3)
    third = await world.open()  # the first has been idle for 6 s, the second for 3
    with pytest.raises(Overloaded) as raised:
        await world.open()
    assert raised.value.retry_after_s == 2
    world.clock.advance(2)
    assert (await world.post(first, 2)).answer == expected[1]
    assert (await world.post(first, 3)).answer == expected[2]
    assert world.watcher.events["restored"] == 1 and world.watcher.in_memory == 2
    world.clock.advance(5)
    assert (await world.post(third, 1)).answer == expected[0]
    assert (await world.post(second, 2)).answer == expected[1]
    await world.end()


async def test_a_session_that_is_not_stored_yet_stays_in_memory() -> None:
    world = World(EngineLimits(max_sessions=1, evict_idle_s=1))
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.clock.advance(100)
    with pytest.raises(Overloaded):
        await world.open()
    world.engine.sweep()
    await until(lambda: len(world.wire.saves) == 2)
    await asyncio.sleep(0)
    await world.open()
    world.clock.advance(1)
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]
    await world.end()


async def test_a_session_at_work_stays_in_memory() -> None:
    world = World(EngineLimits(max_sessions=1, evict_idle_s=1))
    session = await world.open()
    world.runtime.gate.clear()
    call = asyncio.create_task(world.post(session, 1))
    await asyncio.sleep(0.01)
    world.clock.advance(1_000)
    world.engine.sweep()
    with pytest.raises(Overloaded):
        await world.open()
    world.runtime.gate.set()
    assert (await call).answer == (await undisturbed(1))[0]
    await world.end()


async def test_a_bad_frame_that_is_tried_anew_is_work() -> None:
    world = World(EngineLimits(max_sessions=1, evict_idle_s=1))
    session = await world.open()
    with pytest.raises(InvalidInput):
        await world.post(session, 1, EncodedImage(b""))
    world.runtime.gate.clear()
    call = asyncio.create_task(world.post(session, 1))
    await asyncio.sleep(0.01)
    world.clock.advance(100)
    with pytest.raises(Overloaded):
        await world.open()
    world.runtime.gate.set()
    assert (await call).answer == (await undisturbed(1))[0]
    await world.end()


async def test_no_room_to_come_back_is_told() -> None:
    world = World(EngineLimits(max_sessions=1, evict_idle_s=5))
    first = await world.open()
    world.clock.advance(5)
    second = await world.open()
    with pytest.raises(Overloaded):
        await world.post(first, 1)
    world.clock.advance(5)
    assert (await world.post(first, 1)).answer == (await undisturbed(1))[0]
    assert (await world.engine.describe(first)).next_frame == 2
    with pytest.raises(Overloaded):
        await world.engine.describe(second)
    await world.end()


async def test_an_idle_session_expires(world: World) -> None:
    session = await world.open()
    world.clock.advance(1000)
    assert (await world.engine.describe(session)).expires_in_s == world.limits.idle_timeout_s - 1000
    world.clock.advance(world.limits.idle_timeout_s - 1000)
    for call in (world.post(session, 1), world.engine.describe(session)):
        with pytest.raises(SessionExpired):
            await call
    world.engine.sweep()
    assert world.watcher.events["expired"] == 1 and world.watcher.in_memory == 0
    for call in (world.post(session, 1), world.engine.describe(session), world.engine.delete(session)):
        with pytest.raises(SessionExpired):
            await call


async def test_use_keeps_a_session_here_and_in_the_store(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    for _ in range(20):
        world.clock.advance(world.limits.idle_timeout_s * 0.4)
        await world.post(session, 1)  # answered from the outbox: nothing is saved
        world.engine.sweep()
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    world.crash()
    assert (await world.engine.describe(session)).next_frame == 2
    assert world.watcher.events["expired"] == 0


async def test_a_late_commit_does_not_prolong_a_session(world: World) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.clock.advance(world.limits.idle_timeout_s - 10)
    world.engine.sweep()
    await until(lambda: len(world.wire.saves) == 2)
    world.clock.advance(10)
    world.crash()
    with pytest.raises(SessionExpired):
        await world.engine.describe(session)


async def test_what_has_expired_unstored_is_stored_before_it_goes(world: World) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.wire.failing = True
    world.clock.advance(world.limits.idle_timeout_s)
    world.engine.sweep()
    await asyncio.sleep(0.005)
    world.engine.sweep()
    assert world.watcher.in_memory == 1
    with pytest.raises(SessionExpired):
        await world.post(session, 2)


async def test_the_sweeper_runs_by_itself() -> None:
    world = World(EngineLimits(sweep_every_s=0.005))
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.clock.advance(world.limits.commit_idle_s)
    await until(lambda: len(world.wire.saves) == 2)
    world.clock.advance(world.limits.idle_timeout_s)
    await until(lambda: world.watcher.in_memory == 0)
    again = await world.open()  # and again after it had nothing left to sweep
    await asyncio.sleep(0.02)
    world.clock.advance(world.limits.idle_timeout_s)
    await until(lambda: world.watcher.in_memory == 0)
    with pytest.raises(SessionExpired):
        await world.engine.describe(again)
    await world.end()


async def test_another_model_does_not_take_a_session(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    world.crash(replace(INFO, digest="sha256:other"))
    for call in (world.post(session, 2), world.engine.describe(session)):
        with pytest.raises(ModelMismatch, match="sha256:other") as raised:
            await call
        assert raised.value.metadata["session_model"] == INFO.digest
    world.crash()
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]


async def test_coming_back_is_a_use_that_the_store_hears_of(world: World) -> None:
    session = await world.open()
    for _ in range(3):
        world.clock.advance(world.limits.idle_timeout_s * 0.7)
        world.crash()
        assert (await world.engine.describe(session)).expires_in_s == world.limits.idle_timeout_s


async def test_many_callers_restore_a_session_once(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    world.crash()
    world.wire.open.clear()
    calls = [asyncio.create_task(world.engine.describe(session)) for _ in range(5)]
    await until(lambda: world.wire.calls["load"] == 1)
    calls[0].cancel()  # the one that began
    await asyncio.wait(calls[:1])
    await asyncio.sleep(0.005)
    world.wire.open.set()
    assert {info.next_frame for info in await asyncio.gather(*calls[1:])} == {2}
    assert world.wire.calls["load"] == 1


async def test_a_deleted_session_is_gone_everywhere(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    await world.engine.delete(session)
    for call in (world.post(session, 2), world.engine.describe(session), world.engine.delete(session)):
        with pytest.raises(SessionUnknown):
            await call
    world.crash()
    with pytest.raises(SessionUnknown):
        await world.post(session, 2)


async def test_a_session_that_is_not_in_memory_can_be_deleted(world: World) -> None:
    session = await world.open()
    world.crash()
    await world.engine.delete(session)
    assert world.wire.calls["load"] == 0
    with pytest.raises(SessionUnknown):
        await world.engine.describe(session)


async def test_deleting_beats_a_save_and_frames_under_way() -> None:
    world = World(lanes=1)
    session = await world.open()
    world.wire.open.clear()
    storing = asyncio.create_task(world.post(session, 1))
    await until(lambda: world.wire.calls["save"] == 2)
    world.runtime.gate.clear()
    computing = asyncio.create_task(world.post(session, 2, durability=RELAXED))
    queued = asyncio.create_task(world.post(session, 3))
    await until(lambda: world.runtime.busy)
    deleting = asyncio.create_task(world.engine.delete(session))
    late = asyncio.create_task(world.post(session, 4))
    await asyncio.sleep(0.005)
    assert not deleting.done(), "a save on its way would bring the session back"
    world.wire.open.set()
    await deleting
    world.runtime.gate.set()
    results = await asyncio.gather(storing, computing, queued, late, return_exceptions=True)
    for result in results[2:]:
        assert isinstance(result, S2sppError), result
    assert len(world.runtime.batches) == 3, "frame 3 was not computed any more"
    await asyncio.sleep(0.01)
    with pytest.raises(SessionUnknown):
        await world.store.load(session)
    with pytest.raises(SessionUnknown):
        await world.engine.describe(session)
    await world.end()


async def test_a_deletion_that_fails_leaves_the_session(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    world.wire.failing = True
    with pytest.raises(Unavailable):
        await world.engine.delete(session)
    world.wire.failing = False
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]
    await world.engine.delete(session)


async def test_a_deletion_that_fails_late_loses_nothing_that_was_answered(world: World) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.wire.deletes.clear()
    deleting = asyncio.create_task(world.engine.delete(session))
    await until(lambda: world.wire.calls["delete"] == 1)
    world.engine.sweep()
    world.wire.failing = True
    world.wire.deletes.set()
    with pytest.raises(Unavailable):
        await deleting
    world.wire.failing = False
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]


async def test_a_deletion_whose_caller_departs_goes_on(world: World) -> None:
    session = await world.open()
    world.wire.deletes.clear()
    deleting = asyncio.create_task(world.engine.delete(session))
    await until(lambda: world.wire.calls["delete"] == 1)
    deleting.cancel()
    await asyncio.wait([deleting])
    late = [asyncio.create_task(call) for call in (world.engine.delete(session), world.post(session, 1))]
    await asyncio.sleep(0.005)
    assert world.wire.calls["load"] == 0 and world.wire.calls["delete"] == 1
    world.wire.deletes.set()
    for call in late:
        with pytest.raises(SessionUnknown):
            await call


async def test_closing_answers_and_stores_everything(world: World) -> None:
    expected = await undisturbed(7)
    session = await world.open()
    for index in (1, 2, 3):
        await world.post(session, index, durability=RELAXED)
    world.runtime.gate.clear()
    calls = [asyncio.create_task(world.post(session, n, durability=RELAXED)) for n in (4, 5)]
    strict = asyncio.create_task(world.post(session, 6))
    opening = asyncio.create_task(world.open())
    await asyncio.sleep(0.01)
    closing = asyncio.create_task(world.engine.close())
    await asyncio.sleep(0.01)
    for call in (world.post(session, 7), world.open(), world.engine.ready(), world.engine.delete(session)):
        with pytest.raises(Unavailable):
            await call
    assert not closing.done()
    world.runtime.gate.set()
    await closing
    assert [(await call).answer for call in (*calls, strict)] == expected[3:6]
    assert (await world.store.load(session)).next_frame == 7
    assert (await world.store.load(await opening)).next_frame == 1
    assert world.watcher.in_memory == 0
    world.crash()
    assert (await world.post(session, 7)).answer == expected[6]


async def test_closing_ends_when_the_store_is_away(world: World, caplog: pytest.LogCaptureFixture) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    world.wire.failing = True
    await world.engine.close()
    await world.engine.close()
    assert f"session {session} is stored as of frame 0 only" in caplog.text
