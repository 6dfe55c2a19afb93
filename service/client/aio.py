"""`AsyncClient`: the service from asyncio code; `Client` in threads (service.client.stream says why)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from service.client import requests
from service.client.feed import TrackItem
from service.client.images import FrameLike, MaskLike
from service.client.stream import OnFrameError, Stream, result_of
from service.client.sync import Client
from service.client.wire import TrackedFrame
from service.core.ports import Opened
from service.core.types import Flow, MaskFormat, ModelInfo, SessionInfo, SessionOptions

_END: Any = object()


class AsyncClient:
    """The twin of `Client`: the same calls, results and errors."""

    def __init__(
        self, target: str, *, timeout_s: float = requests.TIMEOUT_S, retry_for_s: float = requests.RETRY_FOR_S
    ) -> None:
        """As `Client`."""
        self._client = Client(target, timeout_s=timeout_s, retry_for_s=retry_for_s)

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def track(
        self,
        frames: Iterable[TrackItem] | AsyncIterable[TrackItem],
        first_mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        flow: Flow = Flow.LOSSLESS,
        jpeg_quality: int | None = None,
        on_frame_error: OnFrameError | None = None,
        keep_session: bool = False,
    ) -> AsyncGenerator[TrackedFrame]:
        """As `Client.track`. An ordinary iterable of `frames` is read in a thread, so it may block. Whoever
        leaves early does so within `contextlib.aclosing`, which ends the stream and the session at once."""
        source = _readable(frames)
        options = SessionOptions(mask_format, flow)
        stream = self._client.stream(source, first_mask, options, jpeg_quality, keep_session)
        async with aclosing(_followed(stream, source, on_frame_error)) as results:
            async for result in results:
                yield result

    async def resume(
        self,
        session: str,
        frames: Iterable[TrackItem] | AsyncIterable[TrackItem],
        received_through: int,
        *,
        first_index: int = 0,
        jpeg_quality: int | None = None,
        on_frame_error: OnFrameError | None = None,
        keep_session: bool = False,
    ) -> AsyncGenerator[TrackedFrame]:
        """As `Client.resume`; left as `track` is."""
        source = _readable(frames)
        stream = self._client.resumed_stream(session, source, received_through, first_index, jpeg_quality, keep_session)
        async with aclosing(_followed(stream, source, on_frame_error)) as results:
            async for result in results:
                yield result

    async def create_session(
        self,
        frame: FrameLike,
        mask: MaskLike,
        *,
        mask_format: MaskFormat = MaskFormat.PNG,
        flow: Flow = Flow.LOSSLESS,
        jpeg_quality: int | None = None,
    ) -> Opened:
        """As `Client.create_session`."""
        return await asyncio.to_thread(
            self._client.create_session, frame, mask, mask_format=mask_format, flow=flow, jpeg_quality=jpeg_quality
        )

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
        return await asyncio.to_thread(
            self._client.segment,
            session,
            frame_index,
            frame,
            received_through=received_through,
            jpeg_quality=jpeg_quality,
        )

    async def draw_objects(
        self,
        session: str,
        frame_index: int,
        frame: FrameLike,
        mask: MaskLike,
        *,
        object_id: int | None = None,
        ordinal: int | None = None,
        jpeg_quality: int | None = None,
    ) -> SessionInfo:
        """As `Client.draw_objects`."""
        return await asyncio.to_thread(
            self._client.draw_objects,
            session,
            frame_index,
            frame,
            mask,
            object_id=object_id,
            ordinal=ordinal,
            jpeg_quality=jpeg_quality,
        )

    async def remove_object(
        self, session: str, frame_index: int, object_id: int, *, ordinal: int | None = None
    ) -> SessionInfo:
        """As `Client.remove_object`."""
        return await asyncio.to_thread(self._client.remove_object, session, frame_index, object_id, ordinal=ordinal)

    async def session(self, session: str) -> SessionInfo:
        return await asyncio.to_thread(self._client.session, session)

    async def delete_session(self, session: str) -> None:
        await asyncio.to_thread(self._client.delete_session, session)

    async def model(self) -> ModelInfo:
        return await asyncio.to_thread(self._client.model)


async def _followed(
    stream: Stream, source: Iterable[TrackItem], on_frame_error: OnFrameError | None
) -> AsyncGenerator[TrackedFrame]:
    """The results of a stream that a thread of its own iterates; it is closed however this ends."""
    loop, thread = asyncio.get_running_loop(), ThreadPoolExecutor(1, "s2spp-track")
    try:
        outcomes = iter(stream)
        while (outcome := await loop.run_in_executor(thread, next, outcomes, _END)) is not _END:
            result = result_of(outcome, on_frame_error)
            if result is not None:
                yield result
    except Exception:
        stream.failed = True
        raise
    finally:
        stream.cancel()
        if isinstance(source, _FromLoop):
            source.cancel()
        await loop.run_in_executor(thread, stream.close)
        thread.shutdown(wait=False)


def _readable(frames: Iterable[TrackItem] | AsyncIterable[TrackItem]) -> Iterable[TrackItem]:
    return _FromLoop(frames, asyncio.get_running_loop()) if isinstance(frames, AsyncIterable) else frames


class _FromLoop:
    """An asynchronous source of the caller's event loop, as an iterator for another thread."""

    def __init__(self, frames: AsyncIterable[TrackItem], loop: asyncio.AbstractEventLoop) -> None:
        self._frames: AsyncIterator[TrackItem] = aiter(frames)
        self._loop = loop
        self._waiting: Future[TrackItem] | None = None
        self._cancelled = False

    def __iter__(self) -> Iterator[TrackItem]:
        while True:
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            if self._cancelled:
                self._waiting.cancel()
            frame = self._waiting.result()
            if frame is _END:
                return
            yield frame

    def cancel(self) -> None:
        """Wakes the thread that waits for a frame."""
        self._cancelled = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def _next(self) -> TrackItem:
        # StopAsyncIteration cannot leave a coroutine, so the end is a value.
        return await anext(self._frames, _END)
