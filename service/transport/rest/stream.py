"""WS /v1/sessions/{session}/stream: each binary message is the next frame's image; each answer is a JSON text
message and then, unless it is a problem, the mask as a binary message. Answers keep the frames' order."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Query, WebSocket
from fastapi.websockets import WebSocketDisconnect
from starlette.types import Message

from service.core.errors import FrameAcknowledged, InvalidInput, InvalidOption, S2sppError
from service.core.ports import Delivered, Engine
from service.core.types import Durability, EncodedImage, ImageFormat, SessionId
from service.transport.rest.problems import problem, unexpected
from service.transport.rest.schemas import AnswerOut
from service.transport.rest.sessions import RawHeight, RawWidth, ReceivedThrough, session_id

_log = logging.getLogger(__name__)


def stream_routes(engine: Engine, window: int) -> APIRouter:
    routes = APIRouter()

    @routes.websocket("/v1/sessions/{session}/stream")
    async def stream(
        socket: WebSocket,
        session: str,
        durability: Annotated[Durability, Query()] = Durability.RELAXED,
        received_through: ReceivedThrough = None,
        height: RawHeight = 0,
        width: RawWidth = 0,
    ) -> None:
        info = await engine.describe(session_id(session))  # an error refuses the handshake
        await socket.accept()
        first = info.next_frame if received_through is None else received_through + 1
        await _FrameStream(socket, engine, info.session, first, durability, (height, width), window).run()

    return routes


class _FrameStream:
    """One socket. At most `window` frames are under way; a sender that is faster is slowed by TCP itself.

    A frame that cannot be used takes its index, and so does one that was acknowledged before: who resumes too
    far back catches up. Any other error may leave its index and those behind it open: the stream then asks the
    engine where the session stands before it numbers the next message."""

    def __init__(
        self,
        socket: WebSocket,
        engine: Engine,
        session: SessionId,
        first_index: int,
        durability: Durability,
        raw_size: tuple[int, int],
        window: int,
    ) -> None:
        self._socket, self._engine, self._session = socket, engine, session
        self._durability, self._raw_size = durability, raw_size
        self._next_index = first_index
        self._sent_through = first_index - 1
        self._numbering_lost = False
        self._pending: asyncio.Queue[tuple[int, asyncio.Task[Delivered]] | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(window)

    async def run(self) -> None:
        """Until the caller closes. Frames read by then are finished: the session is ready to be resumed."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._answer())
            await self._read()
            self._pending.put_nowait(None)

    async def _read(self) -> None:
        while (message := await self._next_message())["type"] != "websocket.disconnect":
            data = message.get("bytes")
            if data is None:
                self._enqueue(self._next_index, _refuse_text())
                continue
            if self._numbering_lost:
                await self._pending.join()
                await self._renumber()
            index, self._next_index = self._next_index, self._next_index + 1
            self._enqueue(index, self._segment(index, data))

    async def _next_message(self) -> Message:
        """Once there is room for it in the window."""
        await self._slots.acquire()
        return await self._socket.receive()

    def _enqueue(self, index: int, work: Coroutine[Any, Any, Delivered]) -> None:
        # The task starts now, in the order of the frames; only its answer waits in the queue.
        self._pending.put_nowait((index, asyncio.create_task(work)))

    def _segment(self, index: int, data: bytes) -> Coroutine[Any, Any, Delivered]:
        height, width = self._raw_size
        image = EncodedImage(data, ImageFormat.RAW_RGB8, height, width) if height else EncodedImage(data)
        return self._engine.segment(
            self._session, index, image, durability=self._durability, received_through=self._sent_through
        )

    async def _renumber(self) -> None:
        with suppress(S2sppError):  # segment meets the same error, and the caller is told in its turn
            self._next_index = (await self._engine.describe(self._session)).next_frame
            self._numbering_lost = False

    async def _answer(self) -> None:
        here = True
        while (item := await self._pending.get()) is not None:
            index, work = item
            text, mask = await self._outcome(index, work)
            try:
                if here:
                    await self._socket.send_text(text)
                if here and mask:
                    await self._socket.send_bytes(mask)
            except (WebSocketDisconnect, RuntimeError):
                here = False  # gone: the frames that it sent are finished all the same
            self._pending.task_done()
            self._slots.release()

    async def _outcome(self, index: int, work: asyncio.Task[Delivered]) -> tuple[str, bytes]:
        """What is said of frame `index`, and its mask (empty with a problem)."""
        try:
            delivered = await work
        except S2sppError as error:
            self._numbering_lost |= not isinstance(error, (InvalidInput, FrameAcknowledged))
            return json.dumps(problem(error) | {"frame_index": index}), b""
        except Exception:
            _log.exception("frame %d of a stream failed", index)
            self._numbering_lost = True
            return json.dumps(problem(unexpected()) | {"frame_index": index}), b""
        self._sent_through = index
        return AnswerOut.of(delivered).model_dump_json(), delivered.answer.mask


async def _refuse_text() -> Delivered:
    raise InvalidOption("a text message means nothing here; send each frame's image as one binary message")
