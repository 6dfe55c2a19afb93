"""One video's way through the engine: frames as they are decoded go in, answers come out in their order."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from typing import Self

from service.core.errors import S2sppError
from service.core.ports import Delivered, Engine
from service.core.types import (
    Answer,
    Durability,
    EncodedImage,
    MaskFormat,
    ObjectReport,
    SessionId,
    SessionInfo,
    SessionOptions,
)
from service.imaging import GrowingFile, ImageLimits, decode_mask, encode_mask, encode_probability
from service.imaging.video import VideoLimits, VideoReader

_log = logging.getLogger(__name__)
# Frames are decoded and masks encoded beside the model's step for another one; more would only take memory.
_IN_FLIGHT = 4


class FrameStream:
    """A video's frames, decoded in threads. At its end nothing reads from `file` any more."""

    def __init__(self, file: GrowingFile, limits: VideoLimits, threads: Executor) -> None:
        self._file, self._threads = file, threads
        self.reader = VideoReader(file, limits)
        self._frames = iter(self.reader)
        self._next: asyncio.Future[EncodedImage | None] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._file.fail(ValueError("nobody reads the video any more"))
        if self._next is not None:
            await asyncio.gather(self._next, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(self._threads, self._frames.close)

    def next(self) -> asyncio.Future[EncodedImage | None]:
        """Begins to decode another frame; None behind the last one. One at a time. Raises what VideoReader does."""
        loop = asyncio.get_running_loop()
        # Shielded: a thread cannot be cancelled, and its end has to be seen.
        self._next = loop.run_in_executor(self._threads, next, self._frames, None)
        return asyncio.shield(self._next)


@asynccontextmanager
async def session_for(
    engine: Engine, frame: EncodedImage, mask: EncodedImage, options: SessionOptions, client: str, stream: str
) -> AsyncIterator[SessionInfo]:
    """Opened by `stream`, and deleted at the end."""
    opened = await engine.open(frame, mask, options, client=client, stream=stream)
    try:
        yield opened.info
    finally:
        await engine.leave(opened.info.session, stream)
        try:
            await engine.delete(opened.info.session)
        except S2sppError as error:
            _log.warning("the session of a video is left to expire: %s", error.fault)


async def answers(
    engine: Engine, session: SessionId, stream: str, frames: FrameStream
) -> AsyncGenerator[tuple[Delivered, EncodedImage], None]:
    """Each frame from index 1 on, with its answer, as soon as that is made. A fault of the video is raised behind the
    answers to the frames before it. While the caller does not ask for the next one, decoding stops, too."""
    pending: deque[tuple[EncodedImage, asyncio.Task[Delivered]]] = deque()
    decoding: asyncio.Future[EncodedImage | None] | None = frames.next()
    fault: Exception | None = None
    index = received_through = 0
    try:
        while pending or decoding is not None:
            awaited: list[asyncio.Future[Delivered] | asyncio.Future[EncodedImage | None]] = []
            if pending:
                awaited.append(pending[0][1])
            if decoding is not None and len(pending) < _IN_FLIGHT:
                awaited.append(decoding)
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            if pending and pending[0][1].done():
                image, work = pending.popleft()
                delivered = work.result()
                received_through = delivered.answer.frame_index
                yield delivered, image
                continue
            assert decoding is not None, "it was waited for"
            try:
                frame = decoding.result()
            except Exception as error:
                fault, frame = error, None
            if frame is None:
                decoding = None
                continue
            index += 1
            segment = engine.segment(
                session,
                index,
                frame,
                durability=Durability.RELAXED,
                received_through=received_through,
                stream=stream,
            )
            # The task starts now: the order of the calls is the order of the frames.
            pending.append((frame, asyncio.create_task(segment)))
            decoding = frames.next()
    finally:
        for _, work in pending:
            work.cancel()
        await asyncio.gather(*(work for _, work in pending), return_exceptions=True)
        if decoding is not None:
            decoding.cancel()
    if fault is not None:
        raise fault


def first_answer(mask: EncodedImage, info: SessionInfo, mask_format: MaskFormat, limits: ImageLimits) -> Delivered:
    """Frame 0's answer is the mask that was given."""
    labels = decode_mask(mask, limits)
    planes = {object_id: labels == object_id for object_id in info.object_ids}
    if mask_format is MaskFormat.PROBABILITY:
        encoded = encode_probability(plane.astype("float32") for plane in planes.values())
    else:
        encoded = encode_mask(labels, mask_format, info.object_ids)
    reports = tuple(ObjectReport.certain(object_id, plane) for object_id, plane in planes.items())
    return Delivered(Answer(0, encoded, mask_format, info.height, info.width, reports), info.committed_frame)
