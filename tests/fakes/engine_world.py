"""An engine with everything around it, and a store that outlives it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from service.batching import BatchingQueue
from service.core.errors import Unavailable
from service.core.ports import CommitResult, Delivered, FrameTimes, Opened, Runtime
from service.core.types import (
    Answer,
    Durability,
    EncodedImage,
    ImageFormat,
    LabelMap,
    MaskFormat,
    ModelInfo,
    SessionId,
    SessionOptions,
    Snapshot,
)
from service.engine import EngineLimits, LocalEngine
from tests.fakes.clock import FakeClock
from tests.fakes.runtime import INFO, FakeRuntime
from tests.fakes.store import InMemorySessionStore

RAW = SessionOptions(MaskFormat.RAW)
STRICT, RELAXED = Durability.STRICT, Durability.RELAXED


def raw_frame(seed: int, height: int = 36, width: int = 64) -> EncodedImage:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return EncodedImage(pixels.tobytes(), ImageFormat.RAW_RGB8, height, width)


def raw_mask(labels: LabelMap) -> EncodedImage:
    return EncodedImage(labels.tobytes(), ImageFormat.RAW_RGB8, *labels.shape)


def first_labels(height: int = 36, width: int = 64, objects: int = 2) -> LabelMap:
    """`objects` bands with ids 1, 3, 5, ... between strips of background."""
    labels: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
    for number in range(objects):
        left, right = (width * (2 * number + 1 + side) // (2 * objects + 1) for side in (0, 1))
        labels[height // 4 :, left:right] = 2 * number + 1
    return labels


class Wire:
    """One engine's way to the store. `cut`: its process died, and nothing of it gets through any more. `open`
    cleared holds saves and loads, `deletes` deletions. `failing` makes saves and deletions fail, `failures`
    that many saves, `lost_notes` those notes, by their number."""

    def __init__(self, store: InMemorySessionStore) -> None:
        self._store = store
        self.cut = False
        self.failing = False
        self.failures = 0
        self.lost_notes: set[int] = set()
        self.open, self.deletes = asyncio.Event(), asyncio.Event()
        self.open.set()
        self.deletes.set()
        self.saves: list[tuple[int, bool]] = []
        self.calls: Counter[str] = Counter()
        self.under_way: Counter[SessionId] = Counter()

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        self._count("save")
        self.under_way[snapshot.session] += 1
        assert self.under_way[snapshot.session] == 1, "one save of a session at a time"
        try:
            await self.open.wait()
            self.failures -= 1
            if self.cut or self.failing or self.failures >= 0:
                raise Unavailable("the store is away")
            epoch = await self._store.save(snapshot, ttl_s, constant=constant, existing=existing)
        finally:
            self.under_way[snapshot.session] -= 1
        self.saves.append((snapshot.next_frame, constant))
        return epoch

    async def load(self, session: SessionId) -> Snapshot:
        self._count("load")
        await self.open.wait()
        return await self._store.load(session)

    async def held(self, session: SessionId) -> bool:
        self._count("held")
        return await self._store.held(session)

    async def touch(self, session: SessionId, ttl_s: float) -> None:
        self._count("touch")
        await self._store.touch(session, ttl_s)

    async def delete(self, session: SessionId) -> None:
        self._count("delete")
        await self.deletes.wait()
        if self.failing:
            raise Unavailable("the store is away")
        await self._store.delete(session)

    async def note(self, name: str, value: bytes, ttl_s: float, *, new: bool = False) -> bytes:
        self._count("note")
        if self.calls["note"] in self.lost_notes:
            raise Unavailable("the store is away")
        return await self._store.note(name, value, ttl_s, new=new)

    async def recall(self, name: str) -> bytes | None:
        self._count("recall")
        return await self._store.recall(name)

    async def ping(self) -> None:
        self._count("ping")

    def _count(self, call: str) -> None:
        if self.cut:
            raise Unavailable("this process died")
        self.calls[call] += 1


class Watcher:
    """The EngineObserver port, counting."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()
        self.in_memory = 0
        self.times: list[FrameTimes] = []
        self.ages: list[float | None] = []

    def session_opened(self) -> None:
        self.events["opened"] += 1

    def session_restored(self) -> None:
        self.events["restored"] += 1

    def session_resumed(self) -> None:
        self.events["resumed"] += 1

    def session_parked(self) -> None:
        self.events["parked"] += 1

    def session_expired(self) -> None:
        self.events["expired"] += 1

    def session_deleted(self) -> None:
        self.events["deleted"] += 1

    def sessions_in_memory(self, count: int) -> None:
        self.in_memory = count

    def frame_answered(self, times: FrameTimes) -> None:
        self.times.append(times)

    def frame_failed(self, reason: str) -> None:
        self.events[reason] += 1

    def frame_dropped(self) -> None:
        self.events["dropped"] += 1

    def commit_ended(self, seconds: float, result: CommitResult, age_s: float | None) -> None:
        self.events["stored" if result == "stored" else "not stored"] += 1
        self.ages.append(age_s)


