"""A runtime of several lanes: what runs beside what, and who gets all of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batching import BatchingQueue
from service.core.errors import Unavailable
from service.core.ports import Features
from service.core.state import State
from service.core.types import ImageU8
from tests.fakes.runtime import FakeRuntime
from tests.fakes.waiting import PATIENCE_S, until


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime(lanes=2)


@pytest.fixture
async def queue(runtime: FakeRuntime) -> AsyncIterator[BatchingQueue]:
    queue = BatchingQueue(runtime, max_objects=8, max_frames=1)
    yield queue
    runtime.gate.set()
    await queue.close()
    assert not runtime.forbidden


def frame(seed: int) -> ImageU8:
    return np.random.default_rng(seed).integers(0, 256, (16, 32, 3), np.uint8)


def masks(objects: int) -> NDArray[np.uint8]:
    return np.random.default_rng(objects).integers(0, 2, (objects, 16, 32), np.uint8)


def begun(objects: int = 1) -> State:
    return FakeRuntime().initialise([frame(0)], [masks(objects)])[0]


def same(one: State, other: State) -> bool:
    ours, theirs = one.changing.tensors(), other.changing.tensors()
    return all(np.array_equal(ours[name], theirs[name]) for name in ours)


async def hold(runtime: FakeRuntime, queue: BatchingQueue) -> list[asyncio.Task[object]]:
    """Something in each lane."""
    runtime.gate.clear()
    busy: list[asyncio.Task[object]] = [asyncio.create_task(queue.step(frame(seed), begun())) for seed in (90, 91)]
    await until(lambda: len(runtime._entered) == 2)
    return busy


async def test_two_steps_run_side_by_side(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    results = await asyncio.gather(*await hold_and_go(runtime, queue))
    assert len(results) == 2 and runtime.wide == [False, False]


async def hold_and_go(runtime: FakeRuntime, queue: BatchingQueue) -> list[asyncio.Task[object]]:
    busy = await hold(runtime, queue)
    runtime.gate.set()
    return busy


async def test_who_is_alone_gets_all_lanes_and_who_has_company_has_one(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    queue._cores._pace.wide = lambda kind: True  # type: ignore[method-assign]  # which has tests of its own
    for seed in range(4):
        await queue.step(frame(seed), begun())
    assert runtime.wide == [True] * 4
    await asyncio.gather(*(queue.step(frame(seed), begun()) for seed in range(2)))
    await queue.step(frame(2), begun())
    assert runtime.wide[4:] == [False] * 3, "who had company a moment ago has it again as a rule"
    for seed in range(3):
        await queue.step(frame(seed), begun())
    assert runtime.wide[-1]


async def test_what_comes_while_a_wide_run_is_under_way_waits_for_it(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    runtime.gate.clear()
    wide = asyncio.create_task(queue.step(frame(1), begun()))
    await until(lambda: runtime.busy)
    other = asyncio.create_task(queue.step(frame(2), begun()))
    await asyncio.sleep(0.005)
    runtime.gate.set()
    await asyncio.gather(wide, other)
    assert runtime.wide == [True, False]


async def test_steps_go_before_what_is_only_encoded_ahead(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    done, release, long = [], threading.Event(), frame(0)
    runtime.unencodable = lambda frame: frame is long and not release.wait(20)
    await asyncio.gather(*await hold_and_go(runtime, queue))  # nobody is alone from now on
    busy = asyncio.create_task(queue.encode(long))  # keeps one lane, so that in the other all comes in its order
    await until(lambda: runtime.busy)
    runtime.gate.clear()

    async def told(name: str, work: Coroutine[Any, Any, object]) -> None:
        await work
        done.append(name)

    works = {
        "first": queue.encode(frame(1)),  # goes at once
        "encoded": queue.encode(frame(2)),
        "step": queue.step(frame(3), begun()),
        "another step": queue.step(frame(4), begun()),
        "urgent": queue.encode(frame(5), urgent=1.0),
    }
    tasks = []
    for name, work in works.items():
        tasks.append(asyncio.create_task(told(name, work)))
        await asyncio.sleep(0.002)
    runtime.gate.set()
    await asyncio.gather(*tasks)
    assert done == ["first", "urgent", "step", "another step", "encoded"]
    release.set()
    await busy


async def test_what_is_encoded_ahead_steps_as_the_frame_itself(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    state, pixels = begun(), frame(7)
    features = await queue.encode(pixels)
    assert isinstance(features, Features) and features.shape == pixels.shape
    result = await queue.step(features, state)
    (expected,) = FakeRuntime().step([pixels], [state])
    assert same(result.state, expected.state) and np.array_equal(result.probability, expected.probability)


async def test_a_runtime_of_one_lane_encodes_nothing_ahead() -> None:
    runtime = FakeRuntime()
    queue = BatchingQueue(runtime, max_objects=8, max_frames=8)
    pixels = frame(1)
    assert await queue.encode(pixels) is pixels and not runtime.encoded and queue.ahead == 1
    await queue.close()


async def test_many_objects_are_shared_out_among_the_lanes(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    await asyncio.gather(*await hold_and_go(runtime, queue))
    runtime.batches.clear()
    state = begun(5)
    result = await queue.step(frame(1), state)
    assert sorted(objects for _, _, objects in runtime.batches) == [2, 3] and len(runtime.encoded) == 1
    (expected,) = FakeRuntime().step([frame(1)], [state])
    assert same(result.state, expected.state) and np.array_equal(result.probability, expected.probability)
    assert result.compute_ms == pytest.approx(1 + 2), "of two runs side by side, and the encoding before them"


async def test_so_many_objects_that_each_lane_has_several_runs(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    state = begun(21)
    result = await queue.step(frame(1), state)
    assert all(objects <= 8 for _, _, objects in runtime.batches)
    (expected,) = FakeRuntime().step([frame(1)], [state])
    assert same(result.state, expected.state)


async def test_a_frame_whose_part_fails_fails_as_one(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    await asyncio.gather(*await hold_and_go(runtime, queue))
    runtime.failures = 1
    with pytest.raises(RuntimeError):
        await queue.step(frame(1), begun(4))
    await queue.step(frame(1), begun(4))


async def test_openings_come_one_after_the_other(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    """What else there is goes on beside them."""
    runtime.gate.clear()
    openings = [asyncio.create_task(queue.initialise(frame(seed), masks(1))) for seed in range(3)]
    step = asyncio.create_task(queue.step(frame(3), begun()))
    await until(lambda: len(runtime._entered) == 2)
    assert {kind for kind, _ in runtime._entered} == {"initialise", "step"}
    runtime.gate.set()
    await asyncio.gather(*openings, step)


async def test_frames_are_read_ahead_for_lanes_that_have_nothing_to_do(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    assert queue.ahead == 3
    busy = await hold(runtime, queue)
    waiting = [asyncio.create_task(queue.encode(frame(seed))) for seed in range(5)]
    await asyncio.sleep(0.005)
    assert queue.ahead == 1, "others wait already"
    runtime.gate.set()
    await asyncio.gather(*busy, *waiting)


async def test_the_parts_of_a_frame_count_as_one_that_waits(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    seen = await queue.encode(frame(1))
    busy = await hold(runtime, queue)
    step = asyncio.create_task(queue.step(seen, begun(5)))
    await asyncio.sleep(0.005)
    assert queue.ahead == 2
    runtime.gate.set()
    await asyncio.gather(*busy, step)
    assert sorted(runtime.batches[-2:]) == [("step", 1, 2), ("step", 1, 3)], "it was in parts"


async def test_what_is_encoded_ahead_does_not_wait_for_ever(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    """Sessions whose frames are steps at once, as those of cameras are, keep all lanes busy."""
    runtime.delay_s = 0.002
    over = False

    async def camera() -> None:
        while not over:
            await queue.step(frame(1), begun())

    cameras = [asyncio.create_task(camera()) for _ in range(4)]
    await asyncio.sleep(0.02)
    async with asyncio.timeout(PATIENCE_S):
        await queue.encode(frame(2))
    over = True
    await asyncio.gather(*cameras)


async def test_an_urgent_frame_stays_in_one_piece(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    await asyncio.gather(*await hold_and_go(runtime, queue))
    runtime.batches.clear()
    await queue.step(frame(1), begun(5), urgent=1.0)
    assert runtime.batches == [("step", 1, 5)]


async def test_a_lane_is_free_again_whatever_its_run_came_to(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    for _ in range(3):
        runtime.failures = 2
        results = await asyncio.gather(*(queue.step(frame(seed), begun()) for seed in range(2)), return_exceptions=True)
        assert all(isinstance(result, RuntimeError) for result in results)
        assert queue.idle(1)
    await queue.step(frame(1), begun())


async def test_closing_with_all_lanes_busy_answers_everybody(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    busy = await hold(runtime, queue)
    waiting = [asyncio.create_task(queue.step(frame(seed), begun(3))) for seed in range(3)]
    waiting.append(asyncio.create_task(queue.encode(frame(9))))  # type: ignore[arg-type]
    await asyncio.sleep(0.005)
    closing = asyncio.create_task(queue.close())
    await asyncio.sleep(0.005)
    runtime.gate.set()
    await closing
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, Unavailable) for result in results)
    assert len(await asyncio.gather(*busy)) == 2, "what ran is answered"
