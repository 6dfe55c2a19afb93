"""The step queue over one runtime. Knows arrays and the Runtime port; nothing of sessions.

Work waits until one of the runtime's lanes is free. What is only encoded ahead waits for all else; otherwise what came
first goes first. There is no waiting for a batch to fill: what can run with the item whose turn it is (same kind, same
grid) goes with it, where the runtime gains from that. Each item owns its reply, so a caller that departs takes only its
own item along; what breaks a batch is found by running its items one by one.

A run is wide, on all cores, where it is all that there is to do. Runs on one core each do more in the same time, as
soon as half of the cores have one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.batching.pace import Pace
from service.core.errors import Unavailable
from service.core.ports import Features, Runtime, Seen, StepResult
from service.core.state import State
from service.core.types import ImageU8

_Reply = TypeVar("_Reply")
# Of the event loop, from a result to the next frame of its session in the queue.
_TURNS_TO_FOLLOW = 4
# So many times in a row who came found nothing else to do, until who is alone gets all cores. (Two senders who wait for
# each mask could go on in turns, each on all cores, or side by side, which is faster.)
_QUIET = 3
_STEP, _INITIALISE, _ENCODE = range(3)


@dataclass(eq=False)
class _Item(Generic[_Reply]):
    """One frame [h,w,3] and what its objects bring along: their masks or their state. `run`: all items of a batch, wide
    or not."""

    kind: int
    run: Callable[[Sequence[_Item[_Reply]], bool], list[_Reply]]
    frame: Seen
    brought: Any
    objects: int
    reply: asyncio.Future[_Reply]
    urgent: float | None = None
    queued_at: float = field(default_factory=time.perf_counter)

    def joins(self, other: _Item[_Reply]) -> bool:
        """What is urgent is not held up by others in its batch."""
        same = self.run == other.run and self.frame.shape == other.frame.shape
        return same and (other.urgent is not None or self.urgent is None)

    @property
    def rank(self) -> tuple[bool, float, bool]:
        return self.urgent is None, self.urgent or 0.0, self.kind == _ENCODE


class BatchingQueue:
    """The StepQueue port, for one event loop. Runs are in threads of the queue's own, `Runtime.lanes` of them at a
    time, with at most `max_objects` objects: a frame with more takes several. So a run's memory is bounded, and others
    need not wait for all of them. `max_frames` in a batch: as many as a run gains from, for all of them wait for the
    last."""

    def __init__(self, runtime: Runtime, max_objects: int, max_frames: int) -> None:
        self._runtime = runtime
        self._max_objects = max_objects
        self._max_frames = max_frames
        self._pending: list[_Item[Any]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._kinds: list[int] = []  # of what runs
        self._wide = False  # what runs has all lanes
        self._quiet = _QUIET
        self._pace = Pace()
        self._threads = ThreadPoolExecutor(runtime.lanes, thread_name_prefix="s2spp-runtime")
        self._starting = False
        self._closed = False

    @property
    def ahead(self) -> int:
        # The one whose turn is next, and one for each lane that would have nothing else to do.
        return 1 if self._runtime.lanes == 1 else 1 + max(0, self._runtime.lanes - len(self._pending))

    async def initialise(self, frame: ImageU8, masks: NDArray[np.uint8]) -> State:
        """State of the N objects of `masks` [N,h,w] (0/1) on `frame` [h,w,3]."""
        self._arrived()
        # One after the other: what others have waiting comes in between.
        states = [
            await self._put(_INITIALISE, self._initialise_batch, frame, masks[part.start : part.stop], len(part))
            for part in _parts(len(masks), self._max_objects)
        ]
        return states[0] if len(states) == 1 else await asyncio.to_thread(states[0].join, states[1:])

    async def encode(self, frame: ImageU8, *, urgent: float | None = None) -> Seen:
        """What a step can do before its turn."""
        if self._runtime.lanes == 1:
            return frame
        self._arrived()
        return await self._encode(frame, urgent)

    async def step(self, frame: Seen, state: State, *, urgent: float | None = None) -> StepResult:
        """One step of the objects of `state` on `frame` [h,w,3]; the result holds these only. `urgent`: before
        those that wait and are not, and those with a higher number."""
        self._arrived()
        parts = _parts(state.objects, self._together(state.objects))
        if len(parts) == 1:
            return await self._put(_STEP, self._step_batch, frame, state, state.objects, urgent=urgent)
        encoded = 0.0
        if isinstance(frame, np.ndarray) and self._runtime.lanes > 1:
            frame = await self._encode(frame, urgent)
            encoded = frame.made.seconds * 1e3 if isinstance(frame, Features) else 0.0
        waves = []
        for at in range(0, len(parts), self._runtime.lanes):
            runs = [
                self._put(_STEP, self._step_batch, frame, state.take(part), len(part), urgent=urgent)
                for part in parts[at : at + self._runtime.lanes]
            ]
            waves.append(await asyncio.gather(*runs))
        return await asyncio.to_thread(_whole, waves, encoded)

    def idle(self, objects: int) -> bool:
        """Nothing runs and nothing waits; and a frame with so many objects would run as one."""
        return not self._running and not self._pending and objects <= self._max_objects

    async def alone(self, work: Callable[[Callable[[ImageU8, State], StepResult]], _Reply]) -> _Reply:
        """Run `work` in the runtime's thread, where it steps by the function that it is given."""
        self._arrived()

        def run(_: Sequence[_Item[_Reply]], wide: bool) -> list[_Reply]:  # its own: nothing joins it
            return [work(partial(self._step_alone, wide))]

        return await self._put(_STEP, run, np.empty((0, 0, 3), np.uint8), None, 0)

    async def close(self) -> None:
        """Lets what runs end and answer; what waits gets Unavailable."""
        self._closed = True
        for item in self._pending:
            if not item.reply.done():
                item.reply.set_exception(_closing())
        self._pending = []
        if self._running:
            await asyncio.wait(self._running)
        self._threads.shutdown()

    def _together(self, objects: int) -> int:
        """So many objects of a frame in a run: all where it has all cores, and else some for each lane."""
        alone = self._quiet == _QUIET
        return min(self._max_objects, objects if alone else -(-objects // self._runtime.lanes))

    async def _encode(self, frame: ImageU8, urgent: float | None) -> Seen:
        return await self._put(_ENCODE, self._encode_batch, frame, None, 0, urgent=urgent)

    def _arrived(self) -> None:
        """Somebody has work; is anybody else's under way?"""
        self._quiet = 0 if self._running or self._pending else min(self._quiet + 1, _QUIET)

    def _put(
        self,
        kind: int,
        run: Callable[[Sequence[_Item[_Reply]], bool], list[_Reply]],
        frame: Seen,
        brought: object,
        objects: int,
        *,
        urgent: float | None = None,
    ) -> asyncio.Future[_Reply]:
        """Into the queue."""
        if self._closed:
            raise _closing()
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[_Reply] = loop.create_future()
        self._pending.append(_Item(kind, run, frame, brought, objects, reply, urgent))
        if not self._starting:
            self._starting = True  # a moment later: what comes together is seen together
            loop.call_soon(self._start)
        return reply

    def _start(self) -> None:
        """Give free lanes their work."""
        self._starting = False
        while not self._wide and len(self._running) < self._runtime.lanes and (batch := self._next_batch()):
            self._wide = not self._running and self._has_all(1 + len(self._pending))
            self._kinds.append(batch[0].kind)
            task = asyncio.create_task(self._work(batch, self._wide))
            self._running.add(task)

    def _has_all(self, waiting: int) -> bool:
        """Whether a run gets all cores, `waiting` being how much there is to do, itself included."""
        lanes = self._runtime.lanes
        return lanes == 1 or 2 * waiting < lanes or (waiting == 1 and self._quiet == _QUIET)

    async def _work(self, batch: list[_Item[Any]], wide: bool) -> None:
        await self._answer(batch, wide)
        if any(item.urgent is not None for item in batch):
            # What follows on an urgent frame is urgent as a rule, and comes before others only once it is here.
            for _ in range(_TURNS_TO_FOLLOW):
                await asyncio.sleep(0)
        self._wide = False
        self._kinds.remove(batch[0].kind)
        task = asyncio.current_task()
        assert task is not None
        self._running.discard(task)
        self._start()

    def _next_batch(self) -> list[_Item[Any]]:
        """The oldest item and, in order of arrival, those that can run with it; see `_Item.rank`. Empty when nothing
        can run now."""
        self._pending.sort(key=lambda item: item.rank)
        batch: list[_Item[Any]] = []
        others: list[_Item[Any]] = []
        objects = 0
        for item in self._pending:
            if item.reply.done():
                continue
            if item.kind == _INITIALISE and _INITIALISE in self._kinds:  # one at a time: see the Runtime port
                others.append(item)
                continue
            full = len(batch) == self._max_frames or objects + item.objects > self._max_objects
            if batch and (full or not batch[0].joins(item)):
                others.append(item)
                continue
            batch.append(item)
            objects += item.objects
        self._pending = others
        return batch

    async def _answer(self, batch: list[_Item[_Reply]], wide: bool) -> None:
        loop = asyncio.get_running_loop()
        try:
            replies = await loop.run_in_executor(self._threads, batch[0].run, batch, wide)
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    if not item.reply.done():
                        await self._answer([item], wide)
            elif not batch[0].reply.done():
                batch[0].reply.set_exception(error)
            return
        for item, reply in zip(batch, replies, strict=True):
            if not item.reply.done():
                item.reply.set_result(reply)

    def _initialise_batch(self, batch: Sequence[_Item[State]], wide: bool) -> list[State]:
        return self._runtime.initialise([_pixels(item.frame) for item in batch], [item.brought for item in batch])

    def _encode_batch(self, batch: Sequence[_Item[Seen]], wide: bool) -> list[Seen]:
        return [self._runtime.encode(_pixels(item.frame), wide=wide) for item in batch]

    def _step_alone(self, all_cores: bool, frame: ImageU8, state: State) -> StepResult:
        """`all_cores`: they may be had."""
        if self._runtime.lanes == 1 or not all_cores:
            return self._runtime.step([frame], [state], wide=all_cores)[0]
        kind = (frame.shape, state.objects)
        wide = self._pace.wide(kind)
        (result,) = self._runtime.step([frame], [state], wide=wide)
        self._pace.ran(kind, wide, result.compute_ms)
        return result

    def _step_batch(self, batch: Sequence[_Item[StepResult]], wide: bool) -> list[StepResult]:
        began = time.perf_counter()
        results = self._runtime.step([item.frame for item in batch], [item.brought for item in batch], wide=wide)
        return [
            replace(result, queue_ms=(began - item.queued_at) * 1e3)
            for item, result in zip(batch, results, strict=True)
        ]


def _parts(objects: int, most: int) -> list[range]:
    """The rows of `objects`, at most so many in each."""
    return [range(at, min(at + most, objects)) for at in range(0, objects, most)]


def _pixels(frame: Seen) -> ImageU8:
    assert not isinstance(frame, Features)
    return frame


def _whole(waves: Sequence[Sequence[StepResult]], encoded_ms: float) -> StepResult:
    """`waves` one after the other, each side by side. About 1 ms for 2 MB: in a thread, where nobody waits for it."""
    parts = [part for wave in waves for part in wave]
    return StepResult(
        np.concatenate([part.probability for part in parts]),
        parts[0].state.join([part.state for part in parts[1:]]),
        encoded_ms + sum(max(part.compute_ms for part in wave) for wave in waves),
        parts[0].queue_ms,
    )


def _closing() -> Unavailable:
    return Unavailable("the server is shutting down; try again in a moment")