class World:
    """`engine` may crash and start again; the clock and what the store has go on."""

    def __init__(
        self,
        limits: EngineLimits | None = None,
        info: ModelInfo = INFO,
        runtime: Callable[[], Runtime] | None = None,
    ) -> None:
        """`runtime`: makes one for each engine, in place of the fake."""
        self.limits = limits or EngineLimits()
        self._make_runtime = runtime
        self.clock = FakeClock()
        self.store = InMemorySessionStore(self.clock)
        self.watcher = Watcher()
        self._queues: list[BatchingQueue] = []
        self.start(info)

    def start(self, info: ModelInfo = INFO) -> None:
        self.runtime = FakeRuntime(info, lanes=2)
        runtime = self._make_runtime() if self._make_runtime else self.runtime
        queue = BatchingQueue(runtime, max_objects=16, max_frames=16)
        self._queues.append(queue)
        self.wire = Wire(self.store)
        self.engine = LocalEngine(queue, self.wire, runtime.info, self.limits, self.clock, self.watcher)

    def crash(self, info: ModelInfo = INFO) -> None:
        """As kill -9 does it: no goodbye, and nothing that was on its way arrives."""
        self.wire.cut = True
        self.wire.open.set()
        self.runtime.gate.set()
        self.start(info)

    async def end(self) -> None:
        self.runtime.gate.set()
        self.wire.open.set()
        self.wire.deletes.set()
        await self.engine.close()
        for queue in self._queues:
            await queue.close()

    async def open(
        self,
        seed: int = 0,
        height: int = 36,
        width: int = 64,
        objects: int = 2,
        options: SessionOptions = RAW,
    ) -> SessionId:
        return (await self.opened(seed, height, width, objects, options)).info.session

    async def opened(
        self,
        seed: int = 0,
        height: int = 36,
        width: int = 64,
        objects: int = 2,
        options: SessionOptions = RAW,
    ) -> Opened:
        mask = raw_mask(first_labels(height, width, objects))
        return await self.engine.open(raw_frame(seed, height, width), mask, options)

    async def post(
        self,
        session: SessionId,
        index: int,
        frame: EncodedImage | None = None,
        durability: Durability = STRICT,
        received_through: int | None = None,
    ) -> Delivered:
        """Frame `index` of the usual clip, unless another is given."""
        return await self.engine.segment(
            session,
            index,
            frame or raw_frame(abs(index)),
            durability=durability,
            received_through=received_through,
        )

    async def answers(
        self, frames: int, seed: int = 0, height: int = 36, width: int = 64, objects: int = 2
    ) -> list[Answer]:
        """A session of its own, frame after frame: frame n has seed `seed + n`."""
        session = await self.open(seed, height, width, objects)
        return [
            (await self.post(session, index, raw_frame(seed + index, height, width))).answer
            for index in range(1, frames + 1)
        ]


async def undisturbed(frames: int, seed: int = 0, height: int = 36, width: int = 64, objects: int = 2) -> list[Answer]:
    """What an engine answers that has nothing else to do."""
    world = World()
    answers = await world.answers(frames, seed, height, width, objects)
    await world.end()
    return answers
