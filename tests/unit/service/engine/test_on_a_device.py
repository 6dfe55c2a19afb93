"""The engine over states that stay on a device, against the same over states on the host."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.core.ports import Runtime
from service.core.types import Answer, DrawObjects, EncodedImage, RemoveObject, SessionId
from service.engine import EngineLimits
from service.runtime import DeviceRuntime, OnnxRuntime, load_bundle
from service.runtime.pool import DeviceRows, Pool
from tests.fakes.engine_world import STRICT, World, first_labels, raw_frame, raw_mask
from tests.fakes.waiting import until
from tests.integration.tiny_bundle import write_tiny_bundle

Worlds = Callable[[bool], World]


@pytest.fixture
async def worlds(tmp_path: Path) -> AsyncIterator[Worlds]:
    bundle = load_bundle(str(write_tiny_bundle(tmp_path / "tiny")))
    made = []

    def make(device: bool) -> World:
        def runtime() -> Runtime:
            return DeviceRuntime(bundle, max_batch=4, provider="cpu") if device else OnnxRuntime(bundle)

        world = World(EngineLimits(max_sessions=2000, park_idle_s=5), runtime=runtime)
        made.append(world)
        return world

    yield make
    for world in made:
        await world.end()


def frame(index: int) -> EncodedImage:
    return raw_frame(index, 64, 96)


async def story(world: World) -> list[Answer]:
    """Every way in which a state is made anew: stepped, drawn upon, taken from, stored, and brought back twice."""
    session = await world.open(0, 64, 96)
    answers = [(await world.post(session, index, frame(index))).answer for index in (1, 2)]
    drawn = first_labels(64, 96, 3) * (first_labels(64, 96, 3) == 3) * 2  # object 6
    await world.engine.change(session, 2, DrawObjects(frame(2), raw_mask(drawn)), durability=STRICT)
    answers.append((await world.post(session, 3, frame(3))).answer)
    world.crash()
    answers.append((await world.post(session, 4, frame(4))).answer)
    await world.engine.change(session, 4, RemoveObject(1), durability=STRICT)
    await world.engine.change(session, 4, DrawObjects(frame(4), raw_mask(drawn)), durability=STRICT)
    world.crash()
    # Brought back, and changed before its first step: what is drawn is on the device, what was stored is not.
    await world.engine.change(session, 4, DrawObjects(frame(4), raw_mask(drawn // 2)), durability=STRICT)
    answers += [(await world.post(session, index, frame(index))).answer for index in (5, 6)]
    return answers


async def test_masks_are_the_same_through_changes_and_crashes(worlds: Worlds) -> None:
    assert await story(worlds(True)) == await story(worlds(False))


async def test_parked_sessions_hold_nothing_on_the_device(worlds: Worlds) -> None:
    world = worlds(True)
    active = await world.open(0, 64, 96)
    for seed in range(1, 40):
        await world.open(seed, 64, 96)
    pool = pool_of(world, active)
    assert pool.capacity - pool.free == 80
    world.clock.advance(6)
    await world.post(active, 1, frame(1))
    world.engine.sweep()
    assert pool_of(world, active) is pool
    await until(lambda: pool.capacity - pool.free == 2)  # what the runtime's thread was at ends, too


def pool_of(world: World, session: SessionId) -> Pool:
    resident = world.engine._residence.get(session)
    assert resident is not None
    rows = resident.session.snapshot().state.changing
    assert isinstance(rows, DeviceRows)
    return rows.pool
