"""One session for each idempotency key: sent twice, sent at once, and across a crash at every step of opening."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import (
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    InvalidMask,
    InvalidOption,
    Overloaded,
    SessionExpired,
    SessionUnknown,
    Unavailable,
)
from service.core.ports import Opened
from service.core.types import EncodedImage, MaskFormat, SessionOptions, passing_key
from service.engine import EngineLimits
from tests.fakes.engine_world import RAW, World, first_labels, raw_frame, raw_mask
from tests.fakes.waiting import until

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
MASK = raw_mask(first_labels())


async def open_with(
    world: World,
    key: str | None = KEY,
    frame: EncodedImage | None = None,
    mask: EncodedImage = MASK,
    options: SessionOptions = RAW,
) -> Opened:
    return await world.engine.open(frame or raw_frame(0), mask, options, idempotency_key=key)


async def test_the_same_request_is_told_the_same_and_costs_no_work(world: World) -> None:
    first = await open_with(world)
    await world.post(first.info.session, 1)
    again = await open_with(world)
    assert (first.replayed, again.replayed) == (False, True)
    assert (again.info, again.state_bytes) == (first.info, first.state_bytes)
    assert [kind for kind, *_ in world.runtime.batches] == ["initialise", "step"]
    assert (await world.post(first.info.session, 2)).answer.frame_index == 2
    assert world.watcher.events["opened"] == 1


async def test_without_a_key_and_with_another_each_opens_its_own(world: World) -> None:
    opened = [await open_with(world, key) for key in (None, None, "a", "b")]
    assert len({each.info.session for each in opened}) == 4


async def test_another_request_with_the_key_is_refused(world: World) -> None:
    first = await open_with(world)
    others = (
        {"frame": raw_frame(1)},
        {"mask": raw_mask(first_labels(objects=1))},
        {"options": SessionOptions(MaskFormat.PNG)},
        {"frame": raw_frame(0, 18, 128)},  # the same number of bytes
        {"frame": MASK, "mask": raw_frame(0)},
    )
    for other in others:
        with pytest.raises(IdempotencyKeyReused):
            await open_with(world, **other)
    assert world.store.session_ids == {first.info.session}


async def test_while_the_first_is_under_way_the_second_is_told_so(world: World) -> None:
    world.wire.open.clear()
    opening = asyncio.create_task(open_with(world))
    await until(lambda: world.wire.calls["save"] == 1)
    with pytest.raises(IdempotencyKeyInUse) as raised:
        await open_with(world)
    assert raised.value.retry_after_s == 1
    world.wire.open.set()
    first = await opening
    assert (await open_with(world)).info == first.info


async def test_a_caller_that_left_may_ask_again(world: World) -> None:
    world.wire.open.clear()
    opening = asyncio.create_task(open_with(world))
    await until(lambda: world.wire.calls["save"] == 1)
    opening.cancel()
    await asyncio.wait({opening})
    world.wire.open.set()
    again = await open_with(world)
    assert world.store.session_ids == {again.info.session}


async def test_a_restart_forgets_no_key(world: World) -> None:
    first = await open_with(world)
    world.crash()
    again = await open_with(world)
    assert again.replayed and again.info == first.info
    assert (await world.post(again.info.session, 1)).answer.frame_index == 1


@pytest.mark.parametrize("step", ["before the note", "before the save", "before the answer is noted"])
async def test_a_crash_anywhere_leaves_one_session(world: World, step: str) -> None:
    if step == "before the save":
        world.wire.open.clear()
        opening = asyncio.create_task(open_with(world))
        await until(lambda: world.wire.calls["save"] == 1)
        world.crash()
        with pytest.raises(Unavailable):
            await opening
        assert not world.store.session_ids
    else:
        world.wire.lost_notes = {1 if step == "before the note" else 2}
        with pytest.raises(Unavailable):
            await open_with(world)
        assert len(world.store.session_ids) == (0 if step == "before the note" else 1)
        world.crash()
    again = await open_with(world)
    assert world.store.session_ids == {again.info.session}
    assert (await world.post(again.info.session, 1)).answer.frame_index == 1
    assert (await open_with(world)).info.session == again.info.session


async def test_a_failure_without_a_crash_may_be_tried_again(world: World) -> None:
    for lost in (1, 3):  # the first note, then the one of the answer
        world.wire.lost_notes = {lost}
        with pytest.raises(Unavailable):
            await open_with(world)
    again = await open_with(world)
    assert world.store.session_ids == {again.info.session}
    assert (await world.post(again.info.session, 1)).answer.frame_index == 1


async def test_two_servers_on_one_store_open_one_session(world: World) -> None:
    one = world.engine
    world.start()
    other = world.engine
    opened = await asyncio.gather(
        *(engine.open(raw_frame(0), MASK, RAW, idempotency_key=KEY) for engine in (one, other))
    )
    assert {each.info.session for each in opened} == world.store.session_ids
    await one.close()


async def test_a_request_that_is_refused_leaves_its_key_free(world: World) -> None:
    with pytest.raises(InvalidMask):
        await open_with(world, mask=raw_mask(first_labels(objects=0)))
    assert not (await open_with(world)).replayed


async def test_a_session_that_is_gone_stays_gone_for_its_key(world: World) -> None:
    first = await open_with(world)
    await world.engine.delete(first.info.session)
    with pytest.raises(SessionUnknown):
        await open_with(world)
    await open_with(world, "another")
    world.clock.advance(world.limits.idle_timeout_s + 1)
    with pytest.raises(SessionExpired):
        await open_with(world, "another")
    world.clock.advance(24 * 3600)
    assert not (await open_with(world)).replayed


async def test_asking_again_is_a_use_of_the_session(world: World) -> None:
    first = await open_with(world)
    for _ in range(3):
        world.clock.advance(world.limits.idle_timeout_s - 1)
        assert (await open_with(world)).info == first.info
    assert (await world.engine.describe(first.info.session)).expires_in_s == world.limits.idle_timeout_s


async def test_a_key_that_a_program_made_up_is_not_kept_for_a_day(world: World) -> None:
    keys = passing_key(), "a person's"
    first = [(await open_with(world, key)).info.session for key in keys]
    world.clock.advance(300)
    assert [(await open_with(world, key)).info.session for key in keys] == first, "as long as anybody sends it again"
    world.clock.advance(3601)
    assert [await world.store.recall(f"opening:{key}") is None for key in keys] == [True, False]


async def test_a_full_server_still_knows_its_keys() -> None:
    world = World(EngineLimits(max_sessions=1))
    first = await open_with(world)
    assert (await open_with(world)).info == first.info
    with pytest.raises(Overloaded):
        await open_with(world, "another")
    await world.end()


@pytest.mark.parametrize("key", ["", "x" * 256, "two\nlines", "é"])
async def test_a_key_is_short_and_printable(world: World, key: str) -> None:
    with pytest.raises(InvalidOption, match="UUID"):
        await open_with(world, key)
    assert not world.wire.calls["recall"]
