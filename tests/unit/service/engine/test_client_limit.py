"""Sessions of one client: a limit of its own, room made among its own, and nobody else concerned."""

from __future__ import annotations

import asyncio

import pytest

from service.core.errors import Overloaded
from service.core.types import EncodedImage, SessionId
from service.engine import EngineLimits
from tests.fakes.engine_world import RAW, World, first_labels, raw_frame, raw_mask

JUNK = EncodedImage(b"not even looked at")


async def open_as(world: World, client: str) -> SessionId:
    mask = raw_mask(first_labels())
    return (await world.engine.open(raw_frame(0), mask, RAW, client=client)).info.session


async def test_a_client_that_has_its_share_is_refused_before_any_work() -> None:
    world = World(EngineLimits(max_sessions=8, max_client_sessions=2))
    first = await open_as(world, "a")
    await open_as(world, "a")
    for refused in (world.engine.open(JUNK, JUNK, RAW, client="a"), open_as(world, "a")):
        with pytest.raises(Overloaded, match=r"as one may have \(2, ") as raised:
            await refused
        assert 0 < raised.value.retry_after_s <= 1
    with pytest.raises(Overloaded):
        world.engine.refuse_if_full("a")
    world.engine.refuse_if_full("b")
    await open_as(world, "b")
    await world.open()  # nobody in particular
    await world.engine.delete(first)
    await open_as(world, "a")
    await world.end()


async def test_openings_under_way_count_for_their_client() -> None:
    world = World(EngineLimits(max_client_sessions=1))
    world.runtime.gate.clear()
    opening = asyncio.create_task(open_as(world, "a"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await open_as(world, "a")
    other = asyncio.create_task(open_as(world, "b"))
    opening.cancel()
    await asyncio.wait({opening})
    world.runtime.gate.set()
    await other
    await open_as(world, "a")
    await world.end()


async def test_room_is_made_among_the_clients_own_idle_sessions() -> None:
    world = World(EngineLimits(max_client_sessions=1, evict_idle_s=5))
    other = await open_as(world, "b")
    first = await open_as(world, "a")
    world.clock.advance(4)
    with pytest.raises(Overloaded) as raised:
        await open_as(world, "a")
    assert raised.value.retry_after_s == 1
    world.clock.advance(1)
    await open_as(world, "a")
    assert world.watcher.in_memory == 2
    with pytest.raises(Overloaded, match=r"as one may have \(1, "):
        await world.post(first, 1)  # what made room comes back only when there is some
    world.clock.advance(5)
    for session in (first, other):
        assert (await world.post(session, 1)).answer.frame_index == 1
    assert world.watcher.events["restored"] == 1, "the other client's session stayed"
    await world.end()


async def test_without_a_limit_a_client_may_have_them_all(world: World) -> None:
    for _ in range(5):
        await open_as(world, "a")
