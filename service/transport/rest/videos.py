"""POST /v1/videos: a whole video in, and a mask for each of its frames out while it still comes in.

The upload goes to a file on disk, and the decoder follows behind it. So the upload never waits for the answers to be
read, which many HTTP clients do only when they have sent everything, and what is in memory does not grow with the
video: when answers are not read, decoding pauses, and the file, which has a limit, takes the rest.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from service.core import errors
from service.core.ports import Engine
from service.core.types import EncodedImage, SessionOptions
from service.imaging import GrowingFile, ImageLimits
from service.imaging.video import VideoLimits
from service.transport.http.problems import document_problems, unexpected
from service.transport.peer import client_name
from service.transport.rest.bodies import FORM_OVERHEAD, limited, mask_image, read_options
from service.transport.rest.form_stream import PartHead, form_events, read_head
from service.transport.rest.schemas import BINARY, VideoOptionsIn, VideoOut
from service.transport.rest.video_answers import MEDIA_TYPE, AnswerWriter, VideoAnswer, answer_writer, wanted_answer
from service.transport.rest.video_run import FrameStream, answers, first_answer, session_for

_log = logging.getLogger(__name__)
_RETRY_S = 5.0
_LAST_WORD_S = 1.0
# One decodes, one encodes answers, one writes the upload down.
_THREADS_PER_VIDEO = 3


@dataclass(frozen=True)
class VideoBounds:
    """What is taken on. `max_pixels`: of a frame. `stall_s`: neither side may pause for longer."""

    max_bytes: int = 1 << 30
    max_frames: int = 100_000
    max_pixels: int = 1 << 25
    at_a_time: int = 2
    stall_s: float = 3600.0


_FORM = {
    "type": "object",
    "required": ["mask", "video"],
    "properties": {
        "mask": {**BINARY, "description": "First: object ids of the first frame, as for a session"},
        "options": {"$ref": "#/components/schemas/VideoOptionsIn"},
        "video": {**BINARY, "description": "Last: mp4, mov, mkv, webm, avi, mpeg-ts, ..."},
    },
}
_FORM_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": _FORM,
                "encoding": {"options": {"contentType": "application/json"}},
            }
        },
    }
}
_ANSWERS: dict[str, Any] = {
    "description": "One answer for each frame, the first one's being the mask that was given",
    "content": {
        MEDIA_TYPE[VideoAnswer.NDJSON]: {
            "schema": {
                "description": 'One of these a line: {"video": VideoOut}, once; VideoFrameOut, for each frame; '
                '{"problem": Problem}, at the end, when what comes behind cannot be answered',
                "oneOf": [
                    {"type": "object", "properties": {name: {"$ref": f"#/components/schemas/{schema}"}}}
                    for name, schema in (("video", "VideoOut"), ("problem", "Problem"))
                ]
                + [{"$ref": "#/components/schemas/VideoFrameOut"}],
            }
        },
        MEDIA_TYPE[VideoAnswer.MULTIPART]: {
            "schema": {
                **BINARY,
                "description": "A part for each frame: its mask, with the headers of a single frame's answer. A last "
                "part of type application/problem+json when what comes behind cannot be answered",
            }
        },
        MEDIA_TYPE[VideoAnswer.MP4]: {
            "schema": {
                **BINARY,
                "description": "The video with the masks drawn over it, in H.264, which plays while it still comes. It "
                "has no place for a problem: the connection breaks instead, before the answer's end",
            }
        },
    },
}


def video_routes(engine: Engine, max_image_bytes: int, bounds: VideoBounds) -> APIRouter:
    routes = APIRouter(prefix="/v1/videos", tags=["videos"])
    desk = _Desk(engine, max_image_bytes, bounds)

    @routes.post(
        "",
        summary="Segment a whole video",
        response_class=Response,
        responses={
            200: _ANSWERS,
            **document_problems(
                errors.InvalidInput,
                errors.InvalidImage,
                errors.InvalidMask,
                errors.InvalidOption,
                errors.InputTooLarge,
                errors.UnsupportedMedia,
                errors.SessionExpired,
                errors.Overloaded,
                errors.Unavailable,
            ),
        },
        openapi_extra=_FORM_BODY,
    )
    async def segment_video(
        request: Request,
        answer: Annotated[
            VideoAnswer | None, Query(alias="format", description="In place of the header Accept")
        ] = None,
    ) -> Response:
        """The parts in this order: mask, options, video. Masks come back while the video is still being sent, as
        `application/x-ndjson` (also without `Accept`), `multipart/mixed` or `video/mp4`. An mp4 whose index lies at
        its end (written without "faststart") cannot be decoded before all of it has come: its masks come then.

        Read answers whenever you like: the upload does not wait for them. A problem found before the first answer has
        its status; one found later is the last line or part. Nothing of the video is kept."""
        return _Conversation(desk, answer or wanted_answer(request.headers.get("accept", "")))

    return routes


class _Desk:
    """What all videos share: the engine, the limits, and places for a few at a time."""

    def __init__(self, engine: Engine, max_image_bytes: int, bounds: VideoBounds) -> None:
        self.engine, self.max_image_bytes, self.bounds = engine, max_image_bytes, bounds
        self.masks = ImageLimits(max_image_bytes, bounds.max_pixels)
        # A decoded frame must pass as a raw image, too.
        self.videos = VideoLimits(bounds.max_frames, min(bounds.max_pixels, max_image_bytes // 3))
        # Threads of their own: they wait for the network, and may not keep others waiting.
        self.threads: Executor = ThreadPoolExecutor(_THREADS_PER_VIDEO * bounds.at_a_time, "s2spp-videos")
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        if self._taken >= self.bounds.at_a_time:
            raise errors.Overloaded(
                f"{self._taken} videos are being segmented, which is all at a time; try again in {_RETRY_S:g} s",
                _RETRY_S,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class _Conversation(Response):
    """Reads the request and writes the response at the same time. What fails before the first byte is raised, to be
    answered as by any route."""

    def __init__(self, desk: _Desk, answer: VideoAnswer) -> None:
        super().__init__()
        self._desk, self._answer = desk, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        out = _Outgoing(send, self._desk.bounds.stall_s)
        try:
            await self._talk(Request(scope, receive), out)
        except ClientDisconnect:
            _log.info("the sender of a video went away")
        except asyncio.CancelledError:  # the time that a stopping server gives to requests is over
            if out.started:
                raise
            raise _stopping() from None

    async def _talk(self, request: Request, out: _Outgoing) -> None:
        desk, bounds = self._desk, self._desk.bounds
        client = client_name(request.client.host) if request.client else ""
        desk.engine.refuse_if_full(client)
        with desk.place():
            pass  # full: told before anything is read
        body = _steady(limited(request, bounds.max_bytes + 2 * desk.max_image_bytes + FORM_OVERHEAD), bounds.stall_s)
        async with aclosing(form_events(request.headers.get("content-type", ""), body)) as events:
            head = await read_head(events, ("mask", "options"), "video", desk.max_image_bytes)
            if "mask" not in head:
                raise errors.InvalidOption(
                    "part 'mask' is missing or stands behind 'video'; with curl: -F mask=@first.png -F video=@clip.mp4"
                )
            mask = mask_image(*head["mask"])
            options = read_options(VideoOptionsIn, head["options"][0]) if "options" in head else VideoOptionsIn()
            writer = answer_writer(self._answer, options.mask_format)
            # A place is for who has begun: one that sends nothing keeps nobody out.
            with desk.place(), GrowingFile(bounds.max_bytes, "video") as file:
                upload = asyncio.create_task(self._take_in(events, request.receive, file))
                try:
                    async with FrameStream(file, desk.videos, desk.threads) as frames:
                        last = await self._segment(frames, mask, client, writer, out)
                finally:
                    upload.cancel()
                    await asyncio.wait({upload})
        if last is not None:  # else the server closes the connection, since the response is not complete
            await out.put(last, more=False)

    async def _take_in(
        self, events: AsyncGenerator[PartHead | bytearray, None], receive: Receive, file: GrowingFile
    ) -> None:
        """The rest of the upload goes to `file`; so does, as a fault, whatever ends this video early."""
        loop = asyncio.get_running_loop()
        try:
            async for event in events:
                if isinstance(event, PartHead):
                    raise errors.InvalidOption(f"part {event.name!r} stands behind 'video', which has to be the last")
                await loop.run_in_executor(self._desk.threads, file.append, event)
            file.finish()
            while (await receive())["type"] != "http.disconnect":
                pass
            raise ClientDisconnect
        except Exception as error:
            file.fail(error)

    async def _segment(
        self, frames: FrameStream, mask: EncodedImage, client: str, writer: AnswerWriter, out: _Outgoing
    ) -> bytes | None:
        """All answers but for the last bytes, which are returned: they leave when the session is gone."""
        engine, loop, threads = self._desk.engine, asyncio.get_running_loop(), self._desk.threads
        first = await frames.next()
        assert first is not None, "a video without a frame is an error"
        stream, options = secrets.token_hex(8), SessionOptions(writer.mask_format)
        async with session_for(engine, first, mask, options, client, stream) as info:
            given = await loop.run_in_executor(threads, first_answer, mask, info, writer.mask_format, self._desk.masks)
            begun = writer.begin(VideoOut.of(info, frames.reader.fps, frames.reader.length))
            await out.start(writer.media_type)
            try:
                await out.put(begun + await loop.run_in_executor(threads, writer.frame, given, first))
                async with aclosing(answers(engine, info.session, stream, frames)) as made:
                    async for delivered, image in made:
                        await out.put(await loop.run_in_executor(threads, writer.frame, delivered, image))
                return await loop.run_in_executor(threads, writer.end)
            except ClientDisconnect:
                raise
            except asyncio.CancelledError:
                if (last := writer.fault(_stopping())) is not None:
                    await out.put(last, more=False, within_s=_LAST_WORD_S)
                raise
            except errors.S2sppError as error:
                _log.info("a video ends early: %s", error.fault)
                return writer.fault(error)
            except Exception:
                _log.exception("segmenting a video failed")
                return writer.fault(unexpected())


class _Outgoing:
    """The response. Raises ClientDisconnect when its reader does not read."""

    def __init__(self, send: Send, stall_s: float) -> None:
        self._send, self._stall_s = send, stall_s
        self.started = False

    async def start(self, media_type: str) -> None:
        self.started = True
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def put(self, data: bytes, *, more: bool = True, within_s: float | None = None) -> None:
        try:
            async with asyncio.timeout(within_s or self._stall_s):
                if data or not more:
                    await self._send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError as error:
            raise ClientDisconnect from error


def _stopping() -> errors.Unavailable:
    return errors.Unavailable("the server is shutting down; send the video again in a moment")


async def _steady(chunks: AsyncGenerator[bytes, None], stall_s: float) -> AsyncGenerator[bytes, None]:
    """Raises SessionExpired when the next one does not come."""
    while True:
        try:
            async with asyncio.timeout(stall_s):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise errors.SessionExpired(f"nothing of the video has come for {stall_s:g} s; send it again") from error
        if chunk is None:
            return
        yield chunk
