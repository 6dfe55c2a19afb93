"""The embedded server, built to die at a chosen moment, or with a promise of the contract switched off.

    python -m tests.chaos.server --kill-at inside-commit --count 3 -- --data-dir ... (as `s2spp serve`)

It differs from the real one by what wraps the engine and the store; nothing of it is in the product.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import psutil

from s2spp import cli
from service.bootstrap import forms
from service.core.ports import Delivered, Engine, Opened, SessionStore
from service.core.types import SessionId, SessionInfo, Snapshot

KILL_POINTS = (
    "after-commit-before-answer",
    "after-answer-before-commit",
    "inside-commit",
    "during-open",
    "during-object-change",
)
PROMISES = ("outbox", "commit-before-answer", "acknowledgement")
_LATE_S = 1.5


class Plan:
    """What this process does wrong. `count`: which one of such moments it dies at, from 1."""

    def __init__(self, kill_at: str | None, count: int, without: str | None) -> None:
        self.kill_at, self.count, self.without = kill_at, count, without
        self._seen = 0

    @property
    def frame(self) -> int:
        """From which on answers, or commits, are held back where that is the plan."""
        return 20 * self.count

    def reached(self, point: str) -> bool:
        if point != self.kill_at:
            return False
        self._seen += 1
        return self._seen == self.count


def die() -> None:
    """kill -9: Redis first, so that nothing more reaches its disk, then this process."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os.kill(os.getpid(), signal.SIGKILL)


class ChaosStore:
    def __init__(self, store: SessionStore, plan: Plan) -> None:
        self._store, self._plan = store, plan
        self._late: set[asyncio.Task[None]] = set()
        self.blocked = asyncio.Event()
        self.blocked.set()

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        held = any(answer.frame_index >= self._plan.frame for answer in snapshot.outbox)
        if self._plan.without == "outbox":
            snapshot = replace(snapshot, outbox=())
        if self._plan.without == "acknowledgement":
            # As if all that was answered had been taken.
            snapshot = replace(snapshot, outbox=(), received_through=snapshot.next_frame - 1)
        await self.blocked.wait()
        save = self._store.save(snapshot, ttl_s, constant=constant, existing=existing)
        if not existing and self._plan.reached("during-open"):
            await save
            die()
        if existing and self._plan.reached("inside-commit"):
            # The command has left and waits at Redis, which gets to it, or does not, as both die.
            for child in psutil.Process().children(recursive=True):
                child.suspend()
            under_way = asyncio.create_task(save)
            await asyncio.sleep(0.1)
            assert not under_way.done(), "Redis stands still"
            for child in psutil.Process().children(recursive=True):
                child.resume()
            die()
        if existing and self._plan.without == "commit-before-answer":
            # Told as stored, and stored later.
            task = asyncio.create_task(self._later(save))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return 1
        epoch = await save
        if held and self._plan.kill_at == "after-commit-before-answer":
            die()
        return epoch

    async def _later(self, save: Any) -> None:
        await asyncio.sleep(_LATE_S)
        await save

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class ChaosEngine:
    def __init__(self, engine: Engine, store: ChaosStore, plan: Plan) -> None:
        self._engine, self._store, self._plan = engine, store, plan

    async def open(self, *args: Any, **options: Any) -> Opened:
        return await self._engine.open(*args, **options)

    async def segment(self, session: SessionId, frame_index: int, *args: Any, **options: Any) -> Delivered:
        received = options.get("received_through") or 0
        if self._plan.kill_at == "after-commit-before-answer" and frame_index >= self._plan.frame:
            # This answer and those behind it are held; the commit that covers them is what kills.
            await self._engine.segment(session, frame_index, *args, **options)
            await asyncio.Event().wait()
        if self._plan.kill_at == "after-answer-before-commit":
            if frame_index >= self._plan.frame:
                self._store.blocked.clear()
            if received >= self._plan.frame:
                die()  # answered and taken, and no commit since well before
        return await self._engine.segment(session, frame_index, *args, **options)

    async def change(self, *args: Any, **options: Any) -> SessionInfo:
        changing = asyncio.ensure_future(self._engine.change(*args, **options))
        if self._plan.reached("during-object-change"):
            await asyncio.sleep(0.005)
            die()
        return await changing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


def main() -> None:
    ours, serve = sys.argv[1:], []
    if "--" in ours:
        place = ours.index("--")
        ours, serve = ours[:place], ours[place + 1 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill-at", choices=KILL_POINTS)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--without", choices=PROMISES)
    chosen = parser.parse_args(ours)
    plan = Plan(chosen.kill_at, chosen.count, chosen.without)
    real_engine = forms.build_engine

    @asynccontextmanager
    async def build_engine(settings: Any, *, store: Any, **options: Any) -> AsyncIterator[Engine]:
        faulty = ChaosStore(store, plan)
        async with real_engine(settings, store=faulty, **options) as engine:
            yield ChaosEngine(engine, faulty, plan)  # type: ignore[misc]

    forms.build_engine = build_engine  # type: ignore[assignment]
    sys.argv = ["s2spp", *serve]
    cli.main()


if __name__ == "__main__":
    main()
