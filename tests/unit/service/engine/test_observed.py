"""What telemetry is told of time: where a frame's went, and how long answers were at stake."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.core.errors import Unavailable
from service.core.types import RemoveObject
from tests.fakes.engine_world import RELAXED, STRICT, World
from tests.fakes.waiting import until

PAUSE_S = 0.05


async def test_the_total_of_a_frame_covers_its_wait_for_the_frame_before(world: World) -> None:
    session = await world.open()
    world.runtime.gate.clear()
    began = time.perf_counter()
    frames = [asyncio.create_task(world.post(session, index, durability=RELAXED)) for index in (1, 2)]
    await until(lambda: world.runtime.busy)
    await asyncio.sleep(PAUSE_S)
    world.runtime.gate.set()
    await asyncio.gather(*frames)
    ended = time.perf_counter()
    first, second = world.watcher.times
    assert (first.frame_index, second.frame_index) == (1, 2)
    for times in (first, second):
        measured = (times.decode, times.queue, times.encode)  # the fake model only says how long it took
        marks = [began, times.total.began, *(mark for stage in measured for mark in stage), times.total.ended, ended]
        assert marks == sorted(marks) and times.compute.began == times.queue.ended
        assert times.total.seconds >= PAUSE_S
    assert sum(stage.seconds for stage in second.stages().values()) < PAUSE_S, "it waited before it was queued"


async def test_the_age_of_a_commit_is_that_of_its_oldest_answer(world: World) -> None:
    session = await world.open()
    await world.post(session, 1, durability=RELAXED)
    await asyncio.sleep(PAUSE_S)
    await world.post(session, 2, durability=STRICT)
    await world.post(session, 3, durability=STRICT)
    older, newer = world.watcher.ages
    assert older is not None and newer is not None
    assert older >= PAUSE_S > newer > 0


async def test_a_commit_that_failed_leaves_its_answers_their_age(world: World) -> None:
    session = await world.open()
    world.wire.failures = 1
    with pytest.raises(Unavailable):
        await world.post(session, 1, durability=STRICT)
    await asyncio.sleep(PAUSE_S)
    await world.post(session, 2, durability=STRICT)
    assert world.watcher.events["not stored"] == 1
    failed, stored = world.watcher.ages
    assert failed is not None and stored is not None and stored > failed + PAUSE_S


async def test_a_commit_of_no_answer_has_no_age(world: World) -> None:
    session = await world.open(objects=2)
    await world.engine.change(session, 0, RemoveObject(1), durability=STRICT)
    assert world.watcher.ages == [None]
