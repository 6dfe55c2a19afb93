"""A worker's engine: what is answered leaves only while others take the worker for alive.

One that was stopped, or cut off from the store, for longer than its lease may have been replaced meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from service.core.errors import OwnershipLost
from service.core.ports import Delivered, Engine, Opened, Resumed
from service.core.types import (
    Durability,
    EncodedImage,
    ModelInfo,
    ObjectChange,
    SessionId,
    SessionInfo,
    SessionOptions,
)


class LeasedEngine:
    """The Engine port over another engine. `held`: the lease is the worker's still."""

    def __init__(self, engine: Engine, held: Callable[[], bool]) -> None:
        self._engine = engine
        self._held = held

    async def open(
        self,
        frame: EncodedImage,
        mask: EncodedImage,
        options: SessionOptions,
        *,
        client: str = "",
        idempotency_key: str | None = None,
        stream: str | None = None,
    ) -> Opened:
        opened = await self._engine.open(
            frame, mask, options, client=client, idempotency_key=idempotency_key, stream=stream
        )
        self._check()
        return opened

    def refuse_if_full(self, client: str = "") -> None:
        self._engine.refuse_if_full(client)

    async def segment(
        self,
        session: SessionId,
        frame_index: int,
        frame: EncodedImage,
        *,
        durability: Durability,
        received_through: int | None = None,
        told_committed: int = 0,
        stream: str | None = None,
        again: bool = False,
    ) -> Delivered:
        delivered = await self._engine.segment(
            session,
            frame_index,
            frame,
            durability=durability,
            received_through=received_through,
            told_committed=told_committed,
            stream=stream,
            again=again,
        )
        self._check()
        return delivered

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        resumed = await self._engine.resume(session, received_through, stream, told_committed)
        self._check()
        return resumed

    async def leave(self, session: SessionId, stream: str) -> None:
        await self._engine.leave(session, stream)

    async def release(self, session: SessionId) -> SessionInfo:
        return await self._engine.release(session)

    async def change(
        self,
        session: SessionId,
        frame_index: int | None,
        change: ObjectChange,
        *,
        durability: Durability,
        ordinal: int | None = None,
        stream: str | None = None,
    ) -> SessionInfo:
        info = await self._engine.change(
            session, frame_index, change, durability=durability, ordinal=ordinal, stream=stream
        )
        self._check()
        return info

    async def describe(self, session: SessionId) -> SessionInfo:
        info = await self._engine.describe(session)
        self._check()
        return info

    async def delete(self, session: SessionId) -> None:
        await self._engine.delete(session)

    async def ready(self) -> None:
        await self._engine.ready()

    def models(self) -> Sequence[ModelInfo]:
        return self._engine.models()

    def _check(self) -> None:
        if not self._held():
            raise OwnershipLost("this worker was silent for too long; its sessions may be another one's", by="worker")
