"""`AsyncClient`: the service from asyncio code; the twin of `Client`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import grpc

from s2spp.v1 import segmentation_pb2 as pb
from s2spp.v1 import segmentation_pb2_grpc
from service.client import requests, wire
from service.client.errors import error_from_call, error_from_frame
from service.client.images import FrameLike, MaskLike, labels_of
from service.client.wire import TrackedFrame
from service.core.errors import InvalidOption, S2sppError
from service.core.ports import Opened
from service.core.types import MaskFormat, ModelInfo, SessionInfo

_TrackCall = grpc.aio.StreamStreamCall[pb.TrackRequest, pb.TrackResponse]


class AsyncClient:
    """One connection to an s2spp server at `target` ("host:port"), for the event loop in which it is made.
    Raises as `Client` does."""

    def __init__(self, target: str, *, timeout_s: float = requests.TIMEOUT_S) -> None:
        """`timeout_s`: how long any call but `track` may take. Connects with the first call."""
        self._target = target
        self._timeout_s = timeout_s
        self._channel = grpc.aio.insecure_channel(target, requests.CHANNEL_OPTIONS)
        self._stub = segmentation_pb2_grpc.SegmentationStub(self._channel)

    async def close(self) -> None:
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def track(
        self,
        frames: Iterable[FrameLike] | AsyncIterable[FrameLike],
        first_mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        jpeg_quality: int | None = None,
        on_frame_error: Callable[[int, S2sppError], None] | None = None,
    ) -> AsyncGenerator[TrackedFrame]:
        """As `Client.track`. An ordinary iterable of `frames` is read in a thread, so it may block."""
        source = _aiter(frames)
        labels = labels_of(first_mask)
        try:
            first = await anext(source)
        except StopAsyncIteration:
            raise InvalidOption("there are no frames: the first one belongs to first_mask") from None
        opening = requests.open_request(first, labels, mask_format, jpeg_quality)
        call = self._stub.Track()
        feed = _Feed(source, jpeg_quality)
        sending = asyncio.create_task(feed.send(call, opening))
        session = ""
        try:
            async for event in call:
                if event.HasField("session"):
                    session = event.session.session_id
                    yield wire.first_frame(labels, event.session)
                elif event.HasField("mask"):
                    yield await asyncio.to_thread(wire.tracked_frame, event.mask)
                    feed.taken(event.mask.frame_index)
                else:
                    error = error_from_frame(event.error)
                    if on_frame_error is None:
                        raise error
                    on_frame_error(event.error.frame_index, error)
                    feed.taken(event.error.frame_index)
            await sending
        except grpc.RpcError as error:
            # The server is away, or the session is no longer ours to delete.
            session = ""
            raise error_from_call(error, self._target) from error
        finally:
            call.cancel()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            if session:
                await self._forget(session)

    async def create_session(
        self,
        frame: FrameLike,
        mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        jpeg_quality: int | None = None,
    ) -> Opened:
        """As `Client.create_session`."""
        request = requests.create_request(frame, labels_of(mask), mask_format, jpeg_quality)
        with self._errors():
            response = await self._stub.CreateSession(request, timeout=self._timeout_s)
        return Opened(wire.session_info(response.session), response.state_bytes)

    async def segment(
        self,
        session: str,
        frame_index: int,
        frame: FrameLike,
        *,
        received_through: int | None = None,
        jpeg_quality: int | None = None,
    ) -> TrackedFrame:
        """As `Client.segment`."""
        request = requests.segment_request(session, frame_index, frame, received_through, jpeg_quality)
        with self._errors():
            response = await self._stub.SegmentFrame(request, timeout=self._timeout_s)
        return wire.tracked_frame(response.mask)

    async def session(self, session: str) -> SessionInfo:
        request = pb.GetSessionRequest(session_id=session)
        with self._errors():
            return wire.session_info((await self._stub.GetSession(request, timeout=self._timeout_s)).session)

    async def delete_session(self, session: str) -> None:
        with self._errors():
            await self._stub.DeleteSession(
                pb.DeleteSessionRequest(session_id=session), timeout=self._timeout_s
            )

    async def model(self) -> ModelInfo:
        with self._errors():
            return wire.model_info(await self._stub.GetModel(pb.GetModelRequest(), timeout=self._timeout_s))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise error_from_call(error, self._target) from error

    async def _forget(self, session: str) -> None:
        # UsageError: the client has been closed in the meantime.
        with suppress(grpc.RpcError, grpc.aio.UsageError):
            await self._stub.DeleteSession(
                pb.DeleteSessionRequest(session_id=session), timeout=requests.FORGET_TIMEOUT_S
            )


class _Feed:
    """The sending half of a stream, a task beside the one that takes the masks."""

    def __init__(self, source: AsyncIterator[FrameLike], jpeg_quality: int | None) -> None:
        self._source = source
        self._jpeg_quality = jpeg_quality
        self._slots = asyncio.Semaphore(requests.WINDOW)
        self._received_through = 0

    async def send(self, call: _TrackCall, opening: pb.TrackRequest) -> None:
        """Half-closes the stream at the source's end, and where the source fails: frames already sent are
        answered before the caller hears of it."""
        try:
            await call.write(opening)
            frame_index = 0
            # A slot comes before its frame: one fetched earlier would be stale when its turn comes.
            await self._slots.acquire()
            async for frame in self._source:
                frame_index += 1
                await call.write(
                    await asyncio.to_thread(
                        requests.frame_request, frame_index, frame, self._jpeg_quality, self._received_through
                    )
                )
                await self._slots.acquire()
        finally:
            await call.done_writing()

    def taken(self, frame_index: int) -> None:
        """The caller has taken this frame's answer, and asks for the next."""
        self._received_through = frame_index
        self._slots.release()


async def _aiter(frames: Iterable[FrameLike] | AsyncIterable[FrameLike]) -> AsyncIterator[FrameLike]:
    if isinstance(frames, AsyncIterable):
        async for frame in frames:
            yield frame
        return
    source: Iterator[Any] = iter(frames)
    end: Any = object()
    # StopIteration cannot pass through a coroutine, so the end is a value.
    while (frame := await asyncio.to_thread(lambda: next(source, end))) is not end:
        yield frame
