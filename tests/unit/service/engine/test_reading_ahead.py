"""Frames of a session that are read before their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest

from s2spp.geometry import frame_to_model, model_size
from service.core.errors import FrameGap, S2sppError
from service.core.types import Flow, ImageU8, MaskFormat, SessionOptions
from tests.fakes.engine_world import RELAXED, World, raw_frame, undisturbed
from tests.fakes.runtime import INFO
from tests.fakes.waiting import until


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


def on_the_grid(seed: int) -> ImageU8:
    """The usual clip's frame as the model sees it."""
    frame = raw_frame(seed)
    pixels = np.frombuffer(frame.data, np.uint8).reshape(frame.height, frame.width, 3)
    return frame_to_model(pixels, model_size(frame.height, frame.width, INFO.pixel_budget, INFO.multiple))


async def test_frames_behind_are_encoded_while_one_is_stepped_and_not_a_whole_window_of_them(world: World) -> None:
    session = await world.open(objects=1)
    await world.post(session, 1)
    world.runtime.encoded.clear()
    world.runtime.delay_s = 0.005
    calls = [asyncio.create_task(world.post(session, n, durability=RELAXED)) for n in range(2, 12)]
    most = 0
    while not all(call.done() for call in calls):
        most = max(most, len(world.runtime.encoded) - sum(call.done() for call in calls))
        await asyncio.sleep(0.001)
    assert 2 <= most <= 6, "one for each lane, one whose turn is next, one that is stepped or answered"
    answers = [call.result().answer for call in calls]
    assert answers == (await undisturbed(11, objects=1))[1:]


async def test_a_frame_that_cannot_be_encoded_leaves_the_session_as_it_was(world: World) -> None:
    session = await world.open(objects=1)
    await world.post(session, 1)
    fifth = on_the_grid(5)
    world.runtime.unencodable = lambda frame: np.array_equal(frame, fifth)
    calls = [asyncio.create_task(world.post(session, n, durability=RELAXED)) for n in range(2, 10)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[3], S2sppError) and results[3].reason == "INTERNAL"
    assert all(isinstance(result, FrameGap) for result in results[4:]), "none behind it is answered"
    world.runtime.unencodable = lambda frame: False
    again = [(await world.post(session, n, durability=RELAXED)).answer for n in range(5, 10)]
    before = [result.answer for result in results[:3]]  # type: ignore[union-attr]
    assert before + again == (await undisturbed(9, objects=1))[1:]


async def test_realtime_frames_are_not_encoded_before_their_turn(world: World) -> None:
    session = await world.open(objects=1, options=SessionOptions(MaskFormat.RAW, Flow.REALTIME))
    await world.post(session, 1)
    world.runtime.encoded.clear()
    world.runtime.gate.clear()
    calls = [asyncio.create_task(world.post(session, n, durability=RELAXED)) for n in range(2, 9)]
    await until(lambda: world.runtime.busy)
    await asyncio.sleep(0.01)
    world.runtime.gate.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert not world.runtime.encoded, "a newer one may come before, and it would be for nothing"
