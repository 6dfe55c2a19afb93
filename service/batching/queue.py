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
from itertools import pairwise
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.errors import Unavailable
from service.core.ports import Runtime, StepResult
from service.core.types import ImageU8, State

_Reply = TypeVar("_Reply")
# Of the event loop, from a result to the next frame of its session in the queue.
_TURNS_TO_FOLLOW = 4


@dataclass(eq=False)
class _Item(Generic[_Reply]):
    """One frame [h,w,3] and what its N objects bring along: their masks (named `mask`) or their state."""

    run: Callable[[Sequence[_Item[_Reply]]], list[_Reply]]
    frame: ImageU8
    tensors: State
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
        self._changing = [state.name for state in runtime.info.states if not state.constant]
        self._pending: deque[_Item[Any]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="s2spp-runtime")
        self._closed = False

    async def initialise(self, frame: ImageU8, masks: NDArray[np.uint8]) -> State:
        """State of the N objects of `masks` [N,h,w] (0/1) on `frame` [h,w,3]."""
        parts = self._parts({"mask": masks}, len(masks))
        # One after the other: what others have waiting comes in between.
        states = [await self._run(self._initialise_batch, frame, *part) for part in parts]
        return states[0] if len(states) == 1 else await asyncio.to_thread(_join, states)

    async def step(self, frame: ImageU8, state: State, *, urgent: float | None = None) -> StepResult:
        """One step of the N objects of `state` on `frame` [h,w,3]; the result holds these N only. `urgent`: before
        those that wait and are not, and those with a higher number."""
        parts = self._parts(state, len(next(iter(state.values()))))
        results = [await self._run(self._step_batch, frame, *part, urgent=urgent) for part in parts]
        return results[0] if len(results) == 1 else await asyncio.to_thread(self._whole, state, results)

    def idle(self, objects: int) -> bool:
        """Nothing runs and nothing waits; and a frame with so many objects would run as one."""
        running = self._worker is not None and not self._worker.done()
        return not running and not self._pending and objects <= self._max_objects

    async def alone(self, work: Callable[[Callable[[ImageU8, State], StepResult]], _Reply]) -> _Reply:
        """Run `work` in the runtime's thread, where it steps by the function that it is given."""

        def run(_: Sequence[_Item[_Reply]]) -> list[_Reply]:  # its own: nothing joins it
            return [work(self._step_now)]

        return await self._run(run, np.empty((0, 0, 3), np.uint8), {}, 0)

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

    def _whole(self, state: State, results: Sequence[StepResult]) -> StepResult:
        """About 1 ms for 2 MB: in a thread, where nobody waits for it."""
        changed = _join([{name: result.state[name] for name in self._changing} for result in results])
        return StepResult(
            np.concatenate([result.probability for result in results]),
            {**state, **changed},
            sum(result.compute_ms for result in results),
            results[0].queue_ms,
        )

    def _parts(self, tensors: State, objects: int) -> list[tuple[State, int]]:
        """Of [N,...] tensors, none with more objects than a batch may have, and how many each has."""
        if objects <= self._max_objects:
            return [(tensors, objects)]
        bounds = [*range(0, objects, self._max_objects), objects]
        return [
            ({name: tensor[start:end] for name, tensor in tensors.items()}, end - start)
            for start, end in pairwise(bounds)
        ]

    async def _run(
        self,
        run: Callable[[Sequence[_Item[_Reply]]], list[_Reply]],
        frame: ImageU8,
        tensors: State,
        objects: int,
        *,
        urgent: float | None = None,
    ) -> _Reply:
        """Its turn in the queue."""
        if self._closed:
            raise _closing()
        reply: asyncio.Future[_Reply] = asyncio.get_running_loop().create_future()
        self._pending.append(_Item(run, frame, tensors, objects, reply, urgent))
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
        objects = len(next(iter(state.values())))
        return self._runtime.step(frame[None], np.zeros(objects, np.int64), state)

    def _initialise_batch(self, batch: Sequence[_Item[State]]) -> list[State]:
        frames, frame_row = _stack_frames(batch)
        masks = _join([item.tensors for item in batch])["mask"]
        state = self._runtime.initialise(frames, np.asarray(masks, np.uint8), frame_row)
        return _split(state, batch)

    def _step_batch(self, batch: Sequence[_Item[StepResult]]) -> list[StepResult]:
        began = time.perf_counter()
        frames, frame_row = _stack_frames(batch)
        result = self._runtime.step(frames, frame_row, _join([item.tensors for item in batch]))
        # Constant states stay each session's own arrays: nothing to copy, and one array for ever.
        changed = _split({name: result.state[name] for name in self._changing}, batch)
        probabilities = _split({"probability": result.probability}, batch)
        return [
            replace(
                result,
                probability=np.asarray(probability["probability"], np.float32),
                state={**item.tensors, **state},
                queue_ms=(began - item.queued_at) * 1e3,
            )
            for item, state, probability in zip(batch, changed, probabilities, strict=True)
        ]


def _stack_frames(batch: Sequence[_Item[_Reply]]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Frames [F,h,w,3] and, for each object, the row of its frame. A single frame is not copied."""
    frames = batch[0].frame[None] if len(batch) == 1 else np.stack([item.frame for item in batch])
    return frames, np.repeat(np.arange(len(batch), dtype=np.int64), [item.objects for item in batch])


def _join(parts: Sequence[State]) -> State:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _split(tensors: State, batch: Sequence[_Item[_Reply]]) -> list[State]:
    """Each item's rows of [N,...]. Copies: a view would keep the whole batch alive with each session."""
    if len(batch) == 1:
        return [tensors]
    ends = np.cumsum([item.objects for item in batch])
    return [
        {name: tensor[end - item.objects : end].copy() for name, tensor in tensors.items()}
        for item, end in zip(batch, ends, strict=True)
    ]


def _closing() -> Unavailable:
    return Unavailable("the server is shutting down; try again in a moment")
