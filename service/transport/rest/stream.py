"""WS /v1/sessions/{session}/stream: each binary message is the next frame's image; each answer is a JSON text
message and then, unless it is a problem, the mask as a binary message. Answers keep the frames' order. Text messages
change objects and acknowledge masks (`commands`); the first answer tells where the session stands."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Query, WebSocket
from fastapi.websockets import WebSocketDisconnect
from starlette.types import Message

from service.core.errors import (
    FrameAcknowledged,
    FrameDropped,
    InvalidInput,
    InvalidOption,
    OwnershipLost,
    S2sppError,
    SessionRolledBack,
    Unavailable,
    error_from_reason,
)
from service.core.ports import Delivered, Engine, Resumed
from service.core.types import (
    Answer,
    DrawObjects,
    Durability,
    EncodedImage,
    Failure,
    ImageFormat,
    ObjectChange,
    RemoveObject,
    SessionInfo,
)
from service.transport.http.problems import problem, unexpected
from service.transport.http.stopping import Stopping
from service.transport.peer import resume_later
from service.transport.rest.commands import ChangeIn, DrawIn, meant, read_command
from service.transport.rest.schemas import AnswerOut, SessionOut
from service.transport.rest.sessions import RawHeight, RawWidth, ReceivedThrough, ToldCommitted, session_id

_log = logging.getLogger(__name__)
_RESTART = 1012
"""Close code: the session is to be resumed; in a moment, where the server stops or has no worker."""
_CONFLICT = 4409
"""Close code, with the reason: the session is another stream's now, or older than this one knows it."""
_CONFLICTS = (OwnershipLost, SessionRolledBack)


def stream_routes(engine: Engine, window: int, stopping: Stopping) -> APIRouter:
    routes = APIRouter()

    @routes.websocket("/v1/sessions/{session}/stream")
    async def stream(
        socket: WebSocket,
        session: str,
        durability: Annotated[Durability, Query()] = Durability.RELAXED,
        received_through: ReceivedThrough = None,
        committed_frame: ToldCommitted = 0,
        height: RawHeight = 0,
        width: RawWidth = 0,
    ) -> None:
        name = secrets.token_hex(8)
        # An error refuses the handshake.
        resumed = await engine.resume(session_id(session), received_through, name, committed_frame)
        try:
            await socket.accept()
            stream = _FrameStream(socket, engine, resumed, name, durability, received_through, (height, width), window)
            with stopping.running():
                await stream.run(stopping.told)
        finally:
            await engine.leave(resumed.info.session, name)

    return routes


@dataclass
class _Drawing:
    """Waits for its two images."""

    wanted: DrawIn
    images: list[EncodedImage] = field(default_factory=list)


@dataclass(frozen=True)
class _Pending:
    """A frame, or a change of the objects after it, and what will be said of it. `frame_index` None: a text message
    that is neither."""

    frame_index: int | None
    work: asyncio.Task[Delivered] | asyncio.Task[SessionInfo]
    of_change: bool = False


