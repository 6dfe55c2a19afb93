"""Ports that tell how they are used: the rooms behind them know nothing of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.core.errors import Unavailable
from service.core.ports import Runtime, Seen, SessionStore, StepResult
from service.core.state import State
from service.core.types import ImageU8, ModelInfo, SessionId, Snapshot
from service.telemetry.metrics import Telemetry

_Result = TypeVar("_Result")


class MeasuredRuntime:
    """A Runtime that tells how large its batches are."""

    def __init__(self, runtime: Runtime, telemetry: Telemetry) -> None:
        self._runtime, self._telemetry = runtime, telemetry

    @property
    def info(self) -> ModelInfo:
        return self._runtime.info

    def initialise(self, frames: Sequence[ImageU8], masks: Sequence[NDArray[np.uint8]]) -> list[State]:
        return self._runtime.initialise(frames, masks)

    @property
    def lanes(self) -> int:
        return self._runtime.lanes

    def encode(self, frame: ImageU8, *, wide: bool = True) -> Seen:
        return self._runtime.encode(frame, wide=wide)

    def step(self, frames: Sequence[Seen], states: Sequence[State], *, wide: bool = True) -> list[StepResult]:
        self._telemetry.batch_ran(len(frames), sum(state.objects for state in states))
        return self._runtime.step(frames, states, wide=wide)


class MeasuredStore:
    """A SessionStore that tells how long it takes, and when it cannot be reached."""

    def __init__(self, store: SessionStore, telemetry: Telemetry) -> None:
        self._store, self._telemetry = store, telemetry

    async def save(self, snapshot: Snapshot, ttl_s: float, *, constant: bool, existing: bool = False) -> int:
        return await self._timed("save", self._store.save(snapshot, ttl_s, constant=constant, existing=existing))

    async def load(self, session: SessionId) -> Snapshot:
        return await self._timed("load", self._store.load(session))

    async def held(self, session: SessionId) -> bool:
        return await self._timed("held", self._store.held(session))

    async def touch(self, session: SessionId, ttl_s: float) -> None:
        await self._timed("touch", self._store.touch(session, ttl_s))

    async def delete(self, session: SessionId) -> None:
        await self._timed("delete", self._store.delete(session))

    async def note(self, name: str, value: bytes, ttl_s: float, *, new: bool = False) -> bytes:
        return await self._timed("note", self._store.note(name, value, ttl_s, new=new))

    async def recall(self, name: str) -> bytes | None:
        return await self._timed("recall", self._store.recall(name))

    async def ping(self) -> None:
        await self._timed("ping", self._store.ping())

    async def _timed(self, operation: str, request: Awaitable[_Result]) -> _Result:
        began, result = time.perf_counter(), "ok"
        try:
            return await request
        except Unavailable:
            result = "unavailable"
            raise
        finally:
            self._telemetry.store_answered(operation, result, time.perf_counter() - began)
