"""The frame loop of a `Track` stream: frames go to the engine as they come, answers leave in their order.

Knows nothing of how a stream begins; the servicer has named the session by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from s2spp.v1 import segmentation_pb2 as pb
from service.core.errors import InvalidOption, OwnershipLost
from service.core.ports import Delivered, Engine
from service.core.types import Durability, SessionId
from service.transport.grpc import convert
from service.transport.grpc.errors import status_of


@dataclass(frozen=True)
class _Pending:
    frame_index: int
    answer: asyncio.Task[Delivered]


class FrameLoop:
    """One stream's frames. At most `window` are in flight: no further one is read until an answer has left,
    so HTTP/2 flow control slows the sender."""

    def __init__(
        self,
        engine: Engine,
        session: SessionId,
        requests: AsyncIterator[pb.TrackRequest],
        write: Callable[[pb.TrackResponse], Awaitable[None]],
        window: int,
    ) -> None:
        self._engine = engine
        self._session = session
        self._requests = requests
        self._write = write
        self._slots = asyncio.Semaphore(window)
        self._pending: asyncio.Queue[_Pending | None] = asyncio.Queue()
        self._tasks: set[asyncio.Task[Delivered]] = set()
        self._answered_through = 0

    async def run(self) -> None:
        """Returns when the caller has half-closed and every frame is answered.

        Raises:
            InvalidOption: a message was no frame; the frames before it have been answered.
            OwnershipLost: the session is somebody else's now.
        """
        reader = asyncio.create_task(self._read())
        try:
            while (pending := await self._pending.get()) is not None:
                await self._write(await _response(pending))
                self._answered_through = max(self._answered_through, pending.frame_index)
                self._slots.release()
            await reader
        finally:
            for task in (reader, *self._tasks):
                task.cancel()
            await asyncio.gather(reader, *self._tasks, return_exceptions=True)

    async def _read(self) -> None:
        try:
            while True:
                await self._slots.acquire()
                request = await anext(self._requests, None)
                if request is None:
                    return
                if request.WhichOneof("command") != "frame":
                    raise InvalidOption("after the first message of a Track stream, every message is a frame")
                # Tasks start in the order in which they were made, so the engine sees the frames in theirs.
                task = asyncio.create_task(self._segment(request))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                self._pending.put_nowait(_Pending(request.frame.frame_index, task))
        finally:
            self._pending.put_nowait(None)

    async def _segment(self, request: pb.TrackRequest) -> Delivered:
        stated = request.HasField("received_through")
        return await self._engine.segment(
            self._session,
            request.frame.frame_index,
            convert.image(request.frame.image),
            durability=Durability.RELAXED,
            received_through=request.received_through if stated else self._answered_through,
        )


async def _response(pending: _Pending) -> pb.TrackResponse:
    """A frame that failed is an answer like any other; only losing the session ends the stream."""
    try:
        return pb.TrackResponse(mask=convert.mask_message(await pending.answer))
    except OwnershipLost:
        raise
    except Exception as error:
        return pb.TrackResponse(error=pb.FrameError(frame_index=pending.frame_index, status=status_of(error)))