class _FrameStream:
    """One socket. At most `window` frames are under way; a sender that is faster is slowed by TCP itself.

    A frame that cannot be used takes its index, and so does one that was acknowledged before. Any other error may leave
    its index and those behind it open: the stream then asks the engine where the session stands before it numbers the
    next message."""

    def __init__(
        self,
        socket: WebSocket,
        engine: Engine,
        resumed: Resumed,
        name: str,
        durability: Durability,
        received_through: int | None,
        raw_size: tuple[int, int],
        window: int,
    ) -> None:
        """`received_through`: None until the caller says what it has; then nothing else acknowledges."""
        self._socket, self._engine, self._resumed, self._name = socket, engine, resumed, name
        self._session = resumed.info.session
        self._durability, self._raw_size = durability, raw_size
        self._next_index = resumed.info.next_frame
        self._sent_through = (resumed.answers[0].frame_index if resumed.answers else self._next_index) - 1
        self._received_through = received_through
        self._told_committed = resumed.info.committed_frame
        self._drawing: _Drawing | None = None
        # Images of drawings that were refused, which came with them or are on their way.
        self._unwanted = 0
        self._numbering_lost = False
        self._pending: asyncio.Queue[_Pending | None] = asyncio.Queue()
        self._slots = asyncio.Semaphore(window)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until the caller closes, or the server stops. Frames read by then are finished: the session is ready to be
        resumed."""
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(self._answer())
            reading = group.create_task(self._read())
            stopped = group.create_task(stopping.wait())
            await asyncio.wait({reading, stopped}, return_when=asyncio.FIRST_COMPLETED)
            leaving = stopping.is_set()
            reading.cancel()
            stopped.cancel()
            self._pending.put_nowait(None)
            if await answering and leaving:
                await self._farewell()

    async def _farewell(self) -> None:
        info = await self._engine.release(self._session)
        if await self._send(json.dumps(problem(resume_later(info)))):
            await self._socket.close(_RESTART, Unavailable.reason)

    async def _read(self) -> None:
        while (message := await self._next_message())["type"] != "websocket.disconnect":
            if self._numbering_lost:
                await self._pending.join()
                await self._renumber()
            pending = self._begun(message.get("text"), message.get("bytes"))
            if pending is None:
                self._slots.release()  # nothing will be said of it
            else:
                self._pending.put_nowait(pending)

    async def _next_message(self) -> Message:
        """Once there is room for it in the window."""
        await self._slots.acquire()
        return await self._socket.receive()

    def _begun(self, text: str | None, data: bytes | None) -> _Pending | None:
        """Its work has started, in the order of the messages; only its answer waits."""
        if data is None:
            return self._command(text or "")
        if self._drawing is not None:
            return self._draw(self._drawing, data)
        if self._unwanted:
            self._unwanted -= 1
            return None
        index, self._next_index = self._next_index, self._next_index + 1
        return _Pending(index, asyncio.create_task(self._segment(index, data)))

    def _command(self, text: str) -> _Pending | None:
        try:
            command = read_command(text)
            if command.received_through is not None:
                self._acknowledge(command.received_through)
                return None
            if self._drawing is not None:
                raise InvalidOption("the two binary messages of the drawing before come first, the frame and the mask")
        except InvalidOption as error:
            return self._refused(text, error)
        # Messages keep their order: who was told of a refusal and sends this has sent no images, nor will.
        self._unwanted = 0
        if command.remove is not None:
            return self._change(command.remove, RemoveObject(command.remove.object_id))
        if command.draw is not None:
            self._drawing = _Drawing(command.draw)
        return None

    def _refused(self, text: str, error: InvalidOption) -> _Pending:
        changes = meant(text)
        if "draw" in changes:
            self._unwanted = 2 + (self._unwanted if self._drawing is not None else 0)
        return _Pending(None, asyncio.create_task(_refuse(error)), of_change=bool(changes))

    def _acknowledge(self, through: int) -> None:
        # What it had when it came may be more than a server has after a crash.
        sent = max(self._next_index - 1, self._sent_through, self._received_through or 0)
        if through > sent:
            raise InvalidOption(
                f"received_through: {through} came, but the last frame sent is {sent}; say what you have"
            )
        self._received_through = through

    def _draw(self, drawing: _Drawing, data: bytes) -> _Pending | None:
        # A mask is a picture even where frames are raw.
        drawing.images.append(EncodedImage(data) if drawing.images else self._image(data))
        if len(drawing.images) < 2:
            return None
        self._drawing = None
        frame, mask = drawing.images
        return self._change(drawing.wanted, DrawObjects(frame, mask, drawing.wanted.object_id))

    def _change(self, wanted: ChangeIn, change: ObjectChange) -> _Pending:
        index = self._next_index - 1 if wanted.frame_index is None else wanted.frame_index
        return _Pending(index, asyncio.create_task(self._changed(index, wanted, change)), of_change=True)

    async def _changed(self, index: int, wanted: ChangeIn, change: ObjectChange) -> SessionInfo:
        return await self._engine.change(
            self._session, index, change, durability=self._durability, ordinal=wanted.ordinal, stream=self._name
        )

    async def _segment(self, index: int, data: bytes) -> Delivered:
        received = self._sent_through if self._received_through is None else self._received_through
        return await self._engine.segment(
            self._session,
            index,
            self._image(data),
            durability=self._durability,
            received_through=received,
            told_committed=self._told_committed,
            stream=self._name,
        )

    def _image(self, data: bytes) -> EncodedImage:
        height, width = self._raw_size
        return EncodedImage(data, ImageFormat.RAW_RGB8, height, width) if height else EncodedImage(data)

    async def _renumber(self) -> None:
        with suppress(S2sppError):  # segment meets the same error, and the caller is told in its turn
            self._next_index = (await self._engine.describe(self._session)).next_frame
            self._numbering_lost = False

    async def _answer(self) -> bool:
        """Whether the caller is there still, when all is answered."""
        info = self._resumed.info
        here = await self._send(json.dumps({"session": SessionOut.model_validate(info).model_dump()}))
        for answer in self._resumed.answers:
            here = here and await self._send(*_replayed(answer, info.committed_frame))
            self._sent_through = answer.frame_index
        while (pending := await self._pending.get()) is not None:
            text, mask, end = await self._outcome(pending)
            here = here and await self._send(text, mask)
            if end is not None and here:
                await self._socket.close(_CONFLICT if isinstance(end, _CONFLICTS) else _RESTART, end.reason)
                here = False
            self._pending.task_done()
            self._slots.release()
        return here

    async def _send(self, text: str, mask: bytes = b"") -> bool:
        """False: nobody is there any more. The frames that they sent are finished all the same."""
        try:
            await self._socket.send_text(text)
            if mask:
                await self._socket.send_bytes(mask)
        except (WebSocketDisconnect, RuntimeError):
            return False
        return True

    async def _outcome(self, pending: _Pending) -> tuple[str, bytes, S2sppError | None]:
        """What is said of a frame or change, its mask (empty with a problem), and why the stream ends with it."""
        where: dict[str, Any] = {} if pending.frame_index is None else {"frame_index": pending.frame_index}
        if pending.of_change:
            where["of_change"] = True
        try:
            said = await pending.work
        except S2sppError as error:
            self._numbering_lost |= not isinstance(error, (InvalidInput, FrameAcknowledged, FrameDropped))
            end = error if error.ends_stream or isinstance(error, _CONFLICTS) else None
            return json.dumps(problem(error) | where), b"", end
        except Exception:
            _log.exception("frame %s of a stream failed", pending.frame_index)
            self._numbering_lost = True
            return json.dumps(problem(unexpected()) | where), b"", None
        self._told_committed = max(self._told_committed, said.committed_frame)
        if isinstance(said, SessionInfo):
            return json.dumps({"objects": SessionOut.model_validate(said).model_dump()}), b"", None
        self._sent_through = said.answer.frame_index
        return AnswerOut.of(said).model_dump_json(), said.answer.mask, None


def _replayed(answer: Answer | Failure, committed_frame: int) -> tuple[str, bytes]:
    """An answer that was made before this stream."""
    if isinstance(answer, Answer):
        return AnswerOut.of(Delivered(answer, committed_frame)).model_dump_json(), answer.mask
    error = error_from_reason(answer.reason, answer.message, dict(answer.metadata))
    return json.dumps(problem(error) | {"frame_index": answer.frame_index}), b""


async def _refuse(error: InvalidOption) -> Delivered:
    raise error
