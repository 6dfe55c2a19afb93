"""The step queue over one runtime. Knows arrays and the Runtime port; nothing of sessions.

There is no waiting for a batch to fill: while the runtime is busy, items gather; when it is free, the oldest
item and those that can run with it (same kind, same grid) go together. Each item owns its reply, so a caller
that departs takes only its own item along; what breaks a batch is found by running its items one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.errors import Unavailable
from service.core.ports import Runtime, StepResult
from service.core.state import State
from service.core.types import ImageU8

_Reply = TypeVar("_Reply")
# Of the event loop, from a result to the next frame of its session in the queue.
_TURNS_TO_FOLLOW = 4


@dataclass(eq=False)
class _Item(Generic[_Reply]):
    """One frame [h,w,3] and what its objects bring along: their masks or their state."""

    run: Callable[[Sequence[_Item[_Reply]]], list[_Reply]]
    frame: ImageU8
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
    def rank(self) -> tuple[bool, float]:
        return self.urgent is None, self.urgent or 0.0


class BatchingQueue:
    """The StepQueue port, for one event loop. Runtime calls run in one thread of the queue's own, at most
    `max_objects` objects in a batch: a frame with more takes several, one after the other. So a run's memory is
    bounded, and others need not wait for all of them. `max_frames` in a batch: as many as a run gains from, for all of
    them wait for the last."""

    def __init__(self, runtime: Runtime, max_objects: int, max_frames: int) -> None:
        self._runtime = runtime
        self._max_objects = max_objects
        self._max_frames = max_frames
        self._pending: deque[_Item[Any]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s2spp-runtime")
        self._closed = False

    async def initialise(self, frame: ImageU8, masks: NDArray[np.uint8]) -> State:
        """State of the N objects of `masks` [N,h,w] (0/1) on `frame` [h,w,3]."""
        parts = self._parts(len(masks))
        # One after the other: what others have waiting comes in between.
        states = [
            await self._run(self._initialise_batch, frame, masks[part.start : part.stop], len(part)) for part in parts
        ]
        return states[0] if len(states) == 1 else await asyncio.to_thread(states[0].join, states[1:])

    async def step(self, frame: ImageU8, state: State, *, urgent: float | None = None) -> StepResult:
        """One step of the objects of `state` on `frame` [h,w,3]; the result holds these only. `urgent`: before
        those that wait and are not, and those with a higher number."""
        parts = self._parts(state.objects)
        if len(parts) == 1:
            return await self._run(self._step_batch, frame, state, state.objects, urgent=urgent)
        results = [
            await self._run(self._step_batch, frame, state.take(part), len(part), urgent=urgent) for part in parts
        ]
        return await asyncio.to_thread(_whole, results)

    def idle(self, objects: int) -> bool:
        """Nothing runs and nothing waits; and a frame with so many objects would run as one."""
        running = self._worker is not None and not self._worker.done()
        return not running and not self._pending and objects <= self._max_objects

    async def alone(self, work: Callable[[Callable[[ImageU8, State], StepResult]], _Reply]) -> _Reply:
        """Run `work` in the runtime's thread, where it steps by the function that it is given."""

        def run(_: Sequence[_Item[_Reply]]) -> list[_Reply]:  # its own: nothing joins it
            return [work(self._step_now)]

        return await self._run(run, np.empty((0, 0, 3), np.uint8), None, 0)

    async def close(self) -> None:
        """Lets the running batch end and answer; what waits gets Unavailable."""
        self._closed = True
        while self._pending:
            item = self._pending.popleft()
            if not item.reply.done():
                item.reply.set_exception(_closing())
        if self._worker is not None:
            await asyncio.wait({self._worker})
        self._thread.shutdown()

    def _parts(self, objects: int) -> list[range]:
        """The rows of `objects`, none with more than a batch may have."""
        return [range(at, min(at + self._max_objects, objects)) for at in range(0, objects, self._max_objects)]

    async def _run(
        self,
        run: Callable[[Sequence[_Item[_Reply]]], list[_Reply]],
        frame: ImageU8,
        brought: object,
        objects: int,
        *,
        urgent: float | None = None,
    ) -> _Reply:
        """Its turn in the queue."""
        if self._closed:
            raise _closing()
        reply: asyncio.Future[_Reply] = asyncio.get_running_loop().create_future()
        self._pending.append(_Item(run, frame, brought, objects, reply, urgent))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await reply

    async def _work(self) -> None:
        while batch := self._next_batch():
            await self._answer(batch)
            if any(item.urgent is not None for item in batch):
                # What follows on an urgent frame is urgent as a rule, and comes before others only once it is here.
                for _ in range(_TURNS_TO_FOLLOW):
                    await asyncio.sleep(0)

    def _next_batch(self) -> list[_Item[Any]]:
        """The oldest item and, in order of arrival, those that can run with it; urgent ones count as older. Empty when
        nothing waits."""
        self._pending = deque(sorted(self._pending, key=lambda item: item.rank))
        batch: list[_Item[Any]] = []
        others: deque[_Item[Any]] = deque()
        objects = 0
        while self._pending:
            item = self._pending.popleft()
            if item.reply.done():
                continue
            full = len(batch) == self._max_frames or objects + item.objects > self._max_objects
            if batch and (full or not batch[0].joins(item)):
                others.append(item)
                continue
            batch.append(item)
            objects += item.objects
        self._pending = others
        return batch

    async def _answer(self, batch: list[_Item[_Reply]]) -> None:
        loop = asyncio.get_running_loop()
        try:
            replies = await loop.run_in_executor(self._thread, batch[0].run, batch)
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    if not item.reply.done():
                        await self._answer([item])
            elif not batch[0].reply.done():
                batch[0].reply.set_exception(error)
            return
        for item, reply in zip(batch, replies, strict=True):
            if not item.reply.done():
                item.reply.set_result(reply)

    def _step_now(self, frame: ImageU8, state: State) -> StepResult:
        """In the runtime's thread."""
        return self._runtime.step([frame], [state])[0]

    def _initialise_batch(self, batch: Sequence[_Item[State]]) -> list[State]:
        return self._runtime.initialise([item.frame for item in batch], [item.brought for item in batch])

    def _step_batch(self, batch: Sequence[_Item[StepResult]]) -> list[StepResult]:
        began = time.perf_counter()
        results = self._runtime.step([item.frame for item in batch], [item.brought for item in batch])
        return [
            replace(result, queue_ms=(began - item.queued_at) * 1e3)
            for item, result in zip(batch, results, strict=True)
        ]


def _whole(parts: Sequence[StepResult]) -> StepResult:
    """About 1 ms for 2 MB: in a thread, where nobody waits for it."""
    first = parts[0]
    return StepResult(
        np.concatenate([part.probability for part in parts]),
        first.state.join([part.state for part in parts[1:]]),
        sum(part.compute_ms for part in parts),
        first.queue_ms,
    )


def _closing() -> Unavailable:
    return Unavailable("the server is shutting down; try again in a moment")
