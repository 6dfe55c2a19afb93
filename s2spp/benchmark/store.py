"""What keeping a session costs: commits and a resume on an embedded Redis as it is shipped, flushed to disk each time.

The engine decides what is stored and when, as it does in a server; nothing else runs beside the save that is timed.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from redis.asyncio import Redis
from rich.progress import Progress

from s2spp.benchmark.machine import filesystem_of
from s2spp.benchmark.material import Material
from s2spp.benchmark.result import StoreRow, StoreSection
from service.bootstrap import build_engine
from service.core.ports import Engine, Runtime
from service.core.types import Durability, EncodedImage, SessionId, SessionOptions, Snapshot
from service.settings import Settings
from service.store.calls import connect
from service.store.embedded import EmbeddedRedis
from service.store.redis_store import RedisSessionStore

OPENING, COMMIT, RESUME = "opening commit", "commit", "resume"
_COMMITS = 4
_FEWEST_SESSIONS = 4
# More than any engine leaves between two commits of a stream.
_LONGEST_WAIT = 64


@dataclass(frozen=True)
class Exchange:
    """One conversation with Redis: how long, and the bytes of it that count."""

    ms: float
    size: int


class Traffic:
    """Bytes that a Redis has received and sent since the reading before, without those of the reading itself."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._own = self._last = (0, 0)

    async def start(self) -> None:
        await self._totals()
        first, second = await self._totals(), await self._totals()
        self._own, self._last = (second[0] - first[0], second[1] - first[1]), second

    async def since(self) -> tuple[int, int]:
        """Received, sent. Another's question in between (the embedded Redis is asked for its log's size each 0.1 s)
        adds a few hundred bytes to one of many."""
        now = await self._totals()
        received, sent = (new - old - own for new, old, own in zip(now, self._last, self._own, strict=True))
        self._last = now
        return received, sent

    async def _totals(self) -> tuple[int, int]:
        stats = await self._redis.info("stats")
        return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])


class WatchedStore(RedisSessionStore):
    """Keeps time and size of what it saves. One session at a time."""

    def __init__(self, redis: Redis, traffic: Traffic) -> None:
        super().__init__(redis)
        self._traffic = traffic
        self._free = asyncio.Event()
        self._free.set()
        self.saves: list[tuple[bool, Exchange]] = []
        """Whether constant states were among it, and what it took."""

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        self._free.clear()
        try:
            await self._traffic.since()
            began = time.perf_counter()
            epoch = await super().save(snapshot, ttl_s, constant=constant, existing=existing)
            ms = 1e3 * (time.perf_counter() - began)
            received, _ = await self._traffic.since()
            self.saves.append((constant, Exchange(ms, received)))
            return epoch
        finally:
            self._free.set()

    async def quiet(self) -> int:
        """How many saves there were, once none is under way."""
        await self._free.wait()
        return len(self.saves)


async def measure_store(
    settings: Settings, runtime: Runtime, objects: Sequence[int], material: Material, seconds: float, progress: Progress
) -> StoreSection:
    """Sessions of so many objects, one after the other, for `seconds` each number: each is opened, committed a few
    times, let go and resumed."""
    rows: list[StoreRow] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s2spp-bench-")))
        url = (await stack.enter_async_context(EmbeddedRedis(folder))).url
        redis, asking = connect(url), connect(url)
        assert isinstance(redis, Redis) and isinstance(asking, Redis), "the embedded one is no cluster"
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(asking.aclose)
        traffic = Traffic(asking)
        await traffic.start()
        store = WatchedStore(redis, traffic)
        engine = await stack.enter_async_context(build_engine(settings, runtime=runtime, store=store))
        await _one_session(engine, store, traffic, 1, material)  # Redis learns the scripts, which it is sent once
        for count in objects:
            task = progress.add_task(f"store, objects: {count}", total=round(seconds))
            kinds: dict[str, list[Exchange]] = {OPENING: [], COMMIT: [], RESUME: []}
            began = time.perf_counter()
            while len(kinds[RESUME]) < _FEWEST_SESSIONS or time.perf_counter() < began + seconds:
                store.saves.clear()
                kinds[RESUME].append(await _one_session(engine, store, traffic, count, material))
                kinds[OPENING] += [each for constant, each in store.saves if constant]
                kinds[COMMIT] += [each for constant, each in store.saves if not constant]
                progress.update(task, completed=min(round(seconds), int(time.perf_counter() - began)))
            rows += [_row(what, count, seen) for what, seen in kinds.items()]
        return StoreSection(filesystem_of(folder), settings.commit_every, rows)


async def _one_session(
    engine: Engine, store: WatchedStore, traffic: Traffic, objects: int, material: Material
) -> Exchange:
    """Returns the resume; the saves are the store's to tell."""
    mask = EncodedImage(material.mask_png(objects))
    opened = await engine.open(EncodedImage(material.jpegs[0]), mask, SessionOptions())
    session, index, saved = opened.info.session, 0, await store.quiet()
    for _ in range(_COMMITS):
        index, saved = await _until_committed(engine, store, session, index, saved, material)
    await engine.release(session)
    await store.quiet()
    await traffic.since()
    began = time.perf_counter()
    resumed = await engine.resume(session, index)
    ms = 1e3 * (time.perf_counter() - began)
    _, sent = await traffic.since()
    assert resumed.info.next_frame == index + 1, "the store has another session than was stored"
    await engine.delete(session)
    return Exchange(ms, sent)


async def _until_committed(
    engine: Engine, store: WatchedStore, session: SessionId, index: int, saved: int, material: Material
) -> tuple[int, int]:
    """Sends frames, every answer taken when the next is sent, until the engine commits by itself. Returns the last
    frame and the number of saves."""
    for _ in range(_LONGEST_WAIT):
        index += 1
        await engine.segment(
            session,
            index,
            EncodedImage(material.jpeg(index)),
            durability=Durability.RELAXED,
            received_through=index - 1,
        )
        if (now := await store.quiet()) > saved:
            return index, now
    raise RuntimeError(f"the engine stored nothing in {_LONGEST_WAIT} frames")


def _row(what: str, objects: int, seen: Sequence[Exchange]) -> StoreRow:
    ms = np.percentile([each.ms for each in seen], [50, 95])
    sizes = np.percentile([each.size for each in seen], [50, 95])
    return StoreRow(what, objects, len(seen), *map(float, ms), *map(float, sizes))
