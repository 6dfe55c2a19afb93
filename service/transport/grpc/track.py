"""The frame loop of a `Track` stream: frames go to the engine as they come, answers leave in their order.

Knows nothing of how a stream begins; the servicer has named the session by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from s2spp.v1 import segmentation_pb2 as pb
from service.core.errors import (
    InvalidOption,
    OwnershipLost,
    S2sppError,
    SessionExpired,
    SessionUnknown,
    SnapshotDamaged,
    Unavailable,
    error_from_reason,
)
from service.core.ports import Delivered, Engine
from service.core.types import Answer, Durability, Failure, ObjectChange, RemoveObject, SessionId, SessionInfo
from service.transport.grpc import convert
from service.transport.grpc.errors import status_of
from service.transport.peer import resume_later


@dataclass(frozen=True)
class _Pending:
    """A frame, or a change of the objects after it, and what will be said of it."""

    frame_index: int
    answer: asyncio.Task[Delivered] | asyncio.Task[SessionInfo]
    is_change: bool


class FrameLoop:
    """One stream's frames. At most `window` are in flight: no further one is read until an answer has left,
    so HTTP/2 flow control slows the sender."""

    def __init__(
        self,
        engine: Engine,
        session: SessionId,
        stream: str,
        requests: AsyncIterator[pb.TrackRequest],
        write: Callable[[pb.TrackResponse], Awaitable[None]],
        window: int,
        stopping: asyncio.Event,
        told_committed: int,
    ) -> None:
        """`told_committed`: what the caller was told to be stored, when the stream began."""
        self.leaving = False
        """It is handed over."""
        self._reader: asyncio.Task[None] | None = None
        self._stopping = stopping
        self._told_committed = told_committed
        self._engine = engine
        self._session = session
        self._stream = stream
        self._requests = requests
        self._write = write
        self._slots = asyncio.Semaphore(window)
        self._pending: asyncio.Queue[_Pending | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._answered_through = 0

    async def run(self) -> None:
        """Returns when the caller has half-closed and every frame is answered.

        Raises:
            InvalidOption: a message opened or resumed once more; those before it have been answered.
            OwnershipLost: the session is somebody else's now.
            Unavailable: the server stops, or the stream is handed over; what had begun is answered, and the message
                says where to resume.
        """
        reader = self._reader = asyncio.create_task(self._read())
        # Also of one that is cancelled before it has begun.
        reader.add_done_callback(lambda _: self._pending.put_nowait(None))
        stop = asyncio.create_task(self._stop(reader))
        try:
            while (pending := await self._pending.get()) is not None:
                response = await self._response(pending)
                if response is None:
                    break
                await self._write(response)
                if not pending.is_change:
                    self._answered_through = max(self._answered_through, pending.frame_index)
                self._slots.release()
            if self._stopping.is_set() or self.leaving:
                raise resume_later(await self._engine.release(self._session, self._stream), handed_over=self.leaving)
            await reader
        finally:
            for task in (reader, stop, *self._tasks):
                task.cancel()
            await asyncio.gather(reader, stop, *self._tasks, return_exceptions=True)

    @property
    def under_way(self) -> int:
        """Frames and changes that wait behind the one that is answered next."""
        return self._pending.qsize()

    def hand_over(self) -> bool:
        """It answers what has begun, and ends: another worker goes on with it. False: it ends already, or carries
        nothing now."""
        if self._reader is None or self._reader.done() or not self._engine.pause(self._session, self._stream):
            return False
        self.leaving = True
        self._reader.cancel()
        return True

    async def _stop(self, reader: asyncio.Task[None]) -> None:
        await self._stopping.wait()
        reader.cancel()
        self._engine.pause(self._session, self._stream)

    async def _read(self) -> None:
        while True:
            await self._slots.acquire()
            request = await anext(self._requests, None)
            if request is None:
                return
            # Tasks start in the order in which they were made, so the engine sees frames and changes in theirs.
            pending = self._begun(request)
            self._tasks.add(pending.answer)
            pending.answer.add_done_callback(self._over)
            self._pending.put_nowait(pending)

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # heard, should the stream end before its turn; asyncio logs those that are not

    def _begun(self, request: pb.TrackRequest) -> _Pending:
        match request.WhichOneof("command"):
            case "frame":
                work = asyncio.create_task(self._segment(request))
                return _Pending(request.frame.frame_index, work, is_change=False)
            case "draw":
                draw = asyncio.create_task(self._draw(request.draw))
                return _Pending(request.draw.frame_index, draw, is_change=True)
            case "remove":
                remove = asyncio.create_task(self._remove(request.remove))
                return _Pending(request.remove.frame_index, remove, is_change=True)
            case _:
                raise InvalidOption("a Track stream opens or resumes with its first message, and with no other")

    async def _segment(self, request: pb.TrackRequest) -> Delivered:
        stated = request.HasField("received_through")
        return await self._engine.segment(
            self._session,
            request.frame.frame_index,
            convert.image(request.frame.image),
            durability=convert.durability(request.frame, Durability.RELAXED),
            received_through=request.received_through if stated else self._answered_through,
            told_committed=self._told_committed,
            stream=self._stream,
            again=request.frame.again,
        )

    async def _draw(self, drawing: pb.Drawing) -> SessionInfo:
        return await self._change(drawing, convert.drawing(drawing))

    async def _remove(self, removal: pb.Removal) -> SessionInfo:
        return await self._change(removal, RemoveObject(removal.object_id))

    async def _change(self, placed: pb.Drawing | pb.Removal, change: ObjectChange) -> SessionInfo:
        frame_index, ordinal = convert.place(placed)
        durability = convert.durability(placed, Durability.RELAXED)
        return await self._engine.change(
            self._session, frame_index, change, durability=durability, ordinal=ordinal, stream=self._stream
        )

    async def _response(self, pending: _Pending) -> pb.TrackResponse | None:
        """A frame that failed is an answer like any other; only losing the session, or those who serve it, ends the
        stream. None: it was given back, as the stream ends."""
        try:
            said = await pending.answer
            self._told_committed = max(self._told_committed, said.committed_frame)
            if isinstance(said, SessionInfo):
                return pb.TrackResponse(objects=convert.session_message(said))
            return pb.TrackResponse(mask=convert.mask_message(said))
        except _ENDS:
            raise
        except Exception as error:
            if isinstance(error, Unavailable) and (self.leaving or self._stopping.is_set()):
                return None
            if isinstance(error, S2sppError) and error.ends_stream:
                raise
            failed = pb.FrameError(
                frame_index=pending.frame_index,
                status=status_of(error),
                of_change=pending.is_change,
                committed_frame=self._engine.committed_frame(self._session, self._stream),
            )
            return pb.TrackResponse(error=failed)


_ENDS = (OwnershipLost, SessionUnknown, SessionExpired, SnapshotDamaged)
"""Without its session a stream has nothing more to say."""


def replayed(answer: Answer | Failure, committed_frame: int) -> pb.TrackResponse:
    """An answer that was made before this stream."""
    if isinstance(answer, Answer):
        return pb.TrackResponse(mask=convert.mask_message(Delivered(answer, committed_frame)))
    error = error_from_reason(answer.reason, answer.message, dict(answer.metadata))
    return pb.TrackResponse(
        error=pb.FrameError(frame_index=answer.frame_index, status=status_of(error), committed_frame=committed_frame)
    )
