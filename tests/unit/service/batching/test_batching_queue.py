"""The queue: what runs together, who gets which reply, and who pays for whose failure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batching import BatchingQueue
from service.core.errors import Unavailable
from service.core.ports import Seen, StepResult
from service.core.state import State
from service.core.types import ImageU8
from tests.fakes.runtime import FakeRuntime
from tests.fakes.waiting import PATIENCE_S, until


@pytest.fixture
def runtime() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
async def queue(runtime: FakeRuntime) -> AsyncIterator[BatchingQueue]:
    queue = BatchingQueue(runtime, max_objects=8, max_frames=8)
    yield queue
    runtime.gate.set()
    await queue.close()


def frame(seed: int, height: int = 16, width: int = 32) -> ImageU8:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def masks(seed: int, objects: int, height: int = 16, width: int = 32) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 2, (objects, height, width), np.uint8)


async def alone(seed: int, objects: int, height: int = 16, width: int = 32) -> tuple[State, StepResult]:
    """State and first step of one item with the runtime to itself."""
    queue = BatchingQueue(FakeRuntime(), max_objects=8, max_frames=8)
    state = await queue.initialise(frame(seed, height, width), masks(seed, objects, height, width))
    result = await queue.step(frame(seed + 1, height, width), state)
    await queue.close()
    return state, result


def assert_same(one: State, other: State) -> None:
    mine, theirs = arrays(one), arrays(other)
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert mine[name].dtype == theirs[name].dtype
        assert np.array_equal(mine[name], theirs[name]), name


def arrays(state: State) -> dict[str, NDArray[np.generic]]:
    return {**state.changing.tensors(), **state.constant.tensors()}


async def hold(runtime: FakeRuntime, queue: BatchingQueue) -> asyncio.Task[State]:
    """Keep the runtime busy, so that what is queued from now on gathers."""
    runtime.gate.clear()
    busy = asyncio.create_task(queue.initialise(frame(0, 16, 16), masks(0, 1, 16, 16)))
    await until(lambda: runtime.busy)
    return busy


async def test_items_that_wait_run_as_one_batch_and_each_gets_its_own(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    expected = [await alone(seed, objects) for seed, objects in ((1, 1), (2, 3), (3, 2))]
    await hold(runtime, queue)
    opening = asyncio.gather(*(queue.initialise(frame(s), masks(s, n)) for s, n in ((1, 1), (2, 3), (3, 2))))
    await asyncio.sleep(0)
    runtime.gate.set()
    states = await opening
    results = await asyncio.gather(
        *(queue.step(frame(s + 1), state) for s, state in zip((1, 2, 3), states, strict=True))
    )
    assert runtime.batches[1:] == [("initialise", 3, 6), ("step", 3, 6)]
    for (state, result), got_state, got in zip(expected, states, results, strict=True):
        assert_same(got_state, state)
        assert_same(got.state, result.state)
        assert np.array_equal(got.probability, result.probability)


async def test_other_sizes_and_kinds_run_apart_in_the_order_of_their_oldest(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    state = await queue.initialise(frame(1), masks(1, 1))
    await hold(runtime, queue)
    calls = asyncio.gather(
        queue.initialise(frame(2, 32, 32), masks(2, 2, 32, 32)),
        queue.step(frame(3), state),
        queue.initialise(frame(4), masks(4, 1)),
        queue.initialise(frame(5, 32, 32), masks(5, 1, 32, 32)),
        queue.step(frame(6), state),
    )
    await asyncio.sleep(0)
    runtime.gate.set()
    await calls
    assert runtime.batches[2:] == [("initialise", 2, 3), ("step", 2, 2), ("initialise", 1, 1)]


async def test_a_busy_size_does_not_starve_another(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    states = [await queue.initialise(frame(s), masks(s, 4)) for s in range(3)]
    await hold(runtime, queue)
    many = [asyncio.create_task(queue.step(frame(9), state)) for state in states]
    await asyncio.sleep(0)
    rare = asyncio.create_task(queue.initialise(frame(7, 64, 64), masks(7, 1, 64, 64)))
    await asyncio.sleep(0)
    again = [asyncio.create_task(queue.step(frame(10), state)) for state in states]
    await asyncio.sleep(0)
    runtime.gate.set()
    await asyncio.gather(*many, rare, *again)
    kinds = [kind for kind, _, _ in runtime.batches[4:]]
    assert kinds == ["step", "step", "initialise", "step"]


async def test_a_batch_keeps_to_the_most_objects(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    await hold(runtime, queue)
    calls = asyncio.gather(*(queue.initialise(frame(n), masks(n, n)) for n in (5, 4, 8, 3)))
    await asyncio.sleep(0)
    runtime.gate.set()
    await calls
    assert runtime.batches[1:] == [("initialise", 2, 8), ("initialise", 1, 4), ("initialise", 1, 8)]


async def test_a_batch_keeps_to_the_most_frames_however_few_objects_they_have(runtime: FakeRuntime) -> None:
    queue = BatchingQueue(runtime, max_objects=16, max_frames=3)
    await hold(runtime, queue)
    calls = asyncio.gather(*(queue.initialise(frame(n), masks(n, 1)) for n in range(7)))
    await asyncio.sleep(0)
    runtime.gate.set()
    await calls
    assert runtime.batches[1:] == [("initialise", 3, 3), ("initialise", 3, 3), ("initialise", 1, 1)]
    await queue.close()


async def test_what_is_urgent_goes_before_what_waits(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    states = [(await alone(seed, 5))[0] for seed in range(4)]
    await hold(runtime, queue)
    order: list[int] = []

    async def step(number: int, urgent: float | None) -> None:
        await queue.step(frame(number), states[number], urgent=urgent)
        order.append(number)

    calls = asyncio.gather(*(step(number, urgent) for number, urgent in enumerate((None, None, 7.0, 3.0))))
    await asyncio.sleep(0)
    runtime.gate.set()
    await calls
    assert order == [3, 2, 0, 1]


async def test_what_follows_on_an_urgent_frame_goes_before_what_waits(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    states = [(await alone(seed, 5))[0] for seed in range(3)]
    await hold(runtime, queue)
    order: list[str] = []

    async def urgent() -> None:
        state = states[0]
        for number in range(3):
            state = (await asyncio.create_task(queue.step(frame(number), state, urgent=float(number)))).state
            order.append(f"urgent {number}")

    async def waiting(number: int) -> None:
        await queue.step(frame(number), states[number])
        order.append("other")

    calls = asyncio.gather(waiting(1), waiting(2), urgent())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    runtime.gate.set()
    await calls
    assert order == ["urgent 0", "urgent 1", "urgent 2", "other", "other"]


async def test_a_frame_with_more_objects_takes_several_batches_and_others_come_in_between(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    whole = FakeRuntime()
    (state,) = whole.initialise([frame(1)], [masks(1, 21)])
    (expected,) = whole.step([frame(2)], [state])
    assert_same(await queue.initialise(frame(1), masks(1, 21)), state)
    await hold(runtime, queue)
    other = (await alone(3, 2))[0]
    runtime.batches.clear()
    calls = asyncio.gather(queue.step(frame(2), state), queue.step(frame(4), other))
    await asyncio.sleep(0)
    runtime.gate.set()
    result, others = await calls
    assert runtime.batches[-4:] == [("step", 1, 8), ("step", 1, 2), ("step", 1, 8), ("step", 1, 5)]
    assert_same(result.state, expected.state)
    assert np.array_equal(result.probability, expected.probability)
    assert result.compute_ms == 3 and result.queue_ms > 0
    assert_same(others.state, (await alone(3, 2))[1].state)


async def test_a_frame_of_several_batches_fails_as_one(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    state = await queue.initialise(frame(1), masks(1, 21))
    runtime.failures = 1
    with pytest.raises(RuntimeError):
        await queue.step(frame(2), state)
    (expected,) = FakeRuntime().step([frame(2)], [state])
    assert_same((await queue.step(frame(2), state)).state, expected.state)


async def test_a_single_item_is_passed_through_without_copies(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    given: list[State] = []
    step = runtime.step

    def spy(frames: Sequence[Seen], states: Sequence[State], *, wide: bool = True) -> list[StepResult]:
        given.extend(states)
        return step(frames, states)

    runtime.step = spy  # type: ignore[method-assign]
    state = await queue.initialise(frame(1), masks(1, 2))
    result = await queue.step(frame(2), state)
    assert given == [state] and given[0] is state
    assert result.state.constant is state.constant


async def test_a_departed_caller_is_skipped_and_its_neighbours_are_answered(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    await hold(runtime, queue)
    calls = [asyncio.create_task(queue.initialise(frame(s), masks(s, 2))) for s in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.sleep(0)
    runtime.gate.set()
    first, second, third = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(second, asyncio.CancelledError)
    assert runtime.batches[1:] == [("initialise", 2, 4)]
    for seed, got in ((0, first), (2, third)):
        assert isinstance(got, State)
        assert_same(got, (await alone(seed, 2))[0])


async def test_a_caller_that_departs_while_its_batch_runs_harms_nobody(
    runtime: FakeRuntime, queue: BatchingQueue
) -> None:
    busy = await hold(runtime, queue)
    busy.cancel()
    other = asyncio.create_task(queue.initialise(frame(2), masks(2, 1)))
    await asyncio.sleep(0)
    runtime.gate.set()
    assert_same(await other, (await alone(2, 1))[0])


async def test_a_poisoned_item_fails_alone(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    runtime.poison = lambda image: np.array_equal(image, frame(2))
    await hold(runtime, queue)
    calls = asyncio.gather(*(queue.initialise(frame(s), masks(s, 2)) for s in (1, 2, 3)), return_exceptions=True)
    await asyncio.sleep(0)
    runtime.gate.set()
    first, second, third = await calls
    assert isinstance(second, RuntimeError)
    for seed, got in ((1, first), (3, third)):
        assert isinstance(got, State)
        assert_same(got, (await alone(seed, 2))[0])


async def test_a_failure_stays_in_its_batch(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    await hold(runtime, queue)
    runtime.poison = lambda image: image.shape[0] == 64
    bad = asyncio.create_task(queue.initialise(frame(1, 64, 64), masks(1, 1, 64, 64)))
    good = asyncio.create_task(queue.initialise(frame(2), masks(2, 1)))
    await asyncio.sleep(0)
    runtime.gate.set()
    assert_same(await good, (await alone(2, 1))[0])
    with pytest.raises(RuntimeError):
        await bad


async def test_waiting_and_computing_are_told_apart(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    state = await queue.initialise(frame(1), masks(1, 1))
    await hold(runtime, queue)
    waiting = asyncio.create_task(queue.step(frame(2), state))
    queued = time.perf_counter()
    await asyncio.sleep(0.02)
    waited_ms = (time.perf_counter() - queued) * 1e3
    runtime.gate.set()
    result = await waiting
    assert result.compute_ms == 1.0, "the runtime's own figure"
    assert result.queue_ms >= waited_ms


async def test_closing_answers_everybody(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    busy = await hold(runtime, queue)
    waiting = asyncio.create_task(queue.initialise(frame(2), masks(2, 1)))
    await asyncio.sleep(0)
    closing = asyncio.create_task(queue.close())
    with pytest.raises(Unavailable):
        await waiting
    runtime.gate.set()
    async with asyncio.timeout(PATIENCE_S):
        await closing
        assert arrays(await busy)["first"].shape == (1, 4, 4)
    with pytest.raises(Unavailable):
        await queue.initialise(frame(3), masks(3, 1))


async def test_work_alone_steps_as_the_queue_does(queue: BatchingQueue) -> None:
    state, expected = await alone(1, 2)
    assert queue.idle(8) and not queue.idle(9)  # which would take two runs
    result = await queue.alone(lambda step: step(frame(2), state))
    assert np.array_equal(result.probability, expected.probability)
    assert_same(result.state, expected.state)


async def test_the_queue_is_idle_once_nothing_runs_or_waits(runtime: FakeRuntime, queue: BatchingQueue) -> None:
    busy = await hold(runtime, queue)
    assert not queue.idle(1)
    waiting = asyncio.create_task(queue.alone(lambda _: 7))
    runtime.gate.set()
    assert await waiting == 7
    await busy
    assert queue.idle(1)


async def test_work_alone_that_fails_fails_for_its_caller_only(queue: BatchingQueue) -> None:
    with pytest.raises(ZeroDivisionError):
        await queue.alone(lambda _: 1 // 0)
    await queue.initialise(frame(1), masks(1, 1))
