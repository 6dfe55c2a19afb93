"""A frame that is alone goes straight through the runtime's thread: which ones do, and that nobody can tell."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from service.core.errors import InvalidImage, S2sppError
from service.core.types import EncodedImage
from service.engine import stepping
from tests.fakes.engine_world import RELAXED, World, undisturbed


@pytest.fixture
def readers(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that frames were decoded in, by what they are for."""
    names: list[str] = []
    read = stepping.read_frame

    def noted(*args: Any) -> Any:
        names.append(threading.current_thread().name.split("_")[0].removeprefix("s2spp-"))
        return read(*args)

    monkeypatch.setattr(stepping, "read_frame", noted)
    return names


async def test_frame_after_frame_of_one_session_goes_straight(world: World, readers: list[str]) -> None:
    session = await world.open()
    for index in range(1, 5):
        await world.post(session, index)
    assert readers == ["images", "runtime", "runtime", "runtime"]  # before the first, others might have come


async def test_frames_that_overlap_go_in_turns_and_are_answered_alike(world: World, readers: list[str]) -> None:
    session = await world.open()
    await world.post(session, 1)
    overlapping = (world.post(session, index, None, RELAXED, 1) for index in range(2, 6))
    answers = [delivered.answer for delivered in await asyncio.gather(*overlapping)]
    assert readers == ["images"] * 5
    assert answers == (await undisturbed(5))[1:]


async def test_sessions_that_take_turns_do_not_keep_the_runtime_from_each_other(
    world: World, readers: list[str]
) -> None:
    one, other = await world.open(), await world.open()
    for index in range(1, 4):
        await world.post(one, index)
        await world.post(other, index)
    assert readers == ["images"] * 6


async def test_a_bad_frame_that_is_alone_takes_its_index(world: World, readers: list[str]) -> None:
    session = await world.open()
    await world.post(session, 1)
    with pytest.raises(InvalidImage):
        await world.post(session, 2, EncodedImage(b""))
    await world.post(session, 3)
    assert readers == ["images", "runtime", "runtime"]


async def test_a_step_that_fails_alone_leaves_its_index_open(world: World) -> None:
    session = await world.open()
    await world.post(session, 1)
    world.runtime.failures = 1
    with pytest.raises(S2sppError):
        await world.post(session, 2)
    assert (await world.post(session, 2)).answer == (await undisturbed(2))[1]


async def test_its_stages_follow_each_other(world: World) -> None:
    session = await world.open()
    for index in (1, 2):
        await world.post(session, index)
    times = world.watcher.times[-1]
    assert (times.decode.ended, times.queue.ended) == (times.queue.began, times.compute.began)
    assert times.total.began <= times.decode.began and times.encode.ended <= times.total.ended
