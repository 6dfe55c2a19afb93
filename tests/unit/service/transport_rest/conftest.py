"""A real uvicorn server on a free port over a scripted engine, and HTTP clients for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import pytest

from service.core.errors import FrameAcknowledged, FrameGap, InvalidImage
from service.core.ports import Delivered, Opened, Resumed
from service.core.types import (
    Answer,
    Durability,
    EncodedImage,
    Failure,
    MaskFormat,
    ModelInfo,
    ObjectChange,
    ObjectReport,
    SessionId,
    SessionInfo,
    SessionOptions,
    StateSpec,
)
from service.transport.http import start_http
from service.transport.rest import create_app
from tests.fakes.engine import Call

SESSION = SessionId("A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6")
LIMIT = 100_000


class ScriptedEngine:
    """Keeps the frame order of one session; b"bad" is not an image. The next call raises `failure`.
    `gates[i]`: frame i is answered only once its event is set."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.opened: list[tuple[EncodedImage, EncodedImage, SessionOptions]] = []
        self.clients: list[str] = []
        self.keys: list[str | None] = []
        self.calls: list[Call] = []
        self.deleted: list[SessionId] = []
        self.changes: list[tuple[SessionId, int | None, int | None, ObjectChange, Durability]] = []
        self.resumed: list[tuple[SessionId, int | None]] = []
        self.unread: tuple[Answer | Failure, ...] = ()
        self.left: list[str] = []
        self.told: list[int] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.mask_format = MaskFormat.PNG
        self.info = SessionInfo(SESSION, "fake", "d1", 4, 6, (1, 7), 1, 0, 60.0)

    def _fail(self) -> None:
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

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
        self._fail()
        self.opened.append((frame, mask, options))
        self.clients.append(client)
        self.keys.append(idempotency_key)
        return Opened(self.info, state_bytes=1234, replayed=self.keys.count(idempotency_key) > 1)

    def refuse_if_full(self, client: str = "") -> None:
        self._fail()

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
        self._fail()
        self.calls.append(Call(session, frame_index, frame, durability, received_through))
        self.told.append(told_committed)
        if frame_index < self.info.next_frame:
            raise FrameAcknowledged(f"frame {frame_index} was answered before", expected=self.info.next_frame)
        if frame_index > self.info.next_frame:
            raise FrameGap(f"expected frame {self.info.next_frame}, got {frame_index}", expected=self.info.next_frame)
        self.info = replace(self.info, next_frame=frame_index + 1)
        if frame_index in self.gates:
            await self.gates[frame_index].wait()
        if frame.data == b"bad":
            raise InvalidImage("not a JPEG, PNG or WebP file")
        objects = (ObjectReport(1, 3, (1, 2, 3, 1), 0.750000016, True), ObjectReport(7, 0, (0, 0, 0, 0), 0.0, False))
        answer = Answer(frame_index, b"mask %d" % frame_index, self.mask_format, 4, 6, objects, 12.5)
        return Delivered(answer, committed_frame=frame_index)

    async def resume(
        self,
        session: SessionId,
        received_through: int | None,
        stream: str | None = None,
        told_committed: int = 0,
    ) -> Resumed:
        self._fail()
        self.resumed.append((session, received_through))
        self.told.append(told_committed)
        return Resumed(self.info, self.unread)

    async def leave(self, session: SessionId, stream: str) -> None:
        self.left.append(stream)

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
        self._fail()
        self.changes.append((session, frame_index, ordinal, change, durability))
        self.info = replace(self.info, object_ids=(*self.info.object_ids, 9))
        return self.info

    def pause(self, session: SessionId, stream: str) -> bool:
        """What waits here is held by the test."""
        return True

    async def release(self, session: SessionId, stream: str | None = None) -> SessionInfo:
        return await self.describe(session)

    async def describe(self, session: SessionId) -> SessionInfo:
        self._fail()
        return self.info

    async def delete(self, session: SessionId) -> None:
        self._fail()
        self.deleted.append(session)

    async def ready(self) -> None:
        self._fail()

    def models(self) -> Sequence[ModelInfo]:
        state = StateSpec("rnn_h", (32, "H/16", "W/16"), "float16", False)
        return [ModelInfo("fake", "d1", 1024, 16, (state,), "nothing", "none", {"J": 0.5}, "CPU")]


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
async def port(engine: ScriptedEngine) -> AsyncIterator[int]:
    app = create_app(engine, max_image_bytes=LIMIT, metrics=lambda: b"frames_total 3\n", version="9.9", stream_window=4)
    server = await start_http(app, max_message_bytes=LIMIT)
    yield server.port
    await server.stop(grace_s=5)


@pytest.fixture
async def http(port: int) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
        yield client


@pytest.fixture
def form() -> dict[str, Any]:
    return {"frame": ("f.jpg", b"frame", "image/jpeg"), "mask": ("m.png", b"mask", "image/png")}
