"""The step queue over one runtime. Knows arrays and the Runtime port; nothing of sessions.

Work waits until one of the runtime's lanes is free. What is only encoded ahead lets others go first for a while;
otherwise what came first goes first. There is no waiting for a batch to fill: what can run with the item whose turn it
is (same kind, same grid) goes with it, where the runtime gains from that. Each item owns its reply, so a caller that
departs takes only its own item along; what breaks a batch is found by running its items one by one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.batching.cores import Cores
from service.core.errors import Unavailable
from service.core.ports import Features, Runtime, Seen, StepResult
from service.core.state import State
from service.core.types import ImageU8

_Reply = TypeVar("_Reply")
# Of the event loop, from a result to the next frame of its session in the queue.
_TURNS_TO_FOLLOW = 4
# Seconds that what is encoded ahead stands back.
_PATIENCE_S = 0.05
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
    shared: bool = False  # the other objects of its frame run beside it
    queued_at: float = field(default_factory=time.perf_counter)

    def joins(self, other: _Item[_Reply]) -> bool:
        """What is urgent is not held up by others in its batch."""
        same = self.run == other.run and self.frame.shape == other.frame.shape
        return same and (other.urgent is not None or self.urgent is None)

    @property
    def rank(self) -> tuple[bool, float, float]:
        stands_back = _PATIENCE_S if self.kind == _ENCODE else 0.0
        return self.urgent is None, self.urgent or 0.0, self.queued_at + stands_back


class BatchingQueue:
    """The StepQueue port, for one event loop. Runs are in threads of the queue's own, `Runtime.lanes` of them at a
    time, with at most `max_objects` objects: a frame with more takes several. So a run's memory is bounded, and others
    need not wait for all of them. `max_frames` in a batch: as many as a run gains from, for all of them wait for the
    last."""

    def __init__(self, runtime: Runtime, max_objects: int, max_frames: int) -> None:
        self._runtime = runtime
        self._max_objects = max_objects
        self._max_frames = max_frames
        self._cores = Cores(runtime.lanes, max_objects)
        self._pending: list[_Item[Any]] = []
        self._running: set[asyncio.Task[None]] = set()
        self._kinds: list[int] = []  # of what runs
        self._wide = False  # what runs has all lanes
        self._threads = ThreadPoolExecutor(runtime.lanes, thread_name_prefix="s2spp-runtime")
        self._starting = False
        self._closed = False

    @property
    def ahead(self) -> int:
        # The one whose turn is next, and one for each lane that would have nothing else to do. The parts of a frame
        # count as one: they begin together, and the first to end has only what is ahead to go on with.
        waiting = len({id(item.frame) for item in self._pending})
        return 1 if self._runtime.lanes == 1 else 1 + max(0, self._runtime.lanes - waiting)

    async def initialise(self, frame: ImageU8, masks: NDArray[np.uint8]) -> State:
        """State of the N objects of `masks` [N,h,w] (0/1) on `frame` [h,w,3]."""
        self._came()
        # One after the other: what others have waiting comes in between.
        rows = [masks[at : at + self._max_objects] for at in range(0, len(masks), self._max_objects)]
        states = [await self._put(_INITIALISE, self._initialise_batch, frame, own, len(own)) for own in rows]
        return states[0] if len(states) == 1 else await asyncio.to_thread(states[0].join, states[1:])

    async def encode(self, frame: ImageU8, *, urgent: float | None = None) -> Seen:
        """What a step can do before its turn."""
        if self._runtime.lanes == 1:
            return frame
        self._came()
        return await self._put(_ENCODE, self._encode_batch, frame, None, 0, urgent=urgent)

    async def step(self, frame: Seen, state: State, *, urgent: float | None = None) -> StepResult:
        """One step of the objects of `state` on `frame` [h,w,3]; the result holds these only. `urgent`: before
        those that wait and are not, and those with a higher number."""
        self._came()
        waves = self._cores.waves(state.objects, len(self._pending), urgent=urgent is not None)
        if len(waves) == len(waves[0]) == 1:
            return await self._put(_STEP, self._step_batch, frame, state, state.objects, urgent=urgent)
        ahead_ms = 0.0
        if isinstance(frame, np.ndarray) and self._runtime.lanes > 1:
            # Once, and not in each run.
            frame = features = await self._put(_STEP, self._encode_batch, frame, None, 0, urgent=urgent)
            ahead_ms = features.made.seconds * 1e3 if isinstance(features, Features) else 0.0
        results = []
        for wave in waves:
            runs = [
                self._put(
                    _STEP, self._step_batch, frame, state.take(rows), len(rows), urgent=urgent, shared=len(wave) > 1
                )
                for rows in wave
            ]
            results.append(await asyncio.gather(*runs))
        return await asyncio.to_thread(_whole, state, results, ahead_ms)

    def idle(self, objects: int) -> bool:
        """Nothing runs and nothing waits; and a frame with so many objects would run as one."""
        return not self._running and not self._pending and objects <= self._max_objects

    async def alone(
        self, size: tuple[int, int], objects: int, work: Callable[[Callable[[ImageU8, State], StepResult]], _Reply]
    ) -> _Reply:
        """Run `work` in the runtime's thread, where it steps by the function that it is given."""
        self._came()

        def run(_: Sequence[_Item[_Reply]], wide: bool) -> list[_Reply]:  # its own: nothing joins it
            return [work(lambda frame, state: self._runtime.step([frame], [state], wide=wide)[0])]

        return await self._put(_STEP, run, np.empty((*size, 0), np.uint8), None, objects)

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

    def _came(self) -> None:
        self._cores.came(busy=bool(self._running or self._pending))

    def _put(
        self,
        kind: int,
        run: Callable[[Sequence[_Item[_Reply]], bool], list[_Reply]],
        frame: Seen,
        brought: object,
        objects: int,
        *,
        urgent: float | None = None,
        shared: bool = False,
    ) -> asyncio.Future[_Reply]:
        """Into the queue."""
        if self._closed:
            raise _closing()
        loop = asyncio.get_running_loop()
        reply: asyncio.Future[_Reply] = loop.create_future()
        self._pending.append(_Item(kind, run, frame, brought, objects, reply, urgent, shared))
        if not self._starting:
            self._starting = True  # a moment later: what comes together is seen together
            loop.call_soon(self._start)
        return reply

    def _start(self) -> None:
        """Give free lanes their work."""
        self._starting = False
        while not self._wide and len(self._running) < self._runtime.lanes and (batch := self._next_batch()):
            first = batch[0]
            may = not self._running and not first.shared and self._cores.may_be_wide(1 + len(self._pending))
            kind = (first.kind, first.frame.shape, sum(item.objects for item in batch))
            self._wide = may and self._cores.wide(kind)
            self._kinds.append(first.kind)
            task = asyncio.create_task(self._work(batch, self._wide, kind if may else None))
            self._running.add(task)

    async def _work(self, batch: list[_Item[Any]], wide: bool, judged: Hashable | None) -> None:
        """`judged`: its kind, where it could have gone either way."""
        try:
            ms = await self._answer(batch, wide)
            if judged is not None and ms is not None:
                self._cores.ran(judged, wide=wide, ms=ms)
            if any(item.urgent is not None for item in batch):
                # What follows on an urgent frame is urgent as a rule, and comes before others only once it is here.
                for _ in range(_TURNS_TO_FOLLOW):
                    await asyncio.sleep(0)
        finally:
            self._wide = False
            self._kinds.remove(batch[0].kind)
            self._running.discard(asyncio.current_task())
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

    async def _answer(self, batch: list[_Item[_Reply]], wide: bool) -> float | None:
        """How long it took, milliseconds; None where it failed."""
        loop = asyncio.get_running_loop()
        try:
            replies, ms = await loop.run_in_executor(self._threads, _timed, batch, wide)
        except Exception as error:
            if len(batch) > 1:
                for item in batch:
                    if not item.reply.done():
                        await self._answer([item], wide)
            elif not batch[0].reply.done():
                batch[0].reply.set_exception(error)
            return None
        for item, reply in zip(batch, replies, strict=True):
            if not item.reply.done():
                item.reply.set_result(reply)
        return ms

    def _initialise_batch(self, batch: Sequence[_Item[State]], wide: bool) -> list[State]:
        return self._runtime.initialise([_pixels(item.frame) for item in batch], [item.brought for item in batch])

    def _encode_batch(self, batch: Sequence[_Item[Seen]], wide: bool) -> list[Seen]:
        return [self._runtime.encode(_pixels(item.frame), wide=wide) for item in batch]

    def _step_batch(self, batch: Sequence[_Item[StepResult]], wide: bool) -> list[StepResult]:
        began = time.perf_counter()
        results = self._runtime.step([item.frame for item in batch], [item.brought for item in batch], wide=wide)
        return [
            replace(result, queue_ms=(began - item.queued_at) * 1e3)
            for item, result in zip(batch, results, strict=True)
        ]


def _timed(batch: Sequence[_Item[_Reply]], wide: bool) -> tuple[list[_Reply], float]:
    """For a thread."""
    began = time.perf_counter()
    replies = batch[0].run(batch, wide)
    return replies, (time.perf_counter() - began) * 1e3


def _pixels(frame: Seen) -> ImageU8:
    assert not isinstance(frame, Features)
    return frame


def _whole(before: State, waves: Sequence[Sequence[StepResult]], ahead_ms: float) -> StepResult:
    """`waves` one after the other, each side by side, and what was done before them. About 1 ms for 2 MB: in a thread,
    where nobody waits for it."""
    first, *others = [part for wave in waves for part in wave]
    return StepResult(
        np.concatenate([first.probability, *(part.probability for part in others)]),
        State(first.state.changing.join([part.state.changing for part in others]), before.constant),
        ahead_ms + sum(max(part.compute_ms for part in wave) for wave in waves),
        first.queue_ms,
    )


def _closing() -> Unavailable:
    return Unavailable("the server is shutting down; try again in a moment")
